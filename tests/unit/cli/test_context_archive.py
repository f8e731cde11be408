"""What ``context import`` takes for a context."""

from __future__ import annotations

import io
import tarfile

import pytest

from sampan.cli.commands.context_archive import _read_tar
from sampan.cli.fault import CliError


def _archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("meta.json")
        entry.size = 3
        archive.addfile(entry, io.BytesIO(b"{} "))
    return buffer.getvalue()


def test_an_end_without_padding_is_borne() -> None:
    """docker's own test data ends with the last file's last byte."""
    assert _read_tar(_archive()[: tarfile.BLOCKSIZE + 3]) == {"meta.json": b"{} "}


@pytest.mark.parametrize("size", [tarfile.BLOCKSIZE + 2, tarfile.BLOCKSIZE])
def test_a_file_cut_off_is_not(size: int) -> None:
    with pytest.raises(CliError, match="cut off"):
        _read_tar(_archive()[:size])


def test_what_is_no_archive() -> None:
    with pytest.raises(CliError, match="invalid tar header"):
        _read_tar(b"root:x:0:0:" * 100)
