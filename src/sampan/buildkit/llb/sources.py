"""SourceOp: images, OCI layouts, directories of the client's, repositories, addresses."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from sampan.build.cache import Layer
from sampan.build.keys import base_key
from sampan.build.request import Built, Material
from sampan.build.solver import package_url
from sampan.build.tools import Tools
from sampan.buildkit.caller import Filter
from sampan.buildkit.contexts import Contexts
from sampan.buildkit.llb.graph import Node
from sampan.buildkit.llb.values import Directory, Root, Value
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.sessions import Session
from sampan.buildkit.sources import Fetched, remote
from sampan.buildkit.status import Status
from sampan.engine.buildlayouts import LAYOUT, layout_reference
from sampan.engine.threads import Threads
from sampan.errors import InvalidParameter, Unsupported
from sampan.image import Image
from sampan.model.digest import Digest
from sampan.model.platform import Platform

IMAGE, LOCAL, OCI_LAYOUT = "docker-image", "local", "oci-layout"
#: Attributes that decide nothing here: there is one session and one engine.
_IMAGE_HARMLESS = frozenset(("image.recordtype", "oci.session", "oci.store"))
_LOCAL_HARMLESS = frozenset(("local.unique", "local.differ"))


@dataclass(slots=True, kw_only=True)
class Sources:
    """The sources of one build; what they fetch lasts as long as ``stack``.

    ``built`` finds what another build made, by a source that stands for it.
    """

    tools: Tools
    session: Session
    contexts: Contexts
    threads: Threads
    status: Status
    stack: AsyncExitStack
    built: Callable[[ops.SourceOp], Built | None]
    materials: set[Material] = field(default_factory=set)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def fetch(self, node: Node) -> Value:
        """What a source is. Raises what fetching raises, Unsupported naming what is not done."""
        op = node.op.source
        built = self.built(op)
        if built is not None:
            return image_root(built.image)
        kind, colon, rest = op.identifier.partition("://")
        if not colon:
            raise InvalidParameter(f"failed to parse source {op.identifier!r}")
        if kind in (IMAGE, OCI_LAYOUT):
            return await self._named(node)
        if kind == LOCAL:
            return await self._local(node, rest, op.attrs)
        found = await self.fetched(op)
        attributes = sorted(one for one in op.attrs.items() if one[0] != "git.checksum")
        how = (rest.partition("#")[2].partition(":")[2], *attributes)
        known = f"{found.digest}:{how!r}"
        return Directory(path=found.directory, known=known if kind == "git" else "")

    async def image(self, reference: str, platform: Platform, *, pull: bool) -> Image:
        """An image, fetched and unpacked, noted as what the build is made from."""
        found = await self.tools.executor.base(reference, platform, pull=pull)
        target = found.target.digest
        if not reference.startswith(LAYOUT):
            uri = package_url(reference, platform)
            self.materials.add(Material(uri=uri, algorithm=target.algorithm, digest=target.hex))
        return found

    async def named(self, op: ops.SourceOp, platform: Platform, *, pull: bool) -> Image:
        """The image that a source names, fetched and unpacked."""
        kind, _, rest = op.identifier.partition("://")
        if kind == IMAGE:
            return await self.image(rest, platform, pull=pull)
        name, _, digest = rest.rpartition("@")
        if not name:
            raise InvalidParameter(f"{op.identifier} needs a digest")
        store = op.attrs.get("oci.store", "") or name
        reference = layout_reference(store, Digest.parse(digest))
        return await self.image(reference, platform, pull=False)

    async def _named(self, node: Node) -> Root:
        op = node.op.source
        values = {key: value for key, value in op.attrs.items() if key not in _IMAGE_HARMLESS}
        pull = values.pop("image.resolvemode", "") == "pull"
        limit = _number(values, "image.layerlimit") or _number(values, "oci.layerlimit")
        checksum = values.pop("image.checksum", "")
        _none_left(values)
        image = await self.named(op, node.platform, pull=pull)
        if checksum and checksum != str(image.target.digest):
            raise InvalidParameter(
                f"image digest {image.target.digest} does not match the checksum {checksum}"
            )
        return image_root(image, limit)

    async def _local(self, node: Node, name: str, attributes: Mapping[str, str]) -> Directory:
        values = {key: value for key, value in attributes.items() if key not in _LOCAL_HARMLESS}
        wanted = Filter(
            name=name,
            include=_texts(values, "local.includepattern"),
            exclude=_texts(values, "local.excludepatterns"),
            follow=_texts(values, "local.followpaths"),
        )
        hint = values.pop("local.sharedkeyhint", "") or name
        other = values.pop("local.session", "")
        _none_left(values)
        step = self.status.part_of(node.digest, node.title)
        # several graphs may ask for one directory with different patterns: one at a time
        async with self._lock:
            path = await self.stack.enter_async_context(
                self.contexts.received(self.session, wanted, f"llb:{hint}", step, name, other=other)
            )
        return Directory(path=path)

    async def fetched(self, op: ops.SourceOp) -> Fetched:
        """A repository or what an address has, in a directory that lasts as long as the build."""
        source = remote(op, self.tools.policy)
        directory = await self.stack.enter_async_context(self.contexts.temporary())
        found = await self.threads.run_long(source.fetch, directory)
        await self.threads.run(os.chmod, found.directory, 0o755)
        self.materials.add(
            Material(uri=op.identifier, algorithm=found.algorithm, digest=found.digest)
        )
        return found


def image_root(image: Image, limit: int = 0) -> Root:
    """An image's layers, at most ``limit`` of them (0: all)."""
    layers = tuple(
        Layer(diff_id=diff_id, descriptor=descriptor, chain_id=chain)
        for diff_id, descriptor, chain in zip(
            image.config.diff_ids, image.manifest.layers, image.chain_ids, strict=True
        )
    )
    layers = layers[: limit or None]
    chain = str(layers[-1].chain_id) if layers else ""
    return Root(key=base_key(chain, str(image.platform)), layers=layers, inherited=len(layers))


def _texts(values: dict[str, str], key: str) -> tuple[str, ...]:
    """A list of texts, which is written as JSON."""
    try:
        found = json.loads(values.pop(key, "") or "[]")
    except ValueError:
        raise InvalidParameter(f"attribute {key!r} of a source is no list of texts") from None
    if not isinstance(found, list):
        raise InvalidParameter(f"attribute {key!r} of a source is no list of texts")
    return tuple(str(one) for one in found)


def _number(values: dict[str, str], key: str) -> int:
    text = values.pop(key, "0")
    if not text.isdecimal():
        raise InvalidParameter(f"attribute {key!r} of a source is no number")
    return int(text)


def _none_left(values: Mapping[str, str]) -> None:
    for key in values:
        raise Unsupported(f"attribute {key!r} of a source is not supported")
