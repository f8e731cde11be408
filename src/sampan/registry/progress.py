"""What a pull or push reports while it runs: typed events, and their form in Docker's API."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sampan.model.digest import Digest


class Step(StrEnum):
    """How far a layer is, in Docker's words. The last four of pull are the unpacker's."""

    PULLING = "Pulling fs layer"
    WAITING = "Waiting"
    DOWNLOADING = "Downloading"
    VERIFYING = "Verifying Checksum"
    DOWNLOADED = "Download complete"
    EXTRACTING = "Extracting"
    PULLED = "Pull complete"
    PRESENT = "Already exists"
    RETRYING = "Retrying"
    PREPARING = "Preparing"
    PUSHING = "Pushing"
    PUSHED = "Pushed"
    THERE = "Layer already exists"
    MOUNTED = "Mounted from"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """A layer's state. ``current`` and ``total`` are bytes, 0 when they say nothing.

    ``detail`` is the repository of MOUNTED, the seconds of RETRYING.
    """

    digest: Digest
    step: Step
    current: int = 0
    total: int = 0
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A line of text, about ``id`` (a tag) if that is not empty."""

    text: str
    id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What the registry wants its users to read (OCI distribution spec, "Warnings")."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """A tag was pushed: the manifest's digest and size in bytes."""

    tag: str
    digest: Digest
    size: int


Event = LayerProgress | Message | Warned | Completed
#: Called in the event loop; must not block.
Listener = Callable[[Event], None]


def ignore(event: Event) -> None:
    """A listener that does not."""


def as_docker(event: Event) -> dict[str, object]:
    """The JSON object Docker's API streams for an event."""
    match event:
        case LayerProgress():
            return _layer(event)
        case Message(text=text, id=""):
            return {"status": text}
        case Message(text=text, id=name):
            return {"status": text, "id": name}
        case Warned(text=text):
            return {"status": f"Warning: {text}"}
        case Completed(tag=tag, digest=digest, size=size):
            return {
                "progressDetail": {},
                "aux": {"Tag": tag, "Digest": str(digest), "Size": size},
            }


def _layer(event: LayerProgress) -> dict[str, object]:
    status = str(event.step)
    if event.step is Step.MOUNTED:
        status = f"Mounted from {event.detail}"
    elif event.step is Step.RETRYING:
        seconds = event.detail
        status = f"Retrying in {seconds} second{'' if seconds == '1' else 's'}"
    answer: dict[str, object] = {"status": status, "progressDetail": {}, "id": event.digest.short}
    if event.total and event.step in (Step.DOWNLOADING, Step.EXTRACTING, Step.PUSHING):
        answer["progressDetail"] = {"current": event.current, "total": event.total}
        answer["progress"] = bar(event.current, event.total)
    return answer


def bar(current: int, total: int) -> str:
    """Docker's progress bar for clients that print it as it is."""
    filled = min(100 * current // total // 2, 50)
    return f"[{'=' * filled}>{' ' * (50 - filled)}] {_units(current):>8}/{_units(total)}"


def _units(count: int) -> str:
    """Bytes with four significant digits (github.com/docker/go-units, HumanSize)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 1000 or unit == "PB":
            return f"{value:.4g}{unit}"
        value /= 1000
    raise AssertionError("unreachable")
