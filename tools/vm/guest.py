"""A small virtual machine with cgroup v2 and systemd, made of Debian packages, that runs tests.

    python tools/vm/guest.py build CACHE                 # kernel, initramfs, disk (once)
    python tools/vm/guest.py run CACHE [PYTEST-ARG...]   # boot, run pytest inside, report

The machine that builds needs no KVM (qemu translates, ``-accel tcg``) and mounts nothing: the disk
is an ext4 image that mke2fs fills from a directory, the sources travel as a tar on a second disk,
and what pytest says comes out of the serial console. Exit status: pytest's, 124 when the guest
does not end in time, 125 when it ends without saying.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import selectors
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
KERNEL = "linux-image-cloud-amd64"
PACKAGES = (
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-pytest",
    "python3-pytest-timeout",
    "python3-hypothesis",
    "libseccomp2",
    "busybox-static",
    "procps",
    "kmod",
)
#: What the kernel needs to find its disk, and what tests need that nobody loads for us.
MODULES = ("virtio_pci", "virtio_blk", "ext4", "overlay")
DISK_MEGABYTES = 1024
RESULT = re.compile(rb"SAMPAN-VM-RESULT (\d+)")
#: The default tests: what behaves differently on cgroup v2.
TESTS = ("tests/kernel/test_cgroup.py", "tests/kernel/oci")

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in $(/bin/busybox cat /modules/order); do /bin/busybox insmod /modules/$module; done
n=0
while [ ! -b /dev/vda ] && [ $n -lt 100 ]; do /bin/busybox sleep 0.1; n=$((n + 1)); done
/bin/busybox mount -t ext4 /dev/vda /root || exec /bin/busybox sh
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /sbin/init
"""

_SERVICE = """[Unit]
Description=sampan tests
After=basic.target dbus.socket
Wants=dbus.socket

[Service]
Type=oneshot
Delegate=yes
Environment=PYTHONPATH=/srv/src:/srv PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
ExecStart=/usr/local/bin/sampan-vm-tests
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
ExecStopPost=/bin/systemctl poweroff --force --force
"""

_SCRIPT = """#!/bin/sh
stty -F /dev/ttyS0 -onlcr cols 200 2>/dev/null
mkdir -p /srv && tar -xf /dev/vdb -C /srv
cp /srv/bin/sampan-runtime /usr/bin/sampan-runtime
sed -i '1s|.*|#!/usr/bin/python3|' /usr/bin/sampan-runtime
echo "cgroup2 controllers: $(cat /sys/fs/cgroup/cgroup.controllers)"
cd /srv
sh /srv/vm-command
echo "SAMPAN-VM-RESULT $?"
"""

_PYTEST_INI = "[pytest]\naddopts = -ra\ntimeout = 300\nmarkers = slow: slow\n"


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("build", "run"):
        command = commands.add_parser(name)
        command.add_argument("cache", type=Path)
    commands.choices["run"].add_argument("--timeout", type=float, default=900.0)
    commands.choices["run"].add_argument("--memory", default="1536M")
    arguments, rest = parser.parse_known_args()
    cache: Path = arguments.cache
    build(cache)
    if arguments.command == "build":
        return 0
    return run(cache, rest or list(TESTS), arguments.timeout, arguments.memory)


def build(cache: Path) -> None:
    """Make kernel, initramfs and disk below ``cache``, unless they are there already."""
    stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    with contextlib.suppress(FileNotFoundError):
        if (cache / "stamp").read_text() == stamp:
            return
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        work = Path(scratch)
        kernel = _unpack_kernel(work)
        shutil.copy(next(kernel.glob("boot/vmlinuz-*")), cache / "vmlinuz")
        (cache / "initrd").write_bytes(_initramfs(next(kernel.glob("lib/modules/*"))))
        _disk(work, kernel, cache / "disk")
    (cache / "stamp").write_text(stamp)


def _run(*command: str | Path, **more: object) -> str:
    result = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        check=False,
        **more,  # type: ignore[call-overload]
    )
    if result.returncode:
        raise SystemExit(f"{command[0]}: {result.stderr.strip() or result.stdout.strip()}")
    return str(result.stdout)


def _unpack_kernel(work: Path) -> Path:
    """Debian's cloud kernel, downloaded and unpacked but not installed."""
    depends = _run("apt-cache", "depends", KERNEL)
    found = re.search(r"Depends: (linux-image-\S+)", depends)
    if found is None:
        raise SystemExit(f"apt knows no {KERNEL}: run apt-get update")
    _run("apt-get", "download", found[1], cwd=work)
    target = work / "kernel"
    _run("dpkg-deb", "--extract", next(work.glob("linux-image-*.deb")), target)
    return target


def _module_files(modules: Path) -> list[Path]:
    """Files of MODULES with what they depend on, dependencies first (modules.dep(5))."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    ordered: list[Path] = []

    def add(name: str) -> None:
        path = files.get(name)
        if path is None or path in ordered:
            return  # built in
        for word in _run("modinfo", "-F", "depends", path).strip().split(","):
            if word:
                add(word.replace("-", "_"))
        for word in _run("modinfo", "-F", "softdep", path).split():
            if word != "pre:":
                add(word.replace("-", "_"))
        ordered.append(path)

    for name in ("crc32c_generic", *MODULES):
        add(name)
    return ordered


def _initramfs(modules: Path) -> bytes:
    """A cpio archive with busybox, the modules and the script above."""
    files = _module_files(modules)
    content: list[tuple[str, int, bytes]] = [
        ("bin", 0o40755, b""),
        ("modules", 0o40755, b""),
        ("dev", 0o40755, b""),
        ("bin/busybox", 0o100755, Path("/bin/busybox").read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("modules/order", 0o100644, "\n".join(path.name for path in files).encode()),
        *((f"modules/{path.name}", 0o100644, path.read_bytes()) for path in files),
    ]
    out = io.BytesIO()
    for inode, (name, mode, data) in enumerate([*content, ("TRAILER!!!", 0, b"")], 1):
        _cpio_entry(out, inode, name, mode, data)
    return out.getvalue()


def _cpio_entry(out: io.BytesIO, inode: int, name: str, mode: int, data: bytes) -> None:
    """One entry in the "newc" format (initramfs buffer format in the kernel's documentation)."""
    path = name.encode() + b"\0"
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
    out.write(b"\0" * (-out.tell() % 4) + data)
    out.write(b"\0" * (-out.tell() % 4))


def _disk(work: Path, kernel: Path, target: Path) -> None:
    """The guest's root file system as an ext4 image."""
    root = work / "root"
    _run(
        *("mmdebstrap", "--variant=minbase", "--quiet", f"--include={','.join(PACKAGES)}"),
        *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/man/*"),
        *(SUITE, root),
    )
    shutil.copytree(kernel / "lib/modules", root / "lib/modules", dirs_exist_ok=True)
    release = next((kernel / "lib/modules").iterdir()).name
    _run("depmod", "--basedir", root, release)
    (root / "etc/fstab").write_text("")
    (root / "etc/hostname").write_text("sampan-vm\n")
    (root / "etc/systemd/system/sampan-tests.service").write_text(_SERVICE)
    script = root / "usr/local/bin/sampan-vm-tests"
    script.write_text(_SCRIPT)
    script.chmod(0o755)
    _run("mke2fs", "-q", "-t", "ext4", "-d", root, target, f"{DISK_MEGABYTES}M")


def _sources(arguments: list[str]) -> bytes:
    """The tar on the second disk: our sources, tests, the specifications, the command."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name in ("src/sampan", "tests", "bin", "tools"):
            archive.add(ROOT / name, name, filter=_without_caches)
        pytest = ("python3", "-m", "pytest", "-c", "vm.ini", "--color=no")
        command = shlex.join([*pytest, "-p", "no:cacheprovider"])
        for name, text in (
            ("vm-command", f"{command} {shlex.join(arguments)}\n"),
            ("vm.ini", _PYTEST_INI),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    # A disk has whole sectors.
    return out.getvalue() + b"\0" * (-len(out.getvalue()) % 4096)


def _without_caches(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if "__pycache__" in entry.name else entry


def run(cache: Path, arguments: list[str], timeout: float, memory: str) -> int:
    """Boot, let pytest run with ``arguments``, and return its status."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = Path(scratch, "sources")
        sources.write_bytes(_sources(arguments))
        command = [
            *("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"),
            *("-m", memory, "-nographic", "-no-reboot", "-nic", "none", "-nodefaults"),
            *("-serial", "stdio", "-kernel", str(cache / "vmlinuz")),
            *("-initrd", str(cache / "initrd")),
            *("-drive", f"file={cache / 'disk'},if=virtio,format=raw,snapshot=on"),
            *("-drive", f"file={sources},if=virtio,format=raw,readonly=on"),
            "-append",
            "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=0 psi=1 "
            "systemd.unified_cgroup_hierarchy=1 systemd.unit=sampan-tests.service",
        ]
        return _watch(command, timeout)


def _watch(command: list[str], timeout: float) -> int:
    """Pass the console on and pick the result out of it."""
    status = 125
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as guest:
        assert guest.stdout is not None
        for line in _lines(guest.stdout.fileno(), timeout):
            if line is None:
                guest.kill()
                print(f"the guest did not end within {timeout:.0f} seconds", flush=True)
                return 124
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            if found := RESULT.search(line):
                status = int(found[1])
    return status


def _lines(fd: int, timeout: float) -> Iterator[bytes | None]:
    """Lines as they come; None when time is up."""
    deadline = time.monotonic() + timeout
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(fd, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                yield None
                return
            data = os.read(fd, 65536)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                yield line.replace(b"\r", b"") + b"\n"
    if pending:
        yield pending + b"\n"


if __name__ == "__main__":
    sys.exit(main())
