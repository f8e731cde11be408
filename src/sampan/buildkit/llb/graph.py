"""A definition of LLB as a graph that can be relied on (pure).

Every vertex is named by the digest of its bytes, which hold the digests of its inputs, so a graph
has no cycle; what is checked here is that nothing is missing, and that each vertex says what it is.
"""

from __future__ import annotations

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.errors import InvalidParameter
from sampan.model.platform import Platform

#: What a vertex calls itself, in its metadata.
_NAME = "llb.customname"
#: An input index that stands for an empty root.
EMPTY = -1
_ROOT = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """One output of a vertex."""

    digest: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One vertex: its operation, what it takes, and how it is shown."""

    digest: str
    op: ops.Op
    inputs: tuple[Edge, ...]
    title: str
    platform: Platform
    ignore_cache: bool
    resources: ops.LinuxResources


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """Vertexes by digest, inputs before those that take them, and the output that is wanted.

    ``source`` tells where in a file of the client's each vertex comes from.
    """

    nodes: Mapping[str, Node]
    target: Edge
    source: ops.Source


def graph(definition: ops.Definition) -> Graph | None:
    """The graph of a definition; None for the empty one, which stands for nothing.

    Raises InvalidParameter telling what is wrong.
    """
    written = list(getattr(definition, "def"))
    if not written:
        return None
    parsed = {_digest(data): ops.Op.FromString(data) for data in written}
    last = parsed.pop(_digest(written[-1]))
    if last.WhichOneof("op") is not None or len(last.inputs) != 1:
        raise InvalidParameter("invalid definition: its last vertex names no result")
    nodes: dict[str, Node] = {}
    target = _edge(last.inputs[0])
    pending = [target.digest]
    while pending:  # by hand: a graph may be deeper than Python's stack
        digest = pending[-1]
        op = parsed.get(digest)
        if op is None:
            raise InvalidParameter(f"invalid missing input digest {digest}")
        missing = [one.digest for one in op.inputs if one.digest not in nodes]
        if digest in nodes or not missing:
            pending.pop()
            if digest not in nodes:
                nodes[digest] = _node(digest, op, definition, nodes)
        elif len(pending) > len(parsed):
            raise InvalidParameter("invalid definition: a vertex is its own input")
        else:
            pending.append(missing[0])
    return Graph(nodes=nodes, target=target, source=definition.Source)


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _edge(one: ops.Input) -> Edge:
    return Edge(digest=one.digest, index=one.index)


def _node(digest: str, op: ops.Op, definition: ops.Definition, before: Mapping[str, Node]) -> Node:
    _check(op)
    metadata = definition.metadata[digest] if digest in definition.metadata else ops.OpMetadata()
    title = metadata.description.get(_NAME, "") or _title(op, before)
    return Node(
        digest=digest,
        op=op,
        inputs=tuple(_edge(one) for one in op.inputs),
        title=title,
        platform=platform_of(op.platform),
        ignore_cache=metadata.ignore_cache,
        resources=metadata.linux_resources,
    )


def absolute(path: str) -> str:
    """A path of a graph from the root, clean; ``..`` stops there."""
    return "/" + posixpath.normpath(f"/{path}").lstrip("/")


def platform_of(said: ops.Platform) -> Platform:
    """A platform as a graph has it; the host's where it says none."""
    if not said.OS:
        return Platform.host()
    return Platform(
        os=said.OS,
        architecture=said.Architecture,
        variant=said.Variant,
        os_version=said.OSVersion,
    )


def _check(op: ops.Op) -> None:
    """What each operation needs to mean something."""
    count = len(op.inputs)
    match op.WhichOneof("op"):
        case "source":
            if count:
                raise InvalidParameter(f"invalid source op with {count} inputs")
        case "exec":
            if not op.exec.meta.args:
                raise InvalidParameter("invalid exec op with no args")
            if all(mount.dest != _ROOT for mount in op.exec.mounts):
                raise InvalidParameter("invalid exec op with no rootfs")
            for mount in op.exec.mounts:
                _index("exec", mount.input, count)
        case "file":
            if not op.file.actions:
                raise InvalidParameter("invalid file op with no actions")
            for number, action in enumerate(op.file.actions):
                if action.WhichOneof("action") is None:
                    raise InvalidParameter("invalid file op with an unknown action")
                _index("file", action.input, count + number)
                _index("file", action.secondaryInput, count + number)
        case "merge":
            for one in op.merge.inputs:
                _index("merge", one.input, count)
        case "diff":
            if not (op.diff.HasField("lower") and op.diff.HasField("upper")):
                raise InvalidParameter("invalid diff op with nil lower or upper input")
            _index("diff", op.diff.lower.input, count)
            _index("diff", op.diff.upper.input, count)
        case "passthrough":
            if not op.passthrough.id or not op.passthrough.outputs:
                raise InvalidParameter("invalid passthrough op with no id or no outputs")
            for index in op.passthrough.outputs:
                _index("passthrough", index, count)
        case "build":
            if op.build.builder != EMPTY:
                raise InvalidParameter("invalid build op: its builder is not the daemon's own")
        case _:
            raise InvalidParameter("invalid definition: a vertex has no operation known here")


def _index(kind: str, index: int, count: int) -> None:
    if not EMPTY <= index < count:
        raise InvalidParameter(f"invalid {kind} op: there is no input {index}")


def _title(op: ops.Op, before: Mapping[str, Node]) -> str:
    """How a vertex is shown that has no name of its own."""

    def named(index: int) -> str:
        return "scratch" if index == EMPTY else f"({before[op.inputs[index].digest].title})"

    match op.WhichOneof("op"):
        case "source":
            return op.source.identifier
        case "exec":
            return " ".join(op.exec.meta.args)
        case "file":
            return ", ".join(_action(action) for action in op.file.actions)
        case "merge":
            names = ", ".join(before[one.digest].title for one in op.inputs)
            return f"merge ({names})"
        case "diff":
            return f"diff {named(op.diff.lower.input)} -> {named(op.diff.upper.input)}"
        case "passthrough":
            return f"passthrough {op.passthrough.id}"
    return "build"


def _action(action: ops.FileAction) -> str:
    match action.WhichOneof("action"):
        case "mkdir":
            return f"mkdir {action.mkdir.path}"
        case "mkfile":
            return f"mkfile {action.mkfile.path}"
        case "rm":
            return f"rm {action.rm.path}"
        case "symlink":
            return f"symlink {action.symlink.newpath} -> {action.symlink.oldpath}"
    return f"copy {action.copy.src} {action.copy.dest}"
