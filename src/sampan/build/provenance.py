"""Provenance of a build as SLSA predicates, fields as BuildKit fills them (pure).

Spec: https://slsa.dev/spec/v1.1/provenance and /v0.2; spec/dockerfile/slsa-definitions.md. ``min``
leaves out what may tell secrets of a build: arguments, labels, the Dockerfile, the steps.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sampan.build.attest import Attestation
from sampan.build.outputs import Attest
from sampan.build.request import Built, Material
from sampan.model.platform import Platform

V1 = "https://slsa.dev/provenance/v1"
V02 = "https://slsa.dev/provenance/v0.2"
_BUILD_TYPE_V1 = (
    "https://github.com/moby/buildkit/blob/master/docs/attestations/slsa-definitions.md"
)
_BUILD_TYPE_V02 = "https://mobyproject.org/buildkit@v1"
#: Arguments told in both modes: they say how, not what with.
_HARMLESS = ("cmdline", "source", "target", "no-cache", "platform")


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One build as it was asked for; times in seconds since the epoch.

    ``arguments`` has BuildKit's option names (``build-arg:X``, ``label:Y``, ``target``);
    ``secrets`` and ``ssh`` are ids. ``context`` is the address of a remote context, "" for a local
    one; ``source`` the Dockerfile's text.
    """

    id: str
    started: float
    finished: float
    dockerfile: str
    arguments: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    ssh: Sequence[str] = ()
    context: Material | None = None
    local: bool = True
    source: str = ""


def provenance(built: Built, invocation: Invocation, attest: Attest) -> Attestation:
    """The provenance of one image."""
    full = attest.provenance == "max"
    request = _request(invocation, full=full)
    config: dict[str, Any] = {"path": invocation.dockerfile}
    if invocation.context is not None:
        config |= _material(invocation.context)
    materials = [_material(one) for one in built.materials]
    if invocation.context is not None:
        materials.append(_material(invocation.context))
    complete = {
        "request": full,
        "resolvedDependencies": not invocation.local and built.hermetic,
    }
    steps = _steps(built) if full else None
    make = _v1 if attest.version == "v1" else _v02
    predicate = make(attest, invocation, built, request, config, materials, complete, steps)
    return Attestation(
        name="provenance.json",
        predicate_type=V1 if attest.version == "v1" else V02,
        predicate=predicate,
    )


def _request(invocation: Invocation, *, full: bool) -> dict[str, Any]:
    arguments = {
        key: value
        for key, value in sorted(invocation.arguments.items())
        if full or key in _HARMLESS
    }
    request: dict[str, Any] = {"frontend": "dockerfile.v0", "args": arguments}
    if invocation.local:
        request["locals"] = [{"name": "context"}, {"name": "dockerfile"}]
    if full:
        request["secrets"] = [{"id": name} for name in sorted(invocation.secrets)]
        request["ssh"] = [{"id": name} for name in sorted(invocation.ssh)]
    return request


def _steps(built: Built) -> dict[str, Any]:
    """The steps done, each with the one before it and the layer it made."""
    known = {record.key: f"step{number}" for number, record in enumerate(built.all_records)}
    steps = []
    layers: dict[str, list[list[dict[str, Any]]]] = {}
    for record in built.all_records:
        identity = known[record.key]
        step: dict[str, Any] = {"id": identity, "op": {"instruction": record.description}}
        if record.parent in known:
            step["inputs"] = [f"{known[record.parent]}:0"]
        steps.append(step)
        if record.layer is not None:
            blob = record.layer.descriptor
            described = {
                "mediaType": blob.media_type,
                "digest": str(blob.digest),
                "size": blob.size,
            }
            layers[f"{identity}:0"] = [[described]]
    return {"steps": steps, "layers": layers}


def _source(invocation: Invocation) -> dict[str, Any]:
    data = base64.b64encode(invocation.source.encode(errors="surrogateescape")).decode()
    info = {"filename": invocation.dockerfile, "language": "Dockerfile", "data": data}
    return {"infos": [info]}


def _v1(
    attest: Attest,
    invocation: Invocation,
    built: Built,
    request: dict[str, Any],
    config: dict[str, Any],
    materials: list[dict[str, Any]],
    complete: dict[str, bool],
    steps: dict[str, Any] | None,
) -> dict[str, Any]:
    internal: dict[str, Any] = {"builderPlatform": str(Platform.host())}
    details: dict[str, Any] = {}
    if steps is not None:
        internal["buildConfig"] = {"steps": steps["steps"]}
        details = {"layers": steps["layers"], "source": _source(invocation)}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE_V1,
            "externalParameters": {"configSource": config, "request": request},
            "internalParameters": internal,
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": {"id": attest.builder_id},
            "metadata": {
                "invocationID": invocation.id,
                "startedOn": _moment(invocation.started),
                "finishedOn": _moment(invocation.finished),
                "buildkit_metadata": details,
                "buildkit_hermetic": built.hermetic,
                "buildkit_completeness": complete,
                "buildkit_reproducible": attest.reproducible,
            },
        },
    }


def _v02(
    attest: Attest,
    invocation: Invocation,
    built: Built,
    request: dict[str, Any],
    config: dict[str, Any],
    materials: list[dict[str, Any]],
    complete: dict[str, bool],
    steps: dict[str, Any] | None,
) -> dict[str, Any]:
    source = {key: value for key, value in config.items() if key != "path"}
    found: dict[str, Any] = {
        "builder": {"id": attest.builder_id},
        "buildType": _BUILD_TYPE_V02,
        "materials": materials,
        "invocation": {
            "configSource": {**source, "entryPoint": invocation.dockerfile},
            "parameters": request,
            "environment": {"platform": str(Platform.host())},
        },
        "metadata": {
            "buildInvocationID": invocation.id,
            "buildStartedOn": _moment(invocation.started),
            "buildFinishedOn": _moment(invocation.finished),
            "completeness": {
                "parameters": complete["request"],
                "environment": True,
                "materials": complete["resolvedDependencies"],
            },
            "reproducible": attest.reproducible,
            "https://mobyproject.org/buildkit@v1#hermetic": built.hermetic,
        },
    }
    if steps is not None:
        found["buildConfig"] = {"steps": steps["steps"]}
        found["metadata"]["https://mobyproject.org/buildkit@v1#metadata"] = {
            "layers": steps["layers"],
            "source": _source(invocation),
        }
    return found


def _material(one: Material) -> dict[str, Any]:
    return {"uri": one.uri, "digest": {one.algorithm: one.digest}}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
