"""What becomes of a finished build: into the store, to a registry, or to the client.

The outputs themselves are the engine's (:mod:`sampan.engine.buildoutputs`); here BuildKit's
exporters ask for them, are told as its vertexes, and their bytes go through the client's session.
"""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from sampan.build.assemble import Result
from sampan.build.outputs import Kind, Output, output
from sampan.buildkit.caller import credentials, send_file
from sampan.buildkit.directories import send_directory
from sampan.buildkit.jobs import Job
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.status import Step
from sampan.engine.buildoutputs import Made, Outputs
from sampan.engine.engine import Engine
from sampan.errors import Unsupported
from sampan.model.descriptor import Descriptor

#: The exporter of dockerd's own, as the docker driver calls it.
_MOBY = "moby"
#: Wishes about the answer, not about the output.
_ANSWERS = ("prefer-image-digest", "buildinfo-attrs")
_TITLES = {
    Kind.IMAGE: "exporting to image",
    Kind.OCI: "exporting to oci image format",
    Kind.DOCKER: "exporting to docker image format",
    Kind.LOCAL: "exporting to client directory",
    Kind.TAR: "exporting to client tarball",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One exporter of a request, by the number the client knows it by."""

    number: int
    output: Output


def wanted(request: control.SolveRequest) -> tuple[Wanted, ...]:
    """The outputs a request asks for. Raises InvalidParameter, Unsupported naming what is not."""
    asked = [(one.Type, dict(one.Attrs)) for one in request.Exporters]
    if not asked and request.ExporterDeprecated:
        asked = [(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated))]
    if request.EnableSessionExporter:
        raise Unsupported("exporters that a client brings along are not supported")
    inline = any(entry.Type == "inline" for entry in request.Cache.Exports)
    return tuple(
        _wanted(number, kind, values, inline=inline) for number, (kind, values) in enumerate(asked)
    )


def _wanted(number: int, kind: str, values: dict[str, str], *, inline: bool) -> Wanted:
    values = {key: value for key, value in values.items() if key not in _ANSWERS}
    values.setdefault("dest", "-")  # where the client puts it is the client's own affair
    if kind in (_MOBY, "image"):
        kind = "image"
        values.pop("dest")
        values.pop("load", None)  # into the engine's images is where these go
        for key in ("push", "unpack", "store"):  # a key alone means yes
            if values.get(key) == "":
                values[key] = "true"
    made = output(kind, values)
    if not made.as_tar:
        raise Unsupported("tar=false: an OCI layout as a directory is not supported")
    return Wanted(number=number, output=replace(made, inline_cache=inline))


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What came of outputs: ``answer`` is what BuildKit's exporters tell of them; ``targets`` the
    images and indexes that were made, by the number of their output."""

    answer: dict[str, str] = field(default_factory=dict)
    targets: dict[int, Descriptor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporters:
    """Outputs of one engine's builds."""

    engine: Engine

    async def export(
        self, job: Job, results: Sequence[Result], outputs: Sequence[Wanted], *, several: bool
    ) -> Exported:
        """Make every output."""
        found = Exported()
        for one in outputs:
            if one.output.kind is Kind.CACHE_ONLY:
                continue
            with job.status.step(_TITLES[one.output.kind], f"export/{one.number}") as step:
                made = await self._make(job, results, one, step, several=several)
                found.answer.update(answer(made))
                if made.assembled is not None:
                    found.targets[one.number] = made.assembled.target
        return found

    async def _make(
        self, job: Job, results: Sequence[Result], one: Wanted, step: Step, *, several: bool
    ) -> Made:
        done = step.part("exporting layers")
        made = await Outputs(core=self.engine.core).make(
            _fitting(job, results, one.output),
            one.output,
            credentials=lambda domain: credentials(job.session, domain),
            report=lambda line: step.part(line)(),
            epoch=job.epoch,
            multi_platform=several or None,
        )
        done()
        if made.stream is not None:
            if one.output.kind is Kind.LOCAL:
                await self._directory(job, one, made.stream, step)
            else:
                done = step.part("sending tarball")
                attributes = list(answer(made).items())
                await send_file(
                    job.session, made.stream, exporter=one.number, attributes=attributes
                )
                done()
        return made

    async def _directory(
        self, job: Job, one: Wanted, stream: AsyncIterator[bytes], step: Step
    ) -> None:
        builds = self.engine.builds
        async with builds.unpacked(stream) as directory:
            await send_directory(
                job.session,
                directory,
                builds.threads,
                exporter=one.number,
                progress=lambda size, done: step.report("copying files", size, done=done),
            )


def _fitting(job: Job, results: Sequence[Result], wanted: Output) -> Sequence[Result]:
    """The results with the attestations this output gets.

    ``inline-only`` ones, which buildx asks for by default, are for what leaves this engine: an
    image that is only stored here stays one manifest, the same whenever nothing has changed.
    """
    leaves = wanted.push or wanted.kind is Kind.OCI
    if not job.inline_only or leaves:
        return results
    return [
        replace(
            one,
            attestations=tuple(each for each in one.attestations if each.name != "provenance.json"),
        )
        for one in results
    ]


def answer(made: Made) -> dict[str, str]:
    """What an output tells, as texts: documents are JSON, the descriptor in base64 besides."""
    found: dict[str, str] = {}
    for key, value in made.metadata.items():
        if key == "containerimage.descriptor":
            found[key] = base64.b64encode(json.dumps(value).encode()).decode()
        else:
            found[key] = value if isinstance(value, str) else json.dumps(value)
    kept_here = made.wanted.kind is Kind.IMAGE and not made.wanted.push
    if kept_here and "containerimage.config.digest" in found:
        # what inspect calls the image: clients compare (compose makes containers anew otherwise)
        found["containerimage.digest"] = found["containerimage.config.digest"]
    return found
