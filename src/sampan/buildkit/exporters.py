"""What becomes of a finished build: into the store, to a registry, or to the client.

The outputs themselves are :mod:`sampan.build.assemble` and :mod:`sampan.build.export`; here they
are asked for by BuildKit's exporters and told as its vertexes.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sampan.build.assemble import Assembled, Result, assemble_output
from sampan.build.export import archive, files
from sampan.build.outputs import Kind, Output, output
from sampan.build.workspace import Workspace
from sampan.buildkit.caller import credentials, send_file
from sampan.buildkit.directories import send_directory
from sampan.buildkit.jobs import Job, Part
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.status import Step
from sampan.engine.engine import Engine
from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.image import Image
from sampan.model.descriptor import Descriptor
from sampan.model.platform import Platform

#: The exporter of dockerd's own, as the docker driver calls it.
_MOBY = "moby"
#: Wishes about the answer, not about the output.
_ANSWERS = ("prefer-image-digest", "buildinfo-attrs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """One exporter of a request, by the number the client knows it by."""

    number: int
    output: Output
    answers: Mapping[str, str]


def wanted(request: control.SolveRequest) -> tuple[Wanted, ...]:
    """The outputs a request asks for. Raises InvalidParameter, Unsupported naming what is not."""
    asked = [(one.Type, dict(one.Attrs)) for one in request.Exporters]
    if not asked and request.ExporterDeprecated:
        asked = [(request.ExporterDeprecated, dict(request.ExporterAttrsDeprecated))]
    if request.EnableSessionExporter:
        raise Unsupported("exporters that a client brings along are not supported")
    return tuple(_wanted(number, kind, values) for number, (kind, values) in enumerate(asked))


def _wanted(number: int, kind: str, values: dict[str, str]) -> Wanted:
    answers = {key: values.pop(key) for key in _ANSWERS if key in values}
    values.setdefault("dest", "-")  # where the client puts it is the client's own affair
    if kind in (_MOBY, "image"):
        kind = "image"
        values.pop("dest")
        for key in ("push", "unpack", "store"):
            if values.get(key) == "":
                del values[key]
    return Wanted(number=number, output=output(kind, values), answers=answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporters:
    """Outputs of one engine's builds."""

    engine: Engine
    workspace: Workspace

    async def export(
        self,
        job: Job,
        results: Sequence[tuple[Part, Result]],
        wanted: Sequence[Wanted],
        *,
        several: bool,
    ) -> dict[str, str]:
        """Make every output; the answer is what BuildKit's exporters tell of them."""
        found: dict[str, str] = {}
        for one in wanted:
            found.update(await self._one(job, results, one, several=several))
        return found

    async def _one(
        self, job: Job, results: Sequence[tuple[Part, Result]], one: Wanted, *, several: bool
    ) -> dict[str, str]:
        wanted = one.output
        made = [result for _, result in results]
        match wanted.kind:
            case Kind.CACHE_ONLY:
                return {}
            case Kind.LOCAL | Kind.TAR:
                return await self._files(job, made, one)
        destination = wanted.kind is not Kind.IMAGE
        name = _TITLES[wanted.kind] if destination else "exporting to image"
        with job.status.step(name, f"export/{one.number}") as step:
            done = step.part("exporting layers")
            assembled = await self._assembled(made, wanted, several=several)
            done()
            if destination:
                await self._archive(job, assembled, one, step)
            else:
                await self._image(job, assembled, wanted, step)
        return _answer(assembled, wanted, one)

    async def _assembled(
        self, made: Sequence[Result], wanted: Output, *, several: bool
    ) -> Assembled:
        threads = self.engine.builds.threads
        content = self.workspace.content
        if wanted.kind is Kind.DOCKER and (several or len(made) > 1):
            raise Unsupported("docker exporter does not support exporting manifest lists")
        return await threads.run_long(
            assemble_output, content, made, wanted, multi_platform=several or None
        )

    async def _image(self, job: Job, assembled: Assembled, wanted: Output, step: Step) -> None:
        image = _native(assembled)
        if wanted.store or wanted.push:
            done = step.part(f"writing image {image.id}")
            await self.engine.builds.unpack(assembled.images)
            await self.engine.builds.name(image, wanted.names)
            done()
        for name in wanted.names:
            step.part(f"naming to {name.with_default_tag()}")()
        if not wanted.push:
            return
        if not wanted.names:
            raise InvalidParameter("tag is needed when pushing to registry")
        if wanted.push_by_digest or wanted.insecure:
            raise Unsupported("push-by-digest and registry.insecure are not supported")
        for name in wanted.names:
            done = step.part(f"pushing {name.with_default_tag()}")
            auth = await credentials(job.session, name.domain)
            progress = await self.engine.images.push(
                str(name.with_default_tag()), tag=name.with_default_tag().tag or "", auth=auth
            )
            async for news in progress:
                if error := news.get("error"):
                    raise SampanError(str(error))
            done()

    async def _archive(self, job: Job, assembled: Assembled, one: Wanted, step: Step) -> None:
        wanted = one.output
        if not wanted.as_tar:
            raise Unsupported("tar=false: an OCI layout as a directory is not supported")
        done = step.part("sending tarball")
        chunks = archive(self.workspace.content, assembled, wanted)
        attributes = _answer(assembled, wanted, one)
        await send_file(
            job.session,
            self.engine.builds.threads.iterate(chunks),
            exporter=one.number,
            attributes=list(attributes.items()),
        )
        done()

    async def _files(self, job: Job, made: Sequence[Result], one: Wanted) -> dict[str, str]:
        wanted = one.output
        threads = self.engine.builds.threads
        chunks: Iterator[bytes] = files(self.workspace, made, wanted, wanted.epoch)
        local = wanted.kind is Kind.LOCAL
        title = "exporting to client directory" if local else "exporting to client tarball"
        with job.status.step(title, f"export/{one.number}") as step:
            if local:
                if wanted.delete:
                    raise Unsupported("mode=delete of local outputs is not supported")
                async with self.engine.builds.unpacked(chunks) as directory:
                    label = "copying files"
                    await send_directory(
                        job.session,
                        directory,
                        threads,
                        exporter=one.number,
                        progress=lambda size, done: step.report(label, size, done=done),
                    )
            else:
                done = step.part("sending tarball")
                await send_file(job.session, threads.iterate(chunks), exporter=one.number)
                done()
        return {}


_TITLES = {
    Kind.OCI: "exporting to oci image format",
    Kind.DOCKER: "exporting to docker image format",
}


def _native(assembled: Assembled) -> Image:
    """The image for this machine, or else the first."""
    host = Platform.host()
    return next((one for one in assembled.images if one.platform == host), assembled.images[0])


def _answer(assembled: Assembled, wanted: Output, one: Wanted) -> dict[str, str]:
    target = assembled.target
    found = {
        "containerimage.digest": str(target.digest),
        "containerimage.descriptor": base64.b64encode(
            json.dumps(_descriptor(target)).encode()
        ).decode(),
    }
    if len(assembled.images) == 1:
        found["containerimage.config.digest"] = str(assembled.images[0].id)
    if wanted.names:
        found["image.name"] = ",".join(str(name.with_default_tag()) for name in wanted.names)
    return found


def _descriptor(target: Descriptor) -> dict[str, object]:
    return {
        "mediaType": target.media_type,
        "digest": str(target.digest),
        "size": target.size,
        **({"annotations": dict(target.annotations)} if target.annotations else {}),
    }
