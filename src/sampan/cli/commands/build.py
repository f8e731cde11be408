"""``image build``: through sampand's own door, or a daemon's classic build endpoint.

``BACKENDS`` is the seam: a backend takes the session and the parsed arguments.
"""

from __future__ import annotations

import json
import os
import sys

from sampan.cli.build_context import BuildContext, open_context
from sampan.cli.command import ONE, Command, Flag, Kind
from sampan.cli.credentials import Store, encode_auth
from sampan.cli.fault import CliError
from sampan.cli.kinds import BOOL, BYTES, INT, LIST, MEMORY_SWAP, STRING, STRINGS
from sampan.cli.opts.devices import ULIMIT
from sampan.cli.opts.hosts import ADD_HOST
from sampan.cli.opts.variables import ENV, LABEL, read_environment, to_map
from sampan.cli.progress import Progress
from sampan.cli.reference import parse_reference
from sampan.cli.units import human_size
from sampan.client.document import text
from sampan.client.failure import StreamFailed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.api import Query
    from sampan.client.document import Document, Json


def _parse_tag(name: str) -> str:
    try:
        return parse_reference(name).familiar
    except CliError as error:
        raise ValueError(error.message) from error


TAG = Kind("list", _parse_tag, many=True)
PROGRESS = Flag(
    "progress",
    "",
    STRING,
    "Set type of progress output (auto, none, plain, quiet, rawjson, tty)",
    "auto",
)


def _json(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"))


def _query(session: Session, arguments: Arguments, context: BuildContext) -> Query:
    build_args: dict[str, Json] = {}
    for entry in read_environment([], arguments.texts("build-arg"), session.environment):
        name, equals, value = entry.partition("=")
        build_args[name] = value if equals else None
    labels = to_map(arguments.texts("label"))
    ulimits: list[Json] = [item for item in arguments.values("ulimit") if isinstance(item, dict)]
    squash = arguments.flag("squash")
    return {
        "t": arguments.texts("tag"),
        "dockerfile": context.dockerfile,
        "remote": context.remote,
        "q": arguments.flag("quiet"),
        "nocache": arguments.flag("no-cache"),
        "rm": "1" if arguments.flag("rm") else "0",
        "forcerm": arguments.flag("force-rm"),
        "pull": arguments.flag("pull"),
        "memory": arguments.number("memory"),
        "memswap": arguments.number("memory-swap"),
        "cpushares": arguments.number("cpu-shares"),
        "cpuperiod": arguments.number("cpu-period"),
        "cpuquota": arguments.number("cpu-quota"),
        "cpusetcpus": arguments.text("cpuset-cpus"),
        "cpusetmems": arguments.text("cpuset-mems"),
        "cgroupparent": arguments.text("cgroup-parent"),
        "shmsize": arguments.number("shm-size"),
        "buildargs": _json(build_args) if build_args else "",
        "labels": _json({**labels}) if labels else "",
        "cachefrom": _json(
            [one for text in arguments.texts("cache-from") for one in text.split(",")]
        )
        if arguments.texts("cache-from")
        else "",
        "extrahosts": arguments.texts("add-host"),
        "networkmode": arguments.text("network"),
        "securityopt": _json([*arguments.texts("security-opt")])
        if arguments.texts("security-opt")
        else "",
        "squash": squash,
        "target": arguments.text("target"),
        "ulimits": _json(ulimits) if ulimits else "",
        "platform": ",".join(arguments.texts("platform"))
        or session.environment.get("DOCKER_DEFAULT_PLATFORM", ""),
        "version": "1",
    }


class _Sent:
    """Counts the context on its way and says how large it was."""

    def __init__(self, pieces: Iterable[bytes], report: Callable[[int], None] | None) -> None:
        self._pieces = pieces
        self._report = report

    def __iter__(self) -> Iterator[bytes]:
        total = 0
        for piece in self._pieces:
            total += len(piece)
            yield piece
        if self._report is not None:
            self._report(total)


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    import zlib

    packer = zlib.compressobj(wbits=31)
    for piece in pieces:
        data = packer.compress(piece)
        if data:
            yield data
    yield packer.flush()


def _classic(session: Session, arguments: Arguments) -> int:
    quiet = arguments.flag("quiet")
    context = open_context(arguments.positional[0], arguments.text("file"))
    registries: Document = {
        server: credentials.document()
        for server, credentials in Store(session.config).all().items()
    }
    headers = {
        "Content-Type": "application/x-tar",
        "X-Registry-Config": encode_auth(registries),
    }
    body = context.body
    if body is not None:
        if arguments.flag("compress"):
            body = _compressed(body)
        report = None if quiet else _report(session)
        body = _Sent(body, report)
    query = _query(session, arguments, context)
    records = session.client.stream("POST", "/build", query, body, headers)
    identity = _show(session, records, quiet=quiet)
    path = arguments.text("iidfile")
    if path:
        if not identity:
            raise CliError(f"server did not provide an image ID. Cannot write {path}")
        _write_id(path, identity)
    return 0


def _report(session: Session) -> Callable[[int], None]:
    def report(total: int) -> None:
        session.line(f"Sending build context to daemon  {human_size(total, 4)}")
        session.flush()

    return report


def _show(session: Session, records: Iterable[Document], *, quiet: bool) -> str:
    """Show the build's output; with ``quiet`` only the image's id. Returns the id."""
    found: list[str] = []

    def remember(aux: Document) -> None:
        if text(aux, "ID"):
            found.append(text(aux, "ID"))

    if not quiet:
        Progress(1, terminal=session.is_terminal(1), on_aux=remember).show(records)
        return found[-1] if found else ""
    output: list[str] = []
    for record in records:
        aux = record.get("aux")
        if isinstance(aux, dict):
            remember(aux)
        if text(record, "error"):
            sys.stderr.write("".join(output))
            raise StreamFailed(text(record, "error"))
        output.append(text(record, "stream"))
    identity = found[-1] if found else "".join(output).strip()
    session.line(identity)
    return identity


def _write_id(path: str, identity: str) -> None:
    temporary = f"{path}.{os.getpid()}.tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(identity)
    os.replace(temporary, path)


#: Flags that only sampand's own door understands.
_MODERN = (
    *("allow", "annotation", "attest", "build-context", "cache-to", "call", "check", "load"),
    *("metadata-file", "no-cache-filter", "output", "progress", "provenance", "push", "sbom"),
    *("secret", "ssh"),
)


def _modern(session: Session, arguments: Arguments) -> int:
    from sampan.cli.build_modern import build

    return build(session, arguments)


#: Ways to build, by name.
BACKENDS: dict[str, Callable[[Session, Arguments], int]] = {"classic": _classic, "modern": _modern}


def _build(session: Session, arguments: Arguments) -> int:
    if session.environment.get("DOCKER_BUILDKIT") != "0" and _is_ours(session):
        return BACKENDS["modern"](session, arguments)
    for name in _MODERN:
        if name in arguments.changed:
            raise CliError(f"--{name} needs sampand: the daemon's classic builder has it not")
    return BACKENDS["classic"](session, arguments)


def _is_ours(session: Session) -> bool:
    client = session.client
    server = (client.server or client.ping()).get("server", "")
    return server.startswith("Sampan/")


BUILD = Command(
    "[OPTIONS] PATH | URL | -",
    (
        Flag("add-host", "", ADD_HOST, "Add a custom host-to-IP mapping (host:ip)"),
        Flag("build-arg", "", ENV, "Set build-time variables"),
        Flag("allow", "", STRINGS, "Allow extra privileged entitlement (e.g. network.host)"),
        Flag("annotation", "", LIST, "Add annotation to the image"),
        Flag("attest", "", LIST, "Attestation parameters (format: type=sbom,generator=image)"),
        Flag("build-context", "", LIST, "Additional build contexts (e.g. name=path)"),
        Flag("cache-from", "", LIST, "External cache sources (e.g. user/app:cache)"),
        Flag("cache-to", "", LIST, "Cache export destinations (e.g. type=local,dest=path)"),
        Flag(
            "call", "", STRING, "Set method for evaluating build (check, outline, targets)", "build"
        ),
        Flag("check", "", BOOL, "Shorthand for --call=check"),
        Flag(
            "cgroup-parent",
            "",
            STRING,
            "Set the parent cgroup for the RUN instructions during build",
        ),
        Flag("compress", "", BOOL, "Compress the build context using gzip"),
        Flag("cpu-period", "", INT, "Limit the CPU CFS (Completely Fair Scheduler) period"),
        Flag("cpu-quota", "", INT, "Limit the CPU CFS (Completely Fair Scheduler) quota"),
        Flag("cpu-shares", "c", INT, "CPU shares (relative weight)"),
        Flag("cpuset-cpus", "", STRING, "CPUs in which to allow execution (0-3, 0,1)"),
        Flag("cpuset-mems", "", STRING, "MEMs in which to allow execution (0-3, 0,1)"),
        Flag(
            "file",
            "f",
            STRING,
            "Name of the Dockerfile (Default is PATH/Dockerfile)",
            complete="file",
        ),
        Flag("force-rm", "", BOOL, "Always remove intermediate containers"),
        Flag("iidfile", "", STRING, "Write the image ID to the file", complete="file"),
        Flag("isolation", "", STRING, "Container isolation technology"),
        Flag("label", "", LABEL, "Set metadata for an image"),
        Flag("load", "", BOOL, "Shorthand for --output=type=docker"),
        Flag("memory", "m", BYTES, "Memory limit"),
        Flag(
            "memory-swap",
            "",
            MEMORY_SWAP,
            "Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
        Flag(
            "network",
            "",
            STRING,
            "Set the networking mode for the RUN instructions during build",
            "default",
            complete="network",
        ),
        Flag("metadata-file", "", STRING, "Write build result metadata to a file", complete="file"),
        Flag("no-cache", "", BOOL, "Do not use cache when building the image"),
        Flag("no-cache-filter", "", LIST, "Do not cache specified stages"),
        Flag("output", "o", LIST, "Output destination (format: type=local,dest=path)"),
        Flag("platform", "", LIST, "Set target platform for build"),
        PROGRESS,
        Flag("provenance", "", STRING, "Shorthand for --attest=type=provenance"),
        Flag("pull", "", BOOL, "Always attempt to pull a newer version of the image"),
        Flag("push", "", BOOL, "Shorthand for --output=type=registry"),
        Flag("quiet", "q", BOOL, "Suppress the build output and print image ID on success"),
        Flag("rm", "", BOOL, "Remove intermediate containers after a successful build", "true"),
        Flag("sbom", "", STRING, "Shorthand for --attest=type=sbom"),
        Flag("secret", "", LIST, "Secret to expose to the build (format: id=mysecret,src=path)"),
        Flag("security-opt", "", STRINGS, "Security options"),
        Flag("shm-size", "", BYTES, "Size of /dev/shm"),
        Flag("squash", "", BOOL, "Squash newly built layers into a single new layer"),
        Flag("ssh", "", LIST, "SSH agent socket to expose to the build (default|id[=socket])"),
        Flag("tag", "t", TAG, "Name and optionally a tag in the name:tag format"),
        Flag("target", "", STRING, "Set the target build stage to build."),
        Flag("ulimit", "", ULIMIT, "Ulimit options"),
        Flag("disable-content-trust", "", BOOL, "", "true", hidden=True),
    ),
    ONE,
    _build,
    complete="directory",
)
