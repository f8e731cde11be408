"""A build's progress: plain lines, a display that is rewritten in place, JSON, or nothing."""

from __future__ import annotations

import hashlib
import json
import sys
import time

from sampan.cli.terminal import width
from sampan.client.document import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

    from sampan.client.document import Document, Json

_SHOWN_LINES = 6
_MODES = ("auto", "plain", "tty", "rawjson", "quiet", "none")


class Display:
    """Shows news as they come; this one shows nothing."""

    def news(self, name: str, value: Json) -> None:
        """Take a message of the daemon: ``vertex``, ``log`` or ``warning``."""

    def end(self) -> None:
        """The build is over."""


def display(mode: str, out: TextIO | None = None) -> Display:
    """The display for ``--progress``; ``auto`` is ``tty`` on a terminal. Raises ValueError."""
    out = out or sys.stderr
    if mode not in _MODES:
        raise ValueError(f"invalid progress mode {mode!r}: one of {', '.join(_MODES)}")
    if mode == "auto":
        mode = "tty" if out.isatty() else "plain"
    match mode:
        case "plain":
            return Plain(out)
        case "tty":
            return Terminal(out)
        case "rawjson":
            return RawJson(out)
    return Display()


class Plain(Display):
    """One line an event, numbered by vertex."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._numbers: dict[str, int] = {}
        self._started: dict[str, float] = {}
        self._open: dict[str, str] = {}

    def news(self, name: str, value: Json) -> None:
        """See :meth:`Display.news`."""
        if name == "warning":
            self._out.write(f" ! {value}\n")
        elif isinstance(value, dict) and name == "vertex":
            self._vertex(value)
        elif isinstance(value, dict) and name == "log":
            self._log(value)
        self._out.flush()

    def _number(self, identity: str) -> int:
        return self._numbers.setdefault(identity, len(self._numbers) + 1)

    def _vertex(self, value: Document) -> None:
        identity = text(value, "id")
        number = self._number(identity)
        if value.get("started"):
            self._started[identity] = time.monotonic()
            self._out.write(f"#{number} {text(value, 'name')}\n")
            return
        if rest := self._open.pop(identity, ""):
            self._line(identity, rest)
        took = time.monotonic() - self._started.get(identity, time.monotonic())
        if error := text(value, "error"):
            self._out.write(f"#{number} ERROR: {error}\n")
        elif value.get("cached"):
            self._out.write(f"#{number} CACHED\n")
        else:
            self._out.write(f"#{number} DONE {took:.1f}s\n")

    def _log(self, value: Document) -> None:
        identity = text(value, "id")
        *lines, rest = (self._open.get(identity, "") + text(value, "text")).split("\n")
        self._open[identity] = rest
        for line in lines:
            self._line(identity, line)

    def _line(self, identity: str, line: str) -> None:
        took = time.monotonic() - self._started.get(identity, time.monotonic())
        self._out.write(f"#{self._number(identity)} {took:.3f} {line.rpartition(chr(13))[2]}\n")


class RawJson(Display):
    """BuildKit's SolveStatus objects, one a line."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._started: dict[str, str] = {}

    def news(self, name: str, value: Json) -> None:
        """See :meth:`Display.news`."""
        found: Document = {}
        if name == "warning":
            found = {"warnings": [{"level": 1, "short": str(value)}]}
        elif isinstance(value, dict) and name == "vertex":
            found = {"vertexes": [self._vertex(value)]}
        elif isinstance(value, dict) and name == "log":
            found = {
                "logs": [
                    {
                        "vertex": _digest(text(value, "id")),
                        "stream": value.get("stream"),
                        "data": text(value, "text"),
                        "timestamp": _now(),
                    }
                ]
            }
        self._out.write(json.dumps(found, separators=(",", ":")) + "\n")
        self._out.flush()

    def _vertex(self, value: Document) -> Document:
        identity = text(value, "id")
        started = self._started.setdefault(identity, _now())
        found: Document = {
            "digest": _digest(identity),
            "name": text(value, "name"),
            "started": started,
        }
        if value.get("completed"):
            found["completed"] = _now()
            if value.get("cached"):
                found["cached"] = True
            if error := text(value, "error"):
                found["error"] = error
        return found


class Terminal(Display):
    """The build's vertices rewritten in place, with the last lines of those that run."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()
        self._names: dict[str, str] = {}
        self._started: dict[str, float] = {}
        self._done: dict[str, tuple[float, str]] = {}
        self._logs: dict[str, list[str]] = {}
        self._rows = 0
        self._drawn = 0.0
        self._warnings: list[str] = []

    def news(self, name: str, value: Json) -> None:
        """See :meth:`Display.news`."""
        if name == "warning":
            self._warnings.append(str(value))
        elif isinstance(value, dict) and name == "vertex":
            identity = text(value, "id")
            self._names[identity] = text(value, "name")
            now = time.monotonic()
            if value.get("started"):
                self._started[identity] = now
            else:
                state = (
                    (text(value, "error") and "ERROR") or (value.get("cached") and "CACHED") or ""
                )
                took = now - self._started.get(identity, now)
                self._done[identity] = (took, str(state))
        elif isinstance(value, dict) and name == "log":
            lines = self._logs.setdefault(text(value, "id"), [""])
            first, *more = text(value, "text").replace("\r\n", "\n").split("\n")
            lines[-1] += first
            lines += more
            del lines[: -_SHOWN_LINES - 1]
        if time.monotonic() - self._drawn > 0.05:
            self._draw()

    def end(self) -> None:
        """See :meth:`Display.end`."""
        self._draw()
        if self._warnings:
            self._out.write(f"\n {len(self._warnings)} warning(s) found:\n")
            for one in self._warnings:
                self._out.write(f" - {one}\n")
        self._out.flush()

    def _draw(self) -> None:
        self._drawn = time.monotonic()
        columns = max(20, width(2))
        state = "FINISHED" if len(self._done) == len(self._names) else ""
        took = self._drawn - self._began
        rows = [f"[+] Building {took:.1f}s ({len(self._done)}/{len(self._names)}) {state}".rstrip()]
        for identity, name in self._names.items():
            seconds, result = self._done.get(identity, (-1.0, ""))
            if seconds < 0:
                seconds = self._drawn - self._started.get(identity, self._drawn)
            label = f" => {result + ' ' if result else ''}{name}"
            figure = f"{seconds:.1f}s"
            room = columns - len(figure) - 1
            rows.append(f"{label[:room]:<{room}} {figure}")
            if identity not in self._done or result == "ERROR":
                shown = [line for line in self._logs.get(identity, []) if line.strip()]
                rows += [f" => => # {line}"[:columns] for line in shown[-_SHOWN_LINES:]]
        if self._rows:
            self._out.write(f"\x1b[{self._rows}A")
        self._out.write("".join(f"\x1b[2K{row}\n" for row in rows) + "\x1b[J")
        self._rows = len(rows)
        self._out.flush()


def _digest(identity: str) -> str:
    return f"sha256:{hashlib.sha256(identity.encode()).hexdigest()}"


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
