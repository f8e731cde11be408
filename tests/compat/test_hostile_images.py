"""What the daemon keeps of an archive it refuses: nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.archives import SYMLINK, docker_archive, files, member, tar
from tests.compat.conftest import DockerCli, Sampand

LEADS_OUT = tar(member("d", type=SYMLINK, link="../../../../tmp"), member("d/pwned", b"x"))


def kept(sampand: Sampand) -> list[str]:
    """Blobs, ingests and snapshots on the daemon's disk."""
    data = sampand.root / "data"
    found = [*(data / "content").rglob("*"), *(data / "snapshots").glob("*")]
    return sorted(str(path.relative_to(data)) for path in found)


@pytest.mark.parametrize("layer", [LEADS_OUT, files({"../x": b"x"}), files({"a": b"x"})[:700]])
@pytest.mark.parametrize("way", ["load", "import"])
def test_refused_and_nothing_kept(
    docker: DockerCli, sampand: Sampand, tmp_path: Path, layer: bytes, way: str
) -> None:
    if sampand.foreign:
        pytest.skip("looks at the daemon's own disk")
    before = kept(sampand)
    assert before
    images = docker.out("images", "-aq")
    archive = tmp_path / "archive.tar"
    archive.write_bytes(docker_archive(files({"fine": b"1"}), layer) if way == "load" else layer)
    if way == "load":
        result = docker("load", "-i", str(archive), status=1)
    else:
        result = docker("import", str(archive), "bad:1", status=1)
    assert len(result.stderr.strip().splitlines()) == 1
    assert docker.out("images", "-aq") == images
    assert kept(sampand) == before
