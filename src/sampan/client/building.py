"""``engine.build`` of a daemon: the embedded engine's, with this machine's files sent as needed.

What is asked goes to sampand's own door (:mod:`sampan.api.buildsession`); directories of contexts
and caches, agents and outputs stay on this side.
"""

from __future__ import annotations

import base64
import csv
import dataclasses
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from sampan.build import layoutaddress
from sampan.build.arguments import BuildArguments, BuiltImage
from sampan.build.outputs import Kind, parse_output
from sampan.build.recipe import Recipe
from sampan.client.buildsinks import open_sink
from sampan.client.buildwire import Conversation, Inputs, LocalContext, Sink, context_key
from sampan.dockerfile.ignore import IgnoreMatcher, parse_ignore_file
from sampan.errors import InvalidParameter, NotFound
from sampan.wire.base import Json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.client.http import Stream

_IGNORE_FILE = ".dockerignore"
_TO_CLIENT = (Kind.LOCAL, Kind.TAR, Kind.OCI)


class _Destination(NamedTuple):
    """Where an output goes here."""

    path: str
    directory: bool
    delete: bool = False


@dataclass(slots=True)
class Request:
    """What is asked, and what of this machine the daemon may ask for."""

    asked: dict[str, Json] = field(default_factory=dict)
    contexts: dict[str, LocalContext] = field(default_factory=dict)
    destinations: list[_Destination] = field(default_factory=list)

    def local(self, name: str, directory: str, patterns: Sequence[str] = ()) -> None:
        """Offer a directory."""
        matcher = IgnoreMatcher(tuple(patterns)) if patterns else None
        keep = None if matcher is None else lambda path: not matcher.ignores(path)
        self.contexts[name] = LocalContext(os.path.realpath(directory), keep)

    def sink(self, number: int) -> Sink:
        """Where output ``number`` goes."""
        one = self.destinations[number]
        return open_sink(one.path, directory=one.directory, delete=one.delete)


def build(stream: Stream, request: Request, options: BuildArguments) -> BuiltImage:
    """Have the daemon do a build over ``stream``. Raises StreamFailed, ConnectionFailed."""
    news = options.get("news")
    titles: dict[str, str] = {}

    def told(kind: str, value: Json) -> None:
        if news is None:
            return
        about = value if isinstance(value, dict) else {}
        identity = str(about.get("id", ""))
        if kind == "vertex":
            titles[identity] = str(about.get("name", ""))
            if about.get("started"):
                news(titles[identity], b"")
        elif kind == "log":
            news(titles.get(identity, identity), str(about.get("text", "")).encode())
        elif kind == "warning":
            news("warning", str(value).encode())

    inputs = Inputs(contexts=request.contexts, agents={**options.get("ssh", {})}, archive=b"")
    found = Conversation(stream, inputs, told, request.sink).run(request.asked)
    metadata = found.get("metadata")
    return BuiltImage(
        id=str(found.get("id", "")), metadata=metadata if isinstance(metadata, dict) else {}
    )


def request(source: Path | str | Recipe | None, options: BuildArguments) -> Request:
    """What is to be asked of a daemon. Raises InvalidParameter, NotFound, Unsupported."""
    made = Request(asked=_plain(options))
    _context(made, source, options)
    named: dict[str, Json] = {}
    for name, value in options.get("contexts", {}).items():
        if os.path.isdir(value):
            made.local(name, os.fspath(value), _patterns(os.fspath(value), "") or ())
            named[name] = "local"
        elif isinstance(value, str) and value.startswith(layoutaddress.SCHEME):
            image = layoutaddress.find(value)
            made.contexts[name] = LocalContext(
                os.path.realpath(image.directory), image.files().__contains__
            )
            named[name] = f"{layoutaddress.SCHEME}@{image.digest}"
        elif isinstance(value, str):
            named[name] = value
        else:
            raise InvalidParameter(f"{value} is no directory")
    made.asked["contexts"] = named
    made.asked["outputs"] = [_output(made, one) for one in options.get("outputs", ("type=image",))]
    _caches(made, options)
    made.asked["keys"] = {
        name: context_key(one.directory, name) for name, one in made.contexts.items()
    }
    return made


def _plain(options: BuildArguments) -> dict[str, Json]:
    """What needs nothing of this machine."""
    attest: dict[str, Json] = {}
    if options.get("provenance"):
        attest["provenance"] = options["provenance"]
    if options.get("sbom"):
        attest["sbom"] = ""
    found: dict[str, Json] = {
        "target": options.get("target", ""),
        "platforms": [*options.get("platforms", ())],
        "build-args": {**options.get("arguments", {})},
        "labels": {**options.get("labels", {})},
        "no-cache": options.get("no_cache", False),
        "no-cache-filter": [*options.get("no_cache_filter", ())],
        "pull": options.get("pull", False),
        "network": options.get("network", "default"),
        "extra-hosts": [*options.get("extra_hosts", ())],
        "allow": [*options.get("allow", ())],
        "tags": [*options.get("tags", ())],
        "ssh": [*options.get("ssh", {})],
        "attest": attest,
        "secrets": {
            name: base64.b64encode(value).decode()
            for name, value in options.get("secrets", {}).items()
        },
        "auth": _accounts(options),
    }
    if "limits" in options:
        limits = dataclasses.asdict(options["limits"])
        limits["ulimits"] = [[*one] for one in limits["ulimits"]]
        found["limits"] = limits
    return found


def _accounts(options: BuildArguments) -> dict[str, Json]:
    return {
        domain: {
            "username": one.username,
            "password": one.password,
            "serveraddress": one.server_address,
            "identitytoken": one.identity_token,
            "registrytoken": one.registry_token,
        }
        for domain, one in options.get("auth", {}).items()
    }


def _context(made: Request, source: Path | str | Recipe | None, options: BuildArguments) -> None:
    """The main context and the Dockerfile."""
    text, filename = options.get("text"), options.get("file", "Dockerfile")
    if isinstance(source, Recipe):
        if text is not None:
            raise InvalidParameter("a recipe comes without the text of a Dockerfile")
        text, source = source.dockerfile(), None
    where = options.get("context", source)
    made.asked["filename"] = filename
    if isinstance(where, str) and "://" in where:
        made.asked["context"] = where
    elif where is not None:
        directory = os.fspath(where)
        if not os.path.isdir(directory):
            raise InvalidParameter(f"{where} is no directory")
        text = _dockerfile(directory, filename) if text is None else text
        patterns = _patterns(directory, filename)
        if patterns is not None:
            made.asked["ignore"] = [*patterns]
        made.local("", directory, patterns or ())
        made.asked["context"] = "local"
    elif text is None:
        raise InvalidParameter("nothing to build: no directory, no text, no recipe")
    if text is not None:
        made.asked["dockerfile"] = text


def _dockerfile(directory: str, filename: str) -> str:
    for name in (filename, "dockerfile") if filename == "Dockerfile" else (filename,):
        path = Path(directory, name)
        if path.exists():
            return path.read_text(errors="replace")
    raise NotFound(f"Cannot locate specified Dockerfile: {filename}")


def _patterns(directory: str, filename: str) -> tuple[str, ...] | None:
    """What a directory's ignore file hides; the Dockerfile's own goes first. None: no file."""
    for name in (f"{filename}{_IGNORE_FILE}", _IGNORE_FILE):
        path = Path(directory, name)
        if path.exists():
            return tuple(parse_ignore_file(path.read_text()))
    return None


def _output(made: Request, text: object) -> Json:
    """One output as the daemon gets it; where it goes is noted here."""
    if not isinstance(text, str):
        raise InvalidParameter("outputs of a daemon's build are given as texts")
    parsed = parse_output(text)
    fields = next(csv.reader([text]), [])
    if len(fields) == 1 and "=" not in fields[0]:
        fields = ["type=tar" if text == "-" else "type=local", f"dest={text}"]
    values = dict(one.partition("=")[::2] for one in fields)
    kind = values.pop("type")
    path = parsed.destination
    if path in ("", "-") and parsed.kind in _TO_CLIENT:
        raise InvalidParameter("an output needs a dest that is a path")
    directory = parsed.kind == Kind.LOCAL or not parsed.as_tar
    made.destinations.append(_Destination(path, directory, parsed.delete))
    return [kind, {**values}]


def _caches(made: Request, options: BuildArguments) -> None:
    """Caches; those in directories are contexts to read and outputs to write."""
    imports: list[Json] = []
    for number, one in enumerate(options.get("cache_from", ())):
        here = one.get("type") == "local"
        missing = here and not os.path.isdir(one.get("src", ""))
        if here and not missing:
            made.local(f"cache:{number}", one["src"])
        imports.append({**one, "missing": "true"} if missing else {**one})
    made.asked["cache-from"] = imports
    exports = [*options.get("cache_to", ())]
    for one in exports:
        if one.get("type") == "local":
            if not one.get("dest"):
                raise InvalidParameter("dest is required for a local cache")
            made.destinations.append(_Destination(one["dest"], True))
    made.asked["cache-to"] = [{**one} for one in exports]
