"""Outputs of a build in the engine: named in the image store, pushed, or streamed to the client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from sampan.build.assemble import Assembled, Result, assemble_output
from sampan.build.attest import Attestation
from sampan.build.export import archive, files
from sampan.build.outputs import Attest, Kind, Output
from sampan.build.packages import distribution, installed
from sampan.build.provenance import Invocation, provenance
from sampan.build.request import Built
from sampan.build.sbom import bill
from sampan.build.workspace import Workspace
from sampan.engine import imageflows
from sampan.engine.buildsteps import Credentials
from sampan.engine.core import Core
from sampan.engine.imagetable import Entry
from sampan.engine.transfer import credentials as account_of
from sampan.errors import InvalidParameter
from sampan.image import Image
from sampan.image.document import wire_descriptor
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry.progress import Event, Message
from sampan.registry.push import Push
from sampan.wire.base import Json

#: Takes a line of what an output is doing.
Report = Callable[[str], None]
_TOOL = "sampan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An output that is done, or that only has to be read: ``stream`` is the tar for the client."""

    wanted: Output
    assembled: Assembled | None = None
    stream: AsyncIterator[bytes] | None = None

    @property
    def metadata(self) -> dict[str, Json]:
        """What ``--metadata-file`` says of it."""
        found: dict[str, Json] = {}
        if self.assembled is not None:
            target = self.assembled.target
            found["containerimage.descriptor"] = descriptor_document(target)
            found["containerimage.digest"] = str(target.digest)
            if len(self.assembled.images) == 1:
                found["containerimage.config.digest"] = str(self.assembled.images[0].id)
        if self.wanted.names:
            found["image.name"] = ",".join(str(name) for name in self.wanted.names)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outputs:
    """Makes outputs on one engine. The caller stays in :attr:`Core.ingests` meanwhile."""

    core: Core

    async def attested(
        self, built: Built, attest: Attest, invocation: Invocation, *, epoch: int | None = None
    ) -> Result:
        """A build's result with the attestations asked for."""
        made = []
        if attest.sbom:
            moment = invocation.finished if epoch is None else epoch
            made.append(await self.core.threads.run_long(self._bill, built.image, moment))
        if attest.provenance:
            made.append(provenance(built, invocation, attest))
        return Result(built=built, attestations=tuple(made), inline_records=built.records)

    def _bill(self, image: Image, moment: float) -> Attestation:
        labels = image.config.defaults.labels or {}
        with self._workspace().look(image.chain_id) as root:
            return bill(
                installed(root),
                distribution(root),
                name=labels.get("org.opencontainers.image.title") or "image",
                identity=str(image.chain_id),
                created=datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                tool=_TOOL,
            )

    def _workspace(self) -> Workspace:
        return Workspace(content=self.core.content, snapshotter=self.core.snapshots)

    async def make(
        self,
        results: Sequence[Result],
        wanted: Output,
        *,
        credentials: Credentials,
        report: Report,
        epoch: int | None = None,
        multi_platform: bool | None = None,
    ) -> Made:
        """Make one output; ``report`` hears of it. Raises what assembling and pushing raise.

        ``epoch`` is the build's SOURCE_DATE_EPOCH.
        """
        core = self.core
        epoch = wanted.epoch if wanted.epoch is not None else epoch
        if wanted.kind is Kind.CACHE_ONLY:
            return Made(wanted=wanted)
        if wanted.kind in (Kind.LOCAL, Kind.TAR):
            chunks = files(self._workspace(), results, wanted, epoch)
            return Made(wanted=wanted, stream=core.threads.iterate(chunks))
        if wanted.kind is Kind.DOCKER and len(results) > 1:
            raise InvalidParameter(
                "docker exporter does not currently support exporting manifest lists"
            )
        created = ""
        if epoch is not None and (len(results) > 1 or multi_platform):
            created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        assembled = await core.threads.run_long(
            assemble_output,
            core.content,
            results,
            wanted,
            multi_platform=multi_platform,
            created=created,
        )
        stream = None
        if wanted.to_client:
            chunks = await core.threads.run(_opened, core, assembled, wanted)
            stream = core.threads.iterate(chunks)
        elif wanted.store:
            await self._store(assembled, wanted, report)
        if wanted.push:
            await self._push(assembled, wanted, credentials, report)
        return Made(wanted=wanted, assembled=assembled, stream=stream)

    async def _store(self, assembled: Assembled, wanted: Output, report: Report) -> None:
        report(f"exporting manifest {assembled.target.digest}")
        identity = _own_id(assembled)
        entry = await imageflows.record(self.core, assembled.target, identity, wanted.names)
        publish_built(self.core, entry, wanted.names)
        for name in wanted.names:
            report(f"naming to {name}")

    async def _push(
        self, assembled: Assembled, wanted: Output, credentials: Credentials, report: Report
    ) -> None:
        core = self.core

        def listen(event: Event) -> None:
            if isinstance(event, Message):
                report(event.text)

        for name in wanted.names:
            where = name
            if wanted.push_by_digest:
                where = Reference(name.domain, name.path, "", assembled.target.digest)
            report(f"pushing {where}")
            endpoint = core.registry.settings.registries.push_endpoint(where)
            push = Push(
                core.registry,
                where,
                replace(endpoint, insecure=endpoint.insecure or wanted.insecure),
                core.content,
                credentials=account_of(await credentials(name.domain)),
                listener=listen,
            )
            await push.run(assembled.target.digest, None, core.registry.settings.signer)


def publish_built(core: Core, entry: Entry, names: Iterable[Reference]) -> None:
    """Tell that a build made an image and what it is called."""
    core.events.publish("image", "create", str(entry.id), {"name": str(entry.id)})
    for name in names:
        core.events.publish("image", "tag", str(entry.id), {"name": name.familiar})


def descriptor_document(target: Descriptor) -> dict[str, Json]:
    """A descriptor as clients are told of it."""
    wire = wire_descriptor(target)
    found: dict[str, Json] = {
        "mediaType": target.media_type,
        "digest": str(target.digest),
        "size": target.size,
    }
    if wire.annotations:
        found["annotations"] = dict(wire.annotations)
    return found


def _opened(core: Core, assembled: Assembled, wanted: Output) -> Iterator[bytes]:
    return archive(core.content, assembled, wanted)


def _own_id(assembled: Assembled) -> Digest:
    """The id the engine knows the image by: the one image's, else that of the index."""
    if len(assembled.images) == 1:
        return assembled.images[0].id
    return assembled.target.digest
