"""``build`` as sampand's own door takes it: flags become one request, inputs stay here.

Forms and defaults are those of ``docker buildx build`` (reference/docker-cli).
"""

from __future__ import annotations

import base64
import csv
import os
import sys
from typing import NamedTuple

from sampan.cli.build_context import _dockerfile_in, _is_archive, is_url, matcher_of
from sampan.cli.credentials import Store
from sampan.cli.fault import CliError
from sampan.cli.opts.variables import read_environment, to_map
from sampan.client.buildsinks import open_sink
from sampan.client.buildwire import Inputs, LocalContext, Sink, context_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from sampan.build.layoutaddress import LayoutImage
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Json

_DOCKERFILE_LIMIT = 4 << 20
_TO_CLIENT = ("local", "tar", "oci")
_LIMITS = {
    "memory": "memory",
    "memory_swap": "memory-swap",
    "cpu_shares": "cpu-shares",
    "cpu_period": "cpu-period",
    "cpu_quota": "cpu-quota",
    "shm_size": "shm-size",
}


class OutputSpec(NamedTuple):
    """One ``--output``: its type and keys as the daemon gets them, and where it goes here."""

    kind: str
    values: dict[str, str]
    destination: str
    directory: bool
    delete: bool


class Request(NamedTuple):
    """What is asked, and what answers the daemon's questions."""

    asked: dict[str, Json]
    inputs: Inputs
    outputs: list[OutputSpec]

    def sink(self, number: int) -> Sink:
        """Where output ``number`` goes."""
        one = self.outputs[number]
        return open_sink(one.destination, directory=one.directory, delete=one.delete)


class Target(NamedTuple):
    """One build, whoever wrote it: the command line or a bake file."""

    context: str
    dockerfile: str
    dockerfile_text: str | None
    contexts: dict[str, str]
    options: dict[str, Json]
    secrets: list[str]
    ssh: list[str]
    outputs: list[str]
    annotations: list[str]
    push: bool
    load: bool


def from_arguments(session: Session, arguments: Arguments) -> Target:
    """The build a command line asks for."""
    arguments_ = _build_arguments(session, arguments)
    platforms = [one for text in arguments.texts("platform") for one in text.split(",") if one] or [
        one for one in [session.environment.get("DOCKER_DEFAULT_PLATFORM", "")] if one
    ]
    limits = _limits(arguments)
    options: dict[str, Json] = {
        "target": arguments.text("target"),
        "platforms": [*platforms],
        "build-args": arguments_,
        "labels": {**to_map(arguments.texts("label"))},
        "no-cache": arguments.flag("no-cache"),
        "no-cache-filter": [
            one for text in arguments.texts("no-cache-filter") for one in text.split(",")
        ],
        "pull": arguments.flag("pull"),
        "network": arguments.text("network"),
        "extra-hosts": [*arguments.texts("add-host")],
        "allow": [*arguments.texts("allow")],
        "limits": limits,
        "tags": [*arguments.texts("tag")],
        "attest": {**attestations(arguments)},
        "cache-from": [{**one} for one in caches(arguments.texts("cache-from"), "ref")],
        "cache-to": [{**one} for one in caches(arguments.texts("cache-to"), "ref")],
        "call": _call(arguments),
    }
    contexts = dict(
        (name, value)
        for name, _, value in (one.partition("=") for one in arguments.texts("build-context"))
    )
    return Target(
        context=arguments.positional[0],
        dockerfile=arguments.text("file"),
        dockerfile_text=None,
        contexts=contexts,
        options=options,
        secrets=arguments.texts("secret"),
        ssh=arguments.texts("ssh"),
        outputs=arguments.texts("output"),
        annotations=arguments.texts("annotation"),
        push=arguments.flag("push"),
        load=arguments.flag("load"),
    )


def _build_arguments(session: Session, arguments: Arguments) -> dict[str, Json]:
    """Build arguments, and the environment's SOURCE_DATE_EPOCH."""
    found: dict[str, Json] = {}
    for entry in read_environment([], arguments.texts("build-arg"), session.environment):
        name, equals, value = entry.partition("=")
        if equals:
            found[name] = value
    epoch = session.environment.get("SOURCE_DATE_EPOCH")
    if epoch:
        found.setdefault("SOURCE_DATE_EPOCH", epoch)
    return found


def _limits(arguments: Arguments) -> dict[str, Json]:
    """What each RUN step may use."""
    limits: dict[str, Json] = {
        name: arguments.number(flag) for name, flag in _LIMITS.items() if arguments.number(flag)
    }
    for name, flag in (
        ("cpuset_cpus", "cpuset-cpus"),
        ("cpuset_mems", "cpuset-mems"),
        ("cgroup_parent", "cgroup-parent"),
    ):
        if arguments.text(flag):
            limits[name] = arguments.text(flag)
    limits["ulimits"] = [
        [str(one["Name"]), one["Soft"], one["Hard"]]
        for one in arguments.values("ulimit")
        if isinstance(one, dict)
    ]
    return limits


def _call(arguments: Arguments) -> str:
    if arguments.flag("check"):
        return "check"
    text = arguments.text("call").partition(",")[0]
    return "" if text == "build" else text


def attestations(arguments: Arguments) -> dict[str, str]:
    """``--attest``, ``--provenance`` and ``--sbom`` as kinds and their options."""
    found: dict[str, str] = {}
    for text in arguments.texts("attest"):
        fields = dict(one.partition("=")[::2] for one in next(csv.reader([text]), []))
        kind = fields.pop("type", "")
        if not kind:
            raise CliError("attestation type not specified")
        found[kind] = ",".join(f"{key}={value}" for key, value in fields.items())
    for kind in ("provenance", "sbom"):
        text = arguments.text(kind)
        if text.lower() in ("true", "1"):
            found[kind] = ""
        elif text.lower() in ("false", "0"):
            found[kind] = "disabled=true"
        elif text:
            found[kind] = text
    return found


def caches(texts: list[str], bare: str) -> list[dict[str, str]]:
    """``--cache-from`` and ``--cache-to``: ``type=…,key=value`` or a reference."""
    found = []
    for text in texts:
        fields = next(csv.reader([text]), [])
        if fields and "=" not in fields[0]:
            found += [{"type": "registry", bare: one} for one in fields]
            continue
        values = dict(one.partition("=")[::2] for one in fields)
        if not values.get("type"):
            raise CliError("type required for cache")
        found.append(values)
    return found


def make(session: Session, target: Target) -> Request:
    """The request for a build. Raises :class:`CliError` for what cannot be read here."""
    contexts: dict[str, LocalContext] = {}
    asked: dict[str, Json] = dict(target.options)
    archive = _main_context(target, asked, contexts)
    keys = {name: context_key(one.directory, name) for name, one in contexts.items()}
    asked["contexts"] = {**_named(target.contexts, contexts, keys)}
    asked["keys"] = {**keys}
    _caches(asked, contexts, keys)
    asked["secrets"] = {**_secrets(target.secrets, session.environment)}
    agents = _agents(target.ssh, session.environment)
    asked["ssh"] = [*agents]
    outputs = _outputs(target)
    asked["outputs"] = [[one.kind, {**one.values}] for one in outputs]
    asked["auth"] = _auth(session)
    outputs += [OutputSpec("cache", {}, one, True, False) for one in _exports(asked)]
    inputs = Inputs(contexts=contexts, agents=agents, archive=archive)
    return Request(asked=asked, inputs=inputs, outputs=outputs)


def _main_context(
    target: Target, asked: dict[str, Json], contexts: dict[str, LocalContext]
) -> bytes:
    """Fill in context and Dockerfile; returns what was read of standard input beyond them."""
    source, dockerfile = target.context, target.dockerfile
    if source == "-":
        if dockerfile == "-":
            raise CliError(
                "invalid argument: can't use stdin for both build context and dockerfile"
            )
        head = sys.stdin.buffer.read(1024)
        if not head:
            raise CliError("unable to prepare context: unexpected EOF")
        if _is_archive(head):
            asked |= {"context": "archive", "filename": dockerfile or "Dockerfile"}
            return head
        text = head + sys.stdin.buffer.read(_DOCKERFILE_LIMIT)
        asked |= {"context": "", "dockerfile": _text(text), "filename": "Dockerfile"}
        return b""
    if is_url(source):
        asked |= {"context": source, "filename": dockerfile or "Dockerfile"}
        if target.dockerfile_text is not None:
            asked["dockerfile"] = target.dockerfile_text
        elif dockerfile == "-":
            asked |= {"dockerfile": _text(sys.stdin.buffer.read()), "filename": "Dockerfile"}
        return b""
    if not os.path.isdir(source):
        raise CliError(f'unable to prepare context: path "{source}" not found')
    _directory(target, asked, contexts)
    return b""


def _directory(target: Target, asked: dict[str, Json], contexts: dict[str, LocalContext]) -> None:
    source, dockerfile = target.context, target.dockerfile
    beside = dockerfile
    if target.dockerfile_text is not None:
        text, name, beside = target.dockerfile_text, dockerfile or "Dockerfile", ""
    elif dockerfile == "-":
        text, name, beside = _text(sys.stdin.buffer.read()), "Dockerfile", ""
    else:
        name, extra = _dockerfile_in(source, dockerfile)
        if extra is not None:
            text, name = _text(extra[1]), os.path.basename(dockerfile)
        else:
            with open(os.path.join(source, name), "rb") as file:
                text = _text(file.read(_DOCKERFILE_LIMIT))
    patterns, matcher = matcher_of(source, beside)
    keep = None if matcher is None else lambda relative: not matcher.ignores(relative)
    contexts[""] = LocalContext(os.path.realpath(source), keep)
    asked |= {"context": "local", "dockerfile": text, "filename": name}
    if patterns is not None:
        asked["ignore"] = [*patterns]


def _text(data: bytes) -> str:
    if len(data) >= _DOCKERFILE_LIMIT:
        raise CliError("the Dockerfile is too large")
    return data.decode("utf-8", "replace")


def _named(
    given: Mapping[str, str], contexts: dict[str, LocalContext], keys: dict[str, str]
) -> dict[str, str]:
    """Named contexts: directories of ours stay here, the rest is the daemon's to find."""
    found: dict[str, str] = {}
    for name, value in given.items():
        if not name or not value:
            raise CliError(f"invalid context value: {name}={value}, expected key=value")
        if os.path.isdir(value):
            _, matcher = matcher_of(value, "")
            keep = None if matcher is None else lambda one, m=matcher: not m.ignores(one)
            contexts[name] = LocalContext(os.path.realpath(value), keep)
            keys[name] = context_key(contexts[name].directory, name)
            found[name] = "local"
        elif value.startswith("oci-layout://"):
            image = _layout(name, value)
            contexts[name] = LocalContext(
                os.path.realpath(image.directory), image.files().__contains__
            )
            keys[name] = context_key(contexts[name].directory, name)
            found[name] = f"oci-layout://@{image.digest}"
        elif "://" in value or is_url(value) or value.startswith("target:"):
            found[name] = value
        else:
            raise CliError(f"failed to get build context path {value}: no such directory")
    return found


def _layout(name: str, address: str) -> LayoutImage:
    from sampan.build import layoutaddress
    from sampan.errors import SampanError

    try:
        return layoutaddress.find(address)
    except (SampanError, OSError) as error:
        raise CliError(f"failed to get build context {name}: {error}") from None


def _caches(
    asked: dict[str, Json], contexts: dict[str, LocalContext], keys: dict[str, str]
) -> None:
    """Caches in directories of ours are contexts; credentials of others come from here."""
    given = asked.get("cache-from")
    for number, one in enumerate(given if isinstance(given, list) else []):
        if not isinstance(one, dict) or one.get("type") != "local":
            continue
        source = str(one.get("src", ""))
        if not os.path.isdir(source):  # as docker does: a first build has no cache yet
            one["missing"] = "true"
            continue
        name = f"cache:{number}"
        contexts[name] = LocalContext(os.path.realpath(source), None)
        keys[name] = context_key(contexts[name].directory, name)
    asked["keys"] = {**keys}


def _exports(asked: dict[str, Json]) -> list[str]:
    """The directories that caches are written to here."""
    found = []
    given = asked.get("cache-to")
    for one in given if isinstance(given, list) else []:
        if isinstance(one, dict) and one.get("type") == "local":
            destination = str(one.get("dest", ""))
            if not destination:
                raise CliError("dest is required for a local cache")
            found.append(destination)
    return found


def _secrets(texts: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """``--secret id=X[,src=FILE][,env=NAME]``: read here, sent as base64."""
    found: dict[str, str] = {}
    for text in texts:
        values = {
            "type": "",
            **dict(one.partition("=")[::2] for one in next(csv.reader([text]), [])),
        }
        source = values.get("src") or values.get("source") or ""
        name = values.get("env", "")
        identity = values.get("id", "") or os.path.basename(source)
        unknown = set(values) - {"type", "id", "src", "source", "env"}
        if unknown:
            raise CliError(f"unexpected key {min(unknown)!r} in --secret")
        kind = values["type"] or ("env" if name else "file")
        if kind == "env" or (not source and not name and identity in environment):
            data = environment.get(name or source or identity)
            if data is None:
                raise CliError(f"secret {identity}: environment variable is not set")
            found[identity] = base64.b64encode(os.fsencode(data)).decode()
            continue
        path = source or identity
        try:
            with open(path, "rb") as file:
                found[identity] = base64.b64encode(file.read(500 << 10)).decode()
        except OSError as error:
            raise CliError(f"failed to read secret {identity}: {error.strerror}") from error
    return found


def _agents(texts: list[str], environment: Mapping[str, str]) -> dict[str, str]:
    """``--ssh default|ID[=SOCKET]``: sockets of agents by id."""
    found: dict[str, str] = {}
    for text in texts:
        identity, _, path = text.partition("=")
        path = path or environment.get("SSH_AUTH_SOCK", "")
        if not path:
            raise CliError("invalid empty ssh agent socket, make sure SSH_AUTH_SOCK is set")
        found[identity or "default"] = path
    return found


def _outputs(target: Target) -> list[OutputSpec]:
    texts = list(target.outputs)
    if target.push:
        texts.append("type=registry")
    if target.load:
        texts.append("type=docker")
    found = [_output(text) for text in texts] or [OutputSpec("image", {}, "", False, False)]
    if target.annotations:
        from sampan.build.outputs import parse_annotation
        from sampan.errors import InvalidParameter

        for text in target.annotations:
            try:
                names, value = parse_annotation(text)
            except InvalidParameter as error:
                raise CliError(error.message) from error
            for one in found:
                if one.kind not in ("local", "tar", "cacheonly"):
                    one.values.update(dict.fromkeys(names.split("\n"), value))
    return found


def _output(text: str) -> OutputSpec:
    """``type=…`` or a path; what the daemon need not know stays here."""
    if text == "-":
        return OutputSpec("tar", {"dest": "-"}, "-", False, False)
    fields = next(csv.reader([text]), [])
    if len(fields) == 1 and "=" not in fields[0]:
        return OutputSpec("local", {"dest": text}, text, True, False)
    values = dict(one.partition("=")[::2] for one in fields)
    kind = values.pop("type", "")
    if not kind:
        raise CliError("type is required for output")
    destination = values.get("dest", "")
    if kind == "docker" and not destination:
        return OutputSpec("image", values, "", False, False)
    directory = kind == "local" or (kind == "oci" and values.get("tar") == "false")
    if kind in _TO_CLIENT and not destination:
        if directory:
            raise CliError(f"dest is required for {kind} output")
        destination = values["dest"] = "-"
    if destination == "-" and sys.stdout.isatty():
        raise CliError(f"dest file is required for {kind} exporter. refusing to write to console")
    return OutputSpec(kind, values, destination, directory, values.get("mode") == "delete")


def output_values(line: str) -> dict[str, str]:
    """One ``--output`` as keys and values, its type among them."""
    one = _output(line)
    return {"type": one.kind, **one.values}


def _auth(session: Session) -> dict[str, Json]:
    found: dict[str, Json] = {}
    for server, credentials in Store(session.config).all().items():
        host = server.removeprefix("https://").removeprefix("http://").partition("/")[0]
        found[host.replace("index.docker.io", "docker.io")] = {
            key: str(value) for key, value in credentials.document().items()
        }
    return found
