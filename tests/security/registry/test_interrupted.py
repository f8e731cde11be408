"""A pull killed at any of its writes: nothing half is taken for whole, and the next one ends."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from sampan.content.store import FileStore
from sampan.image import Unpacker, open_image
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Registry
from sampan.snapshot.overlay import OverlaySnapshotter
from tests.crash.test_images import check, killed_at
from tests.unit.registry import samples

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="snapshots need root")


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A registry in a process of its own, so that forks of this one have none of its threads."""
    command = [sys.executable, "-m", "sampan.registry.server", "--workers", "1"]
    command += ["--listen", "127.0.0.1:0", "--root", str(tmp_path / "registry")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            line = process.stdout.readline()
            found = re.search(r"127\.0\.0\.1:\d+", line)
            assert found, line
            yield found[0]
        finally:
            process.terminate()


async def push(name: Reference, content: FileStore, root: Digest) -> None:
    async with Registry() as registry:
        await registry.push(name, root, content=content)


def pull(name: Reference, root: Path) -> None:
    """Pull and unpack, as the engine does with an image that is small."""
    content = FileStore(root / "content")

    async def fetch() -> None:
        async with Registry() as registry:
            pulled = await registry.pull(name, content=content)
        image = open_image(content, pulled.manifest.descriptor)
        await asyncio.to_thread(
            Unpacker(content, OverlaySnapshotter(root / "snapshots")).unpack, image
        )

    asyncio.run(fetch())


def test_killed_anywhere(address: str, tmp_path: Path) -> None:
    name = Reference.parse(f"{address}/a:x")
    source = FileStore(tmp_path / "source")
    image = samples.image(2, 2_500_000)  # of several writes each
    image.store(source)
    asyncio.run(push(name, source, image.digest))
    point = 0
    while killed_at(point, partial(pull, name, root := tmp_path / str(point))):
        for blob in FileStore(root / "content").walk():
            FileStore(root / "content").read(blob.digest)
        assert not killed_at(1 << 30, partial(pull, name, root))  # goes on with what is there
        check(root)
        assert {blob.digest for blob in FileStore(root / "content").walk()} == {
            image.digest,
            *map(Digest.of, image.blobs),
        }
        shutil.rmtree(root)
        point += 1
    assert point > 30
