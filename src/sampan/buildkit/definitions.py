"""Graphs of one source, as clients are told of them (BuildKit's solver/pb/ops.proto) (pure)."""

from __future__ import annotations

import hashlib
import json

from sampan.buildkit.protocol import ops_pb2 as ops


def sourced(source: ops.SourceOp) -> ops.Definition:
    """The graph whose result is a source."""
    first = ops.Op(source=source).SerializeToString(deterministic=True)
    digest = _digest(first)
    last = ops.Op(inputs=[ops.Input(digest=digest)]).SerializeToString()
    found = ops.Definition(metadata={digest: ops.OpMetadata(), _digest(last): ops.OpMetadata()})
    getattr(found, "def").extend((first, last))
    return found


def dockerfile(filename: str) -> ops.Definition:
    """The client's directory that a Dockerfile came from."""
    names = json.dumps([filename])
    attributes = {"local.includepattern": names, "local.followpaths": names}
    return sourced(ops.SourceOp(identifier="local://dockerfile", attrs=attributes))


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
