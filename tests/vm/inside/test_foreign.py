"""Programs of another platform in a build: RUN through a handler of binfmt_misc.

binfmt_misc is the whole machine's, so this is for the virtual machine of tools/vm. The handler is
static busybox, which runs the applet it is given the path of: what matters is that the kernel
finds it, opened when it was registered (flag F), from inside a root that has no such file. Where
/usr/local/lib/sampan-test-foreign has qemu-aarch64-static and an arm64 busybox, they are used.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    "SAMPAN_VM" not in os.environ, reason="registers a handler: for make test-vm alone"
)
SAMPAN = Path(sys.executable).parent / "sampan"
REGISTER = Path("/proc/sys/fs/binfmt_misc/register")
TOOLS = Path("/usr/local/lib/sampan-test-foreign")
#: Linux's Documentation/admin-guide/binfmt-misc.rst: the first 20 bytes of an ELF file for arm64.
_MAGIC = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\xb7\x00"
_MASK = b"\xff" * 7 + b"\x00" + b"\xff" * 8 + b"\xfe\xff\xff\xff"


def _hexadecimal(data: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in data)


@pytest.fixture(scope="module")
def handler() -> Iterator[tuple[bytes, str]]:
    """A program for arm64, and what ``uname -m`` says to it."""
    real = TOOLS / "qemu-aarch64-static"
    interpreter = real if real.exists() else Path("/bin/busybox")
    subprocess.run(["modprobe", "binfmt_misc"], check=True)
    if not REGISTER.exists():
        subprocess.run(["mount", "-t", "binfmt_misc", "none", REGISTER.parent], check=True)
    line = f":foreign:M::{_hexadecimal(_MAGIC)}:{_hexadecimal(_MASK)}:{interpreter}:FC"
    REGISTER.write_text(line)
    yield (
        ((TOOLS / "busybox").read_bytes(), "aarch64")
        if real.exists()
        else (_MAGIC + struct.pack("<IQQQIHHHHHH", 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0), "x86_64")
    )
    (REGISTER.parent / "foreign").write_text("-1")


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A daemon's address."""
    where = f"unix://{tmp_path}/d.sock"
    (tmp_path / "daemon.json").write_text("{}")
    words = [f"--host={where}", "--bridge=none", f"--config-file={tmp_path}/daemon.json"]
    words += [f"--data-root={tmp_path}/data", f"--exec-root={tmp_path}/exec"]
    command = [sys.executable, "-m", "sampan.api.sampand", *words, f"--pidfile={tmp_path}/pid"]
    with open(tmp_path / "log", "wb") as log, subprocess.Popen(command, stderr=log) as daemon:
        for _ in range(600):
            if (tmp_path / "d.sock").exists():
                break
            assert daemon.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield where
        daemon.terminate()


def test_steps_of_another_platform_run(
    handler: tuple[bytes, str], host: str, tmp_path: Path
) -> None:
    program, machine = handler
    context = tmp_path / "context"
    context.mkdir()
    (context / "sh").write_bytes(program)
    (context / "sh").chmod(0o755)
    shutil.copy("/bin/busybox", context / "own")
    (context / "Dockerfile").write_text(
        "FROM scratch AS far\n"
        "COPY sh /bin/sh\n"
        "RUN --network=none echo $(uname -m) $0 >/machine\n"
        "FROM --platform=$BUILDPLATFORM scratch AS near\n"
        "COPY own /bin/sh\n"
        "RUN --network=none echo $(uname -m) >/machine\n"
        "FROM scratch\n"
        "COPY --from=far /machine /far\n"
        "COPY --from=near /machine /near\n"
    )
    build = [SAMPAN, "-H", host, "build", "--progress=plain"]
    out = tmp_path / "out"
    done = subprocess.run(
        [*build, "--platform=linux/arm64", "-o", f"type=local,dest={out}", context],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + (tmp_path / "log").read_text()
    assert (out / "far").read_text().split() == [machine, "/bin/sh"]
    assert (out / "near").read_text() == "x86_64\n"
    (REGISTER.parent / "foreign").write_text("0")
    failed = subprocess.run(
        [*build, "--no-cache", "--platform=linux/arm64", context],
        capture_output=True,
        text=True,
        check=False,
    )
    (REGISTER.parent / "foreign").write_text("1")
    assert failed.returncode != 0
    assert "programs of linux/arm64 takes a handler of this machine's binfmt_misc" in failed.stderr
