"""``bake``: the targets of a file, built; independent ones side by side."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import threading
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from sampan.bake.files import DEFAULT_FILES, Definition, read
from sampan.bake.targets import Bake
from sampan.bake.tree import BakeError
from sampan.cli.build_modern import perform
from sampan.cli.build_progress import Display, display
from sampan.cli.build_request import Target, caches, make, output_values
from sampan.cli.command import ANY, Command, Flag
from sampan.cli.commands.build import PROGRESS
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, LIST, STRING, parse_bytes
from sampan.client.document import text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from sampan.bake.targets import Target as BakeTarget
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Document, Json

_AT_ONCE = 8
_LINK = "target:"


def _bake(session: Session, arguments: Arguments) -> int:
    try:
        return _do(session, arguments)
    except BakeError as error:
        raise CliError(error.message) from error


def _do(session: Session, arguments: Arguments) -> int:
    definition = _definition(session, arguments)
    from sampan.model.platform import Platform

    bake = Bake(
        definition,
        session.environment,
        variables=dict(one.partition("=")[::2] for one in arguments.texts("var")),
        builtins={
            "BAKE_CMD_CONTEXT": ".",
            "BAKE_LOCAL_PLATFORM": str(Platform.host()),
        },
    )
    if arguments.text("list"):
        return _list(session, bake, arguments.text("list"))
    names = bake.names(arguments.positional)
    overrides = [*_flags(arguments), *arguments.texts("set")]
    targets = {name: bake.resolve(name, overrides) for name in names}
    for name in names:
        _linked(bake, targets, name, overrides)
    if arguments.flag("print"):
        session.line(_printed(bake, arguments.positional, targets, names))
        return 0
    return _build(session, arguments, targets, names)


def _definition(session: Session, arguments: Arguments) -> Definition:
    files = arguments.texts("file") or [name for name in DEFAULT_FILES if os.path.exists(name)]
    if not files:
        raise CliError(
            "couldn't find a bake definition: none of " + ", ".join(DEFAULT_FILES) + " is here"
        )
    sources = []
    for name in files:
        if name == "-":
            sources.append(("-", sys.stdin.read()))
            continue
        try:
            with open(name, encoding="utf-8") as file:
                sources.append((name, file.read()))
        except OSError as error:
            raise CliError(f"failed to read {name}: {error.strerror}") from error
    return read(sources, session.environment)


def _flags(arguments: Arguments) -> list[str]:
    """The flags that stand for a ``--set`` of every target."""
    found = [
        f"*.{name}=true" for name in ("no-cache", "pull", "push", "load") if arguments.flag(name)
    ]
    for kind in ("provenance", "sbom"):
        if arguments.text(kind):
            found.append(f"*.{kind}={arguments.text(kind)}")
    found += [f"*.entitlements+={one}" for one in arguments.texts("allow")]
    if arguments.flag("check"):
        found.append("*.call=check")
    elif arguments.text("call") not in ("", "build"):
        found.append(f"*.call={arguments.text('call')}")
    return found


def _linked(bake: Bake, targets: dict[str, BakeTarget], name: str, overrides: list[str]) -> None:
    """Resolve the targets that contexts of ``name`` are."""
    for value in targets[name].get("contexts", {}).values():
        linked = str(value).removeprefix(_LINK)
        if str(value).startswith(_LINK) and linked not in targets:
            targets[linked] = bake.resolve(linked, overrides)
            for key in ("push", "load"):
                targets[linked].pop(key, None)
            targets[linked]["output"] = ["type=cacheonly"]  # as buildx says it
            _linked(bake, targets, linked, overrides)


def _list(session: Session, bake: Bake, what: str) -> int:
    kind = what.rpartition("=")[2].partition(",")[0]
    if kind == "variables":
        rows = [("VARIABLE", "VALUE", "DESCRIPTION"), *bake.described_variables()]
    elif kind == "targets":
        rows = [("TARGET", "DESCRIPTION", ""), *((one, two, "") for one, two in bake.describe())]
    else:
        raise CliError(f"invalid list type {kind!r}: targets or variables")
    widths = [max(len(row[column]) for row in rows) + 2 for column in range(3)]
    for row in rows:
        session.line(
            "".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        )
    return 0


# -- printing

_OBJECTS = ("output", "cache-from", "cache-to", "secret", "ssh", "attest")


def _printed(
    bake: Bake, wanted: list[str], targets: dict[str, BakeTarget], names: list[str]
) -> str:
    groups: dict[str, Any] = {}
    pending = wanted or ["default"]
    while pending:
        name, *pending = pending
        if name in bake.groups and name not in groups:
            groups[name] = {"targets": bake.groups[name]}
            pending += bake.groups[name]
    asked = wanted or (["default"] if "default" in bake.groups else names)
    if "default" not in groups:
        groups["default"] = {"targets": asked}
    shown = {name: _shown(target) for name, target in sorted(targets.items())}
    document = {"group": dict(sorted(groups.items())), "target": shown}
    return json.dumps(document, indent=2, ensure_ascii=False)


def _shown(target: BakeTarget) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in target.items():
        if key in _OBJECTS:
            value = [one if isinstance(one, dict) else _object(key, one) for one in value]
        if key in ("push", "load", "provenance", "sbom"):
            continue
        found[key] = value
    output = [*found.get("output", [])]
    output += [{"type": "registry"}] if target.get("push") else []
    stored = any(one["type"] in ("docker", "image") for one in output)
    output += [{"type": "docker"}] if target.get("load") and not stored else []
    if output:
        found["output"] = output
    attest = [*found.get("attest", [])]
    attest += [_attest(kind, target[kind]) for kind in ("provenance", "sbom") if target.get(kind)]
    if attest:
        found["attest"] = attest
    return found


def _object(key: str, line: str) -> dict[str, str]:
    if key == "output":
        return output_values(line)
    if key.startswith("cache"):
        return caches([line], "ref")[0]
    if key == "ssh":
        identity, _, path = line.partition("=")
        return {"id": identity, **({"paths": path} if path else {})}
    fields = dict(one.partition("=")[::2] for one in next(csv.reader([line]), []))
    return fields


def _attest(kind: str, line: str) -> dict[str, str]:
    if line.lower() in ("true", "1"):
        return {"type": kind}
    if line.lower() in ("false", "0"):
        return {"type": kind, "disabled": "true"}
    return {"type": kind, **_object("attest", line)}


# -- building


def _build(
    session: Session, arguments: Arguments, targets: dict[str, BakeTarget], names: list[str]
) -> int:
    try:
        shown = _Shared(display(arguments.text("progress")))
    except ValueError as error:
        raise CliError(str(error)) from error
    results: dict[str, Document] = {}
    waiting = {
        name: target if name in names else {**target, "output": []}  # others stand on it
        for name, target in targets.items()
    }
    running: dict[Future[Document], str] = {}
    failed: BaseException | None = None
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        while (waiting and failed is None) or running:
            if failed is None:
                for name in [one for one in waiting if _ready(waiting[one], results)]:
                    request = make(session, _target(waiting.pop(name), results))
                    part = shown.part(name if len(targets) > 1 else "")
                    future = pool.submit(perform, session.another_client(), request, part)
                    running[future] = name
                if not running:
                    raise CliError(f"targets need each other: {', '.join(waiting)}")
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                name = running.pop(future)
                problem = future.exception()
                if problem is None:
                    results[name] = future.result()
                else:
                    failed = failed or problem
    shown.finish()
    if failed is not None:
        raise failed
    return _finish(session, arguments, results, names)


def _ready(target: BakeTarget, results: dict[str, Document]) -> bool:
    links = [str(one) for one in target.get("contexts", {}).values()]
    return all(one.removeprefix(_LINK) in results for one in links if one.startswith(_LINK))


def _finish(
    session: Session, arguments: Arguments, results: dict[str, Document], names: list[str]
) -> int:
    code = 0
    for name in names:
        if "text" in results[name]:
            session.out(text(results[name], "text"))
            status = results[name].get("status")
            code = max(code, status if isinstance(status, int) else 0)
    path = arguments.text("metadata-file")
    if path:
        metadata = {name: results[name].get("metadata") for name in names}
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(metadata, file, indent=2)
        os.replace(temporary, path)
    return code


def _target(target: BakeTarget, results: dict[str, Document]) -> Target:
    """A bake target as ``build`` takes it."""
    contexts = {}
    for name, value in target.get("contexts", {}).items():
        link = str(value).removeprefix(_LINK)
        linked = str(value).startswith(_LINK)
        contexts[name] = f"docker-image://{text(results[link], 'id')}" if linked else str(value)
    context = target["context"]
    inline = target.get("dockerfile-inline")
    dockerfile = target["dockerfile"]
    if inline is None and "://" not in context and not os.path.isabs(dockerfile):
        dockerfile = os.path.join(context, dockerfile)
    options: dict[str, Json] = {
        "target": target.get("target", ""),
        "platforms": [
            one for line in target.get("platforms", []) for one in line.split(",") if one
        ],
        "build-args": _arguments(target),
        "labels": {key: value or "" for key, value in target.get("labels", {}).items()},
        "no-cache": target.get("no-cache", False),
        "no-cache-filter": target.get("no-cache-filter", []),
        "pull": target.get("pull", False),
        "network": target.get("network") or "default",
        "extra-hosts": [
            f"{host}:{address}" for host, address in target.get("extra-hosts", {}).items()
        ],
        "allow": target.get("entitlements", []),
        "tags": target.get("tags", []),
        "attest": _attestations(target),
        "cache-from": [{**one} for one in _caches(target.get("cache-from", []))],
        "cache-to": [{**one} for one in _caches(target.get("cache-to", []))],
        "call": "" if target.get("call") in (None, "build") else target["call"],
        "limits": _limits(target),
    }
    return Target(
        context=context,
        dockerfile=dockerfile,
        dockerfile_text=inline,
        contexts=contexts,
        options=options,
        secrets=[_line(one) for one in target.get("secret", [])],
        ssh=[_agent(one) for one in target.get("ssh", [])],
        outputs=[_line(one) for one in target.get("output", [])],
        annotations=[str(one) for one in target.get("annotations", [])],
        push=target.get("push", False),
        load=target.get("load", False),
    )


def _arguments(target: BakeTarget) -> dict[str, Json]:
    """Build arguments, and the environment's SOURCE_DATE_EPOCH."""
    found: dict[str, Json] = {**target.get("args", {})}
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch:
        found.setdefault("SOURCE_DATE_EPOCH", epoch)
    return found


def _limits(target: BakeTarget) -> dict[str, Json]:
    limits: dict[str, Json] = {}
    if target.get("shm-size"):
        limits["shm_size"] = parse_bytes(str(target["shm-size"]))
    ulimits: list[Json] = []
    for one in target.get("ulimits", []):
        name, _, value = str(one).partition("=")
        soft, _, hard = value.partition(":")
        ulimits.append([name, int(soft), int(hard or soft)])
    if ulimits:
        limits["ulimits"] = ulimits
    return limits


def _caches(entries: list[Any]) -> list[dict[str, str]]:
    return [one if isinstance(one, dict) else caches([one], "ref")[0] for one in entries]


def _attestations(target: BakeTarget) -> dict[str, Json]:
    given = [
        one if isinstance(one, dict) else _object("attest", one) for one in target.get("attest", [])
    ]
    given += [_attest(kind, target[kind]) for kind in ("provenance", "sbom") if target.get(kind)]
    return {
        str(one.get("type", "")): ",".join(
            f"{key}={value}" for key, value in one.items() if key != "type"
        )
        for one in given
    }


def _line(one: object) -> str:
    """An object as the line it is short for."""
    if not isinstance(one, dict):
        return str(one)
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(f"{key}={value}" for key, value in one.items())
    return out.getvalue()


def _agent(one: object) -> str:
    if not isinstance(one, dict):
        return str(one)
    path = one.get("paths", "")
    return f"{one.get('id', 'default')}={path}" if path else str(one.get("id", "default"))


class _Shared:
    """One display of several builds."""

    def __init__(self, inner: Display) -> None:
        self._inner = inner
        self._lock = threading.Lock()

    def part(self, name: str) -> Display:
        """The display of one build, whose vertices it names."""
        return _Part(self, name)

    def take(self, name: str, message: str, value: Json) -> None:
        """Show a build's message."""
        if name and isinstance(value, dict):
            value = {**value, "id": f"{name}/{value.get('id')}"}
            if "name" in value:
                shown = str(value["name"])
                head = f"[{name} {shown[1:]}" if shown.startswith("[") else f"[{name}] {shown}"
                value["name"] = head
        with self._lock:
            self._inner.news(message, value)

    def finish(self) -> None:
        """All builds are over."""
        self._inner.end()


class _Part(Display):
    def __init__(self, shared: _Shared, name: str) -> None:
        self._shared = shared
        self._name = name

    def news(self, name: str, value: Json) -> None:
        """See :meth:`Display.news`."""
        self._shared.take(self._name, name, value)


BAKE = Command(
    "[OPTIONS] [TARGET...]",
    (
        Flag("allow", "", LIST, "Allow extra privileged entitlement (e.g. network.host)"),
        Flag(
            "call", "", STRING, "Set method for evaluating build (check, outline, targets)", "build"
        ),
        Flag("check", "", BOOL, "Shorthand for --call=check"),
        Flag("file", "f", LIST, "Build definition file", complete="file"),
        Flag("list", "", STRING, "List targets or variables"),
        Flag("load", "", BOOL, "Shorthand for --set=*.output=type=docker"),
        Flag("metadata-file", "", STRING, "Write build result metadata to a file", complete="file"),
        Flag("no-cache", "", BOOL, "Do not use cache when building the image"),
        Flag("print", "", BOOL, "Print the options without building"),
        PROGRESS,
        Flag("provenance", "", STRING, "Shorthand for --set=*.attest=type=provenance"),
        Flag("pull", "", BOOL, "Always attempt to pull all referenced images"),
        Flag("push", "", BOOL, "Shorthand for --set=*.output=type=registry"),
        Flag("sbom", "", STRING, "Shorthand for --set=*.attest=type=sbom"),
        Flag("set", "", LIST, "Override target value (e.g. targetpattern.key=value)"),
        Flag("var", "", LIST, "Set a variable value (name=value)"),
    ),
    ANY,
    _bake,
)
