"""Nodes -> typed instructions, flags checked, nothing expanded yet (pure).

Follows spec/dockerfile/reference.md; the messages are BuildKit's where people search for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sampan.dockerfile.duration import parse_duration
from sampan.dockerfile.heredoc import Heredoc, heredoc_of
from sampan.dockerfile.parser import KEYWORDS, DockerfileError, Node
from sampan.dockerfile.run_mount import RunMount, parse_run_mount
from sampan.dockerfile.suggest import hint, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """The command of RUN, CMD or ENTRYPOINT: exec form, or one string for the stage's shell."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class From:
    """FROM: the base of a new stage."""

    base: str
    name: str = ""
    platform: str = ""
    comment: str = ""
    as_keyword: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arg:
    """ARG: names with their defaults (None: no default)."""

    pairs: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """RUN."""

    command: Command
    mounts: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[str, ...] = ()

    def parsed_mounts(self, expand: Callable[[str], str]) -> tuple[RunMount, ...]:
        """The mounts, variables expanded; raises :class:`InvalidParameter`."""
        return tuple(parse_run_mount(mount, expand) for mount in self.mounts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """COPY and ADD (``add``); only the flags that belong to each are ever set."""

    add: bool
    sources: tuple[str, ...]
    destination: str
    heredocs: tuple[Heredoc, ...] = ()
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    keep_git_dir: bool = False
    checksum: str = ""
    unpack: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """ENV or LABEL (``label``): keys and values with quotes still in place."""

    label: bool
    pairs: tuple[tuple[str, str], ...]
    legacy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """USER, WORKDIR, STOPSIGNAL, MAINTAINER: one value."""

    keyword: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """EXPOSE, VOLUME, SHELL: several values."""

    keyword: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """CMD or ENTRYPOINT (``entrypoint``)."""

    entrypoint: bool
    command: Command


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """HEALTHCHECK; times in nanoseconds, 0 means the default; ``test`` as the image stores it."""

    test: tuple[str, ...]
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBuild:
    """ONBUILD: the trigger's text."""

    trigger: str


Instruction: TypeAlias = (
    From | Arg | Run | Copy | Pairs | Setting | Listing | Program | Health | OnBuild
)


def interpret(node: Node) -> Instruction:
    """The instruction a node means. Raises :class:`DockerfileError` naming its line."""
    make = _MAKERS.get(node.keyword)
    if make is None:
        raise DockerfileError(f"unknown instruction: {node.spelled}{_like(node)}", node.start)
    try:
        return make(node)
    except DockerfileError as error:
        raise DockerfileError(error.reason, error.line or node.start) from None


def _like(node: Node) -> str:
    found = nearest(node.keyword, sorted(KEYWORDS))
    spelled = found.upper() if node.spelled.isupper() else found
    return f" (did you mean {spelled}?)" if found else ""


@dataclass(slots=True)
class _Flags:
    """The flags of one instruction, each taken once; :meth:`finish` refuses what is left."""

    node: Node
    values: dict[str, list[str | None]]

    @classmethod
    def of(cls, node: Node) -> _Flags:
        values: dict[str, list[str | None]] = {}
        for flag in node.flags:
            name, equals, value = flag.removeprefix("--").partition("=")
            values.setdefault(name, []).append(value if equals else None)
        return cls(node, values)

    def many(self, name: str) -> tuple[str, ...]:
        found = self.values.pop(name, [])
        if None in found:
            raise DockerfileError(f"missing a value on flag: {name}")
        return tuple(value for value in found if value is not None)

    def text(self, name: str, default: str = "") -> str:
        found = self.many(name)
        if len(found) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        return found[0] if found else default

    def boolean(self, name: str) -> bool | None:
        found = self.values.pop(name, [])
        if not found:
            return None
        if len(found) > 1:
            raise DockerfileError(f"duplicate flag specified: {name}")
        value = found[0]
        if value is None or value.lower() == "true":
            return True
        if value.lower() == "false":
            return False
        raise DockerfileError(f"expecting boolean value for flag {name}, not: {value}")

    def finish(self, *known: str) -> None:
        for name in self.values:
            raise DockerfileError(f"unknown flag: --{name}{hint(name, known)}")


def _no_flags(node: Node) -> None:
    _Flags.of(node).finish()


def _from(node: Node) -> From:
    flags = _Flags.of(node)
    platform = flags.text("platform")
    flags.finish("platform")
    words = node.arguments
    if len(words) == 1:
        name = keyword = ""
    elif len(words) == 3 and words[1].lower() == "as":
        keyword, name = words[1], words[2]
        if (
            not name[0].isalpha()
            or not name.replace("-", "").replace("_", "").replace(".", "").isalnum()
        ):
            raise DockerfileError(
                f'invalid name for build stage: "{name}", name can\'t start with a number or '
                "contain symbols"
            )
    else:
        raise DockerfileError("FROM requires either one or three arguments")
    return From(
        base=words[0],
        name=name.lower(),
        platform=platform,
        comment=node.comments[-1] if node.comments else "",
        as_keyword=keyword,
    )


def _arg(node: Node) -> Arg:
    _no_flags(node)
    if not node.arguments:
        raise DockerfileError("ARG requires at least one argument")
    pairs: list[tuple[str, str | None]] = []
    for word in node.arguments:
        name, equals, value = word.partition("=")
        if not name:
            raise DockerfileError("ARG names can not be blank")
        pairs.append((name, value if equals else None))
    return Arg(pairs=tuple(pairs))


def _command(node: Node) -> Command:
    return Command(words=node.arguments, shell=not node.json, heredocs=node.heredocs)


def _run(node: Node) -> Run:
    flags = _Flags.of(node)
    run = Run(
        command=_command(node),
        mounts=flags.many("mount"),
        network=flags.text("network", "default"),
        security=flags.text("security", "sandbox"),
        devices=flags.many("device"),
    )
    flags.finish("mount", "network", "security", "device")
    if run.network not in ("default", "none", "host"):
        raise DockerfileError(f'unsupported network mode "{run.network}"')
    if run.security not in ("sandbox", "insecure"):
        raise DockerfileError(f'security mode "{run.security}" is not supported')
    if not any(node.arguments):
        raise DockerfileError("RUN requires at least one argument")
    return run


def _copy(node: Node) -> Copy:
    add = node.keyword == "add"
    flags = _Flags.of(node)
    words = node.arguments
    if len(words) < 2:
        raise DockerfileError(
            f"{node.keyword.upper()} requires at least two arguments, but only {len(words)} was "
            f"provided. Destination could not be determined"
        )
    announced = {heredoc.name for heredoc in node.heredocs}
    copy = Copy(
        add=add,
        sources=tuple(
            word
            for word in words[:-1]
            if not ((found := heredoc_of(word)) and found.name in announced and not node.json)
        ),
        destination=words[-1],
        heredocs=node.heredocs,
        chown=flags.text("chown"),
        chmod=flags.text("chmod"),
        link=flags.boolean("link") or False,
        exclude=flags.many("exclude"),
        from_="" if add else flags.text("from"),
        parents=False if add else flags.boolean("parents") or False,
        keep_git_dir=add and (flags.boolean("keep-git-dir") or False),
        checksum=flags.text("checksum") if add else "",
        unpack=flags.boolean("unpack") if add else None,
    )
    known = ("chown", "chmod", "link", "exclude")
    flags.finish(*known, *(("keep-git-dir", "checksum", "unpack") if add else ("from", "parents")))
    if heredoc_of(words[-1]) and not node.json:
        raise DockerfileError(f"{node.keyword.upper()} cannot accept a heredoc as a destination")
    return copy


def _pairs(node: Node) -> Pairs:
    _no_flags(node)
    keyword = node.keyword.upper()
    if not node.pairs:
        raise DockerfileError(f"{keyword} requires at least one argument")
    if any(not key for key, _, _ in node.pairs):
        raise DockerfileError(f"{keyword} names can not be blank")
    return Pairs(
        label=node.keyword == "label",
        pairs=tuple((key, value) for key, value, _ in node.pairs),
        legacy=any(not separator for _, _, separator in node.pairs),
    )


def _setting(node: Node) -> Setting:
    _no_flags(node)
    value = node.arguments[0].strip() if node.arguments else ""
    if not value:
        raise DockerfileError(f"{node.keyword.upper()} requires exactly one argument")
    return Setting(keyword=node.keyword, value=value)


def _listing(node: Node) -> Listing:
    _no_flags(node)
    keyword = node.keyword.upper()
    if node.keyword == "shell" and not node.json:
        raise DockerfileError("SHELL requires the arguments to be in JSON form")
    if not node.arguments:
        raise DockerfileError(f"{keyword} requires at least one argument")
    if node.keyword == "volume" and any(not value.strip() for value in node.arguments):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return Listing(keyword=node.keyword, values=node.arguments)


def _program(node: Node) -> Program:
    _no_flags(node)
    return Program(entrypoint=node.keyword == "entrypoint", command=_command(node))


def _health(node: Node) -> Health:
    flags = _Flags.of(node)
    times = {
        name: _health_time(name, flags.text(name))
        for name in ("interval", "timeout", "start-period", "start-interval")
    }
    retries_text = flags.text("retries")
    flags.finish(*times, "retries")
    if not node.arguments:
        raise DockerfileError("HEALTHCHECK requires at least one argument")
    kind, *rest = node.arguments
    if kind.upper() == "NONE":
        if rest or node.flags:
            raise DockerfileError("HEALTHCHECK NONE takes no arguments")
        return Health(test=("NONE",))
    if kind.upper() != "CMD":
        raise DockerfileError(f'unknown type "{kind}" in HEALTHCHECK (try CMD)')
    if not any(rest):
        raise DockerfileError("missing command after HEALTHCHECK CMD")
    try:
        retries = int(retries_text or 0)
    except ValueError:
        raise DockerfileError(f"--retries={retries_text!r} is not a number") from None
    if retries < 0:
        raise DockerfileError(f"--retries cannot be negative ({retries})")
    return Health(
        test=("CMD" if node.json else "CMD-SHELL", *rest),
        interval=times["interval"],
        timeout=times["timeout"],
        start_period=times["start-period"],
        start_interval=times["start-interval"],
        retries=retries,
    )


def _health_time(name: str, text: str) -> int:
    if not text:
        return 0
    nanoseconds = parse_duration(text)
    if nanoseconds is None:
        raise DockerfileError(f'invalid duration "{text}" for --{name}')
    if 0 < nanoseconds < 1_000_000 or nanoseconds < 0:
        raise DockerfileError(f"Interval {name!r} cannot be less than 1ms")
    return nanoseconds


def _onbuild(node: Node) -> OnBuild:
    _no_flags(node)
    if node.child is None:
        raise DockerfileError("ONBUILD requires at least one argument")
    if node.child.keyword == "onbuild":
        raise DockerfileError("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if node.child.keyword in ("from", "maintainer"):
        raise DockerfileError(f"{node.child.keyword.upper()} isn't allowed as an ONBUILD trigger")
    interpret(node.child)
    body = "".join(f"\n{doc.content}{doc.name}" for doc in node.heredocs)
    return OnBuild(trigger=node.child.original + body)


_MAKERS: Mapping[str, Callable[[Node], Instruction]] = {
    "add": _copy,
    "arg": _arg,
    "cmd": _program,
    "copy": _copy,
    "entrypoint": _program,
    "env": _pairs,
    "expose": _listing,
    "from": _from,
    "healthcheck": _health,
    "label": _pairs,
    "maintainer": _setting,
    "onbuild": _onbuild,
    "run": _run,
    "shell": _listing,
    "stopsignal": _setting,
    "user": _setting,
    "volume": _listing,
    "workdir": _setting,
}
