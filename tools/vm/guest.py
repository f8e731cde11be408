"""A small virtual machine with cgroup v2 and systemd as PID 1, in which pytest runs.

    python tools/vm/guest.py build CACHE                 # kernel and initramfs (once)
    python tools/vm/guest.py run CACHE [PYTEST-ARG...]   # boot, run pytest inside, report

The guest has this machine's own root file system, shared read-only by virtiofs, below an overlay
of a tmpfs: whatever is installed here is installed there, nothing is copied and nothing written
comes back. What every test reads, our sources and parts of Python, travels in the initramfs: it
is read faster, and nobody changes it meanwhile. Only the kernel is another one, Debian's for
clouds, which is unpacked and not installed. Neither KVM (qemu translates, ``-accel tcg``) nor a
network is needed. What pytest says comes out of the serial console, its JUnit report out of a
virtio port.

Exit status: pytest's; 124 when the guest does not end in time, 125 when it ends without saying.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import hashlib
import io
import os
import re
import selectors
import shlex
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "linux-image-cloud-amd64"
QEMU = "qemu-system-x86_64"
#: Debian 12 has it in qemu-system-common, later ones in a package of its own.
DAEMONS = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
#: Our child ends with us, however we end (setpriv(1)).
WITH_US = ("setpriv", "--pdeathsig", "KILL")
#: virtiofsd has its socket at once, unless something is wrong with it.
SHARE_SECONDS = 30.0
#: What finds the root file system and reports; the rest is loaded when it is asked for.
MODULES = ("virtio_pci", "virtiofs", "virtio_console", "overlay")
#: Of what Python finds beside us; and what of Python's own library no test imports.
_PACKAGES = ("_pytest", "pytest", "pluggy", "iniconfig", "packaging", "pytest_asyncio", "msgspec")
_LEFT_OUT = frozenset(
    ("test", "idlelib", "lib2to3", "ensurepip", "tkinter", "pydoc_data", "distutils", "turtledemo")
) | {"dist-packages", "site-packages", "sampan.egg-info", ".mypy_cache", "data"}
#: Name, mode, contents, and perhaps the time of the last change (else it is tomorrow).
Entry = tuple[str, int, bytes] | tuple[str, int, bytes, int]
RESULT = re.compile(rb"SAMPAN-VM-RESULT (\d+)")
_COMMANDS = "tests/kernel/oci/test_runtime_commands.py"
_DRIVERS = "tests/kernel/network/test_other_drivers.py"
_WORLD = "tests/kernel/engine/test_world.py"
#: The tests of what is different on cgroup v2, under systemd, and on Debian's own kernel; a Python
#: that starts takes half a second here, so of others there are few.
TESTS = (
    "tests/kernel/test_cgroup.py",
    "tests/kernel/test_cgroup_systemd.py",
    "tests/kernel/test_cgroup_v2.py",
    "tests/kernel/oci/test_rootless.py::test_its_life",
    "tests/kernel/oci/test_hooks.py::test_every_hook_in_its_place",
    "tests/kernel/oci/test_runc_details.py::test_exec_where_the_cgroup_is_divided",
    "tests/kernel/oci/test_runc_details.py::test_exec_in_cgroups_below",
    f"{_COMMANDS}::test_update_and_events",
    f"{_COMMANDS}::test_events_end_with_the_container_and_tell_of_oom",
    f"{_COMMANDS}::test_kill_all_without_a_pid_namespace",
    f"{_WORLD}::test_limits_are_in_force",
    f"{_WORLD}::test_out_of_memory_is_told",
    # Kinds of links, file systems and protocols that other kernels may lack.
    f"{_DRIVERS}::test_ipvlan_works_or_says_what_the_kernel_lacks",
    f"{_DRIVERS}::test_a_vlan_of_the_parent_is_made_and_removed",
    "tests/kernel/network/test_sctp_ports.py",
    "tests/kernel/volume/test_local_volumes.py::test_size_is_kept_or_refused",
    "tests/kernel/test_snapshot_size.py",
    "tests/vm/inside",
)
#: The systemd driver on cgroup v1, which no machine of ours has.
HYBRID_TESTS = (
    "tests/kernel/test_cgroup.py",
    "tests/kernel/test_cgroup_systemd.py::test_life_of_a_scope",
)
PYTEST = (
    "--color=no",
    "-q",
    "-p",
    "no:cacheprovider",
    "-p",
    "asyncio",
    "-p",
    "timeout",
)

_INIT = """#!/bin/busybox sh
export PATH=/bin
for name in mkdir mount umount cat insmod cp rm switch_root; do
    busybox ln -s busybox /bin/$name
done
mkdir -p /proc /sys /dev /lower /rw /root
mount -t proc proc /proc
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module; done
mount -t virtiofs -o ro root /lower
mount -t tmpfs -o mode=755 rw /rw
mkdir /rw/upper /rw/work
mount -t overlay -o lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work root /root
# Nothing this machine has enabled, generates or says about being a container itself.
rm -rf /root/.dockerenv /root/etc/systemd/system
mount -t tmpfs -o mode=755 none /root/lib/systemd/system-generators
mkdir -p /root/lib/modules/$(busybox uname -r)
mount --bind /lower$(cat /modules/tree) /root/lib/modules/$(busybox uname -r)
for place in /tmp /var/tmp /var/lib/sampan /var/lib/containers; do
    mkdir -p /root$place
    mount -t tmpfs -o mode=1777 tmp /root$place
done
# Once more where those hide them: the checkout and its Python may be anywhere, below /tmp too.
count=0
for place in $(cat /modules/kept); do
    count=$((count + 1))
    mkdir -p /root$place /rw/upper$count /rw/work$count
    layers=lowerdir=/lower$place,upperdir=/rw/upper$count,workdir=/rw/work$count
    mount -t overlay -o $layers kept /root$place
done
for place in $(cat /files/replaced); do rm -rf /root$place; done
rm /files/replaced
cp -a /files/. /root
mount --move /dev /root/dev
umount /proc
exec switch_root /root /sbin/init
"""

_SERVICE = """[Unit]
Description=sampan tests
DefaultDependencies=no
# However it ends, also when it cannot be started: a guest that waits for nobody is of no use.
SuccessAction=poweroff-force
FailureAction=poweroff-force
Wants=dbus.socket systemd-journald.socket
After=dbus.socket systemd-journald.socket

[Service]
Type=oneshot
Delegate=yes
WorkingDirectory={root}
Environment=HOME=/root LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
Environment=PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 SAMPAN_VM=1
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/sh /etc/sampan-vm-tests
StandardInput=null
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0
"""

_SCRIPT = """stty -F /dev/ttyS0 -onlcr cols 150
ip link set lo up
{command}
status=$?
[ ! -e /tmp/report.xml ] || cat /tmp/report.xml >$(echo /dev/vport*)
echo "SAMPAN-VM-RESULT $status"
"""

#: What takes time to start and a guest that runs tests has no use for.
_MASKED = """dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service ldconfig.service
    modprobe@configfs.service modprobe@drm.service modprobe@efi_pstore.service
    modprobe@fuse.service proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount
    sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount
    systemd-ask-password-console.path systemd-ask-password-wall.path systemd-binfmt.service
    systemd-boot-system-token.service systemd-firstboot.service systemd-hwdb-update.service
    systemd-journal-catalog-update.service systemd-journal-flush.service
    systemd-machine-id-commit.service systemd-modules-load.service systemd-pcrphase.service
    systemd-pcrphase-sysinit.service systemd-pstore.service systemd-random-seed.service
    systemd-remount-fs.service systemd-repart.service systemd-sysctl.service
    systemd-sysusers.service systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup.service
    systemd-udev-trigger.service systemd-udevd.service systemd-update-done.service
    systemd-update-utmp.service cryptsetup.target integritysetup.target
    veritysetup.target"""
_KERNEL_LINE = (
    "console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off audit=0 psi=1 tsc=reliable "
    "systemd.show_status=0 systemd.unit=sampan-tests.service systemd.default_timeout_start_sec=180"
)
_HIERARCHY = {
    "v2": "systemd.unified_cgroup_hierarchy=1",
    "hybrid": "systemd.unified_cgroup_hierarchy=0 SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
}


class Missing(Exception):
    """Something the guest needs is not on this machine and cannot be got; one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """``timeout`` in seconds; ``memory`` as qemu takes it; ``processors``: translating for two
    costs a third more time of a processor, and the tests take turns. ``cgroups`` is "v2" or
    "hybrid"; ``report`` is where the JUnit report goes, None for nowhere."""

    timeout: float = 900.0
    memory: str = "1536M"
    processors: int = 1
    cgroups: str = "v2"
    report: Path | None = None


def main() -> int:
    """Parse the command line and do it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("build", "run"):
        command = commands.add_parser(name)
        command.add_argument("cache", type=Path)
    commands.choices["run"].add_argument("--timeout", type=float, default=Options().timeout)
    commands.choices["run"].add_argument("--memory", default=Options().memory)
    commands.choices["run"].add_argument("--processors", type=int, default=Options().processors)
    commands.choices["run"].add_argument("--cgroups", choices=_HIERARCHY, default="v2")
    commands.choices["run"].add_argument("--report", type=Path)
    arguments, rest = parser.parse_known_args()
    try:
        build(arguments.cache)
        if arguments.command == "build":
            return 0
        options = Options(
            timeout=arguments.timeout,
            memory=arguments.memory,
            processors=arguments.processors,
            cgroups=arguments.cgroups,
            report=arguments.report,
        )
        usual = TESTS if options.cgroups == "v2" else HYBRID_TESTS
        chosen = [word for word in rest if not word.startswith("-")]
        return run(arguments.cache, rest if chosen else (*rest, *usual), options)
    except Missing as error:
        print(error, file=sys.stderr)
        return 125


def build(cache: Path) -> None:
    """Make kernel and initramfs below ``cache``, unless they are there. Raises Missing."""
    if shutil.which(QEMU) is None:
        raise Missing(f"{QEMU} is not installed")
    stamp = hashlib.sha256(Path(__file__).read_bytes() + str(ROOT).encode()).hexdigest()
    with contextlib.suppress(FileNotFoundError):
        if (cache / "stamp").read_text() == stamp:
            return
    cache.mkdir(parents=True, exist_ok=True)
    tree = cache.resolve() / "kernel"
    if not tree.exists():
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            os.rename(_unpack_kernel(Path(scratch)), tree)
    modules = next(tree.glob("lib/modules/*"))
    _run("depmod", "--basedir", tree, modules.name)
    (cache / "initrd").write_bytes(_initramfs(modules))
    (cache / "stamp").write_text(stamp)


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    try:
        result = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=False, cwd=cwd
        )
    except FileNotFoundError:
        raise Missing(f"{command[0]} is not installed") from None
    if result.returncode:
        raise Missing(f"{command[0]}: {result.stderr.strip() or result.stdout.strip()}")
    return result.stdout


def _unpack_kernel(work: Path) -> Path:
    """Debian's cloud kernel, downloaded and unpacked but not installed."""
    try:
        _download_kernel(work)
    except Missing:
        _run("apt-get", "update", "-qq")
        _download_kernel(work)
    target = work / "kernel"
    _run("dpkg-deb", "--extract", next(work.glob("linux-image-*.deb")), target)
    return target


def _download_kernel(work: Path) -> None:
    found = re.search(r"Depends: (linux-image-\S+)", _run("apt-cache", "depends", KERNEL))
    if found is None:
        raise Missing(f"apt knows no {KERNEL}")
    # Not as the user _apt, who may not write here.
    _run("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", found[1], cwd=work)


def _module_files(modules: Path) -> list[Path]:
    """Files of MODULES with what they depend on, dependencies first (modules.dep(5))."""
    depends: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        depends[path] = needed.split()
    names = {Path(path).name.split(".ko")[0].replace("-", "_"): path for path in depends}
    ordered: dict[str, None] = {}
    for name in MODULES:
        if (module := names.get(name)) is not None:  # else it is built in
            ordered.update(dict.fromkeys([*reversed(depends[module]), module]))
    return [modules / path for path in ordered]


def _initramfs(modules: Path) -> bytes:
    """A cpio archive: busybox, the modules, the script above, and files for the guest's /etc."""
    files = _module_files(modules)
    busybox = Path("/bin/busybox")
    if not busybox.exists():
        raise Missing("busybox-static is not installed")
    units = "files/etc/systemd/system"
    folders = ("bin", "modules", "files", "files/etc", "files/var", "files/etc/systemd", units)
    content: list[Entry] = [
        *((name, 0o40755, b"") for name in folders),
        ("bin/busybox", 0o100755, busybox.read_bytes()),
        ("init", 0o100755, _INIT.encode()),
        ("modules/tree", 0o100644, str(modules).encode()),
        ("modules/kept", 0o100644, "\n".join(_kept()).encode()),
        ("modules/order", 0o100644, "\n".join(path.name for path in files).encode()),
        *((f"modules/{path.name}", 0o100644, path.read_bytes()) for path in files),
        ("files/etc/fstab", 0o100644, b""),
        ("files/etc/hostname", 0o100644, b"sampan-vm\n"),
        ("files/etc/machine-id", 0o100444, b"5a3b1c0d5a3b1c0d5a3b1c0d5a3b1c0d\n"),
        # Newer than /usr, so that nothing is brought up to date (systemd-update-done(8)).
        ("files/etc/.updated", 0o100644, b""),
        ("files/var/.updated", 0o100644, b""),
        (f"{units}/sampan-tests.service", 0o100644, _SERVICE.format(root=ROOT).encode()),
        *((f"{units}/{name}", 0o120777, b"/dev/null") for name in _MASKED.split()),
    ]
    return _cpio(content)


def _kept() -> list[str]:
    """Directories the tests run from, none below another: the checkout and Python's prefix."""
    places = {ROOT, Path(sys.prefix).resolve()}
    return sorted(str(place) for place in places if not places.intersection(place.parents))


def _cpio(content: Iterable[Entry]) -> bytes:
    """The "newc" format (initramfs buffer format in the kernel's documentation)."""
    out = io.BytesIO()
    tomorrow = int(time.time()) + 86400
    for inode, (name, mode, data, *when) in enumerate([*content, ("TRAILER!!!", 0, b"")], 1):
        path = name.encode() + b"\0"
        modified = when[0] if when else tomorrow
        fields = (inode, mode, 0, 0, 1, modified, len(data), 0, 0, 0, 0, len(path), 0)
        out.write(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        out.write(b"\0" * (-out.tell() % 4) + data)
        out.write(b"\0" * (-out.tell() % 4))
    return out.getvalue()


def _carried() -> Iterator[Entry]:
    """Entries for what is read most: our files as they are now, parts of Python."""
    for place in (ROOT / "src", ROOT / "tests"):
        # Half of the time of a Python that starts in the guest was for compiling.
        compileall.compile_dir(place, quiet=2)
    library = Path(sysconfig.get_paths()["stdlib"])
    packages = Path(sysconfig.get_paths()["purelib"])
    ours = [ROOT / name for name in ("src", "tests", "bin")]
    parts = [packages / name for name in _PACKAGES if (packages / name).exists()]
    yield "files/replaced", 0o100644, "\n".join(map(str, ours)).encode()
    made: set[Path] = set()
    for top in (*ours, *parts, library):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name not in _LEFT_OUT]
            place = Path(folder)
            for parent in (*reversed(place.parents), place):
                if parent not in made and parent != Path("/"):
                    made.add(parent)
                    yield f"files{parent}", 0o40755, b"", int(parent.stat().st_mtime)
            for name in names:
                yield from _file(place / name)
        if top.is_file():
            yield from _file(top)


def _file(path: Path) -> Iterator[Entry]:
    """The entry of a regular file that is still there."""
    with contextlib.suppress(FileNotFoundError):
        found = path.lstat()
        if stat.S_ISREG(found.st_mode) and path.suffix not in (".a", ".o"):
            yield f"files{path}", found.st_mode, path.read_bytes(), int(found.st_mtime)


def run(cache: Path, arguments: Sequence[str], options: Options) -> int:
    """Boot, let pytest run with ``arguments``, and return its status. Raises Missing."""
    daemon = next((path for path in DAEMONS if os.access(path, os.X_OK)), None)
    if daemon is None:
        raise Missing("virtiofsd is not installed")
    with tempfile.TemporaryDirectory(prefix="sampan-vm-") as scratch:
        work = Path(scratch)
        python = (sys.executable, "-m", "pytest", "--junitxml=/tmp/report.xml")
        script = _SCRIPT.format(command=shlex.join([*python, *PYTEST, *arguments]))
        command = ("files/etc/sampan-vm-tests", 0o100644, script.encode())
        content = [("files", 0o40755, b""), ("files/etc", 0o40755, b""), command, *_carried()]
        # The kernel unpacks archives that follow each other, at multiples of four bytes.
        (work / "initrd").write_bytes((cache / "initrd").read_bytes() + _cpio(content))
        with _share(daemon, work / "root.sock"):
            return _watch(_command(cache, work, options), options.timeout)


@contextlib.contextmanager
def _share(daemon: str, path: Path) -> Iterator[None]:
    """virtiofsd for the root directory of this machine."""
    options = "source=/,sandbox=chroot,cache=always,xattr,log_level=err"
    deadline = time.monotonic() + SHARE_SECONDS
    with subprocess.Popen(
        [*WITH_US, daemon, f"--socket-path={path}", "-o", options, "-f"], stdin=subprocess.DEVNULL
    ) as process:
        try:
            while not path.exists():
                if process.poll() is not None:
                    raise Missing(f"{daemon} ended with status {process.returncode}")
                if time.monotonic() > deadline:
                    raise Missing(f"{daemon} made no socket within {SHARE_SECONDS:.0f} seconds")
                time.sleep(0.01)
            yield
        finally:
            process.kill()


def _command(cache: Path, work: Path, options: Options) -> list[str]:
    report = options.report or work / "report"
    return [
        *(
            *WITH_US,
            QEMU,
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-smp",
            str(options.processors),
            "-m",
            options.memory,
        ),
        *("-object", f"memory-backend-memfd,id=memory,size={options.memory},share=on"),
        *("-numa", "node,memdev=memory", "-display", "none", "-no-reboot", "-nodefaults"),
        *("-nic", "none", "-serial", "stdio"),
        *("-chardev", f"socket,id=root,path={work / 'root.sock'}"),
        *("-device", "vhost-user-fs-pci,queue-size=1024,chardev=root,tag=root"),
        *("-device", "virtio-serial", "-chardev", f"file,id=report,path={report}"),
        *("-device", "virtserialport,chardev=report,name=report"),
        *("-kernel", str(next(cache.glob("kernel/boot/vmlinuz-*")))),
        *("-initrd", str(work / "initrd")),
        *("-append", f"{_KERNEL_LINE} {_HIERARCHY[options.cgroups]}"),
    ]


def _watch(command: list[str], timeout: float) -> int:
    """Pass the console on and pick the result out of it."""
    status = 125
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as guest:
        assert guest.stdout is not None
        try:
            for line in _lines(guest.stdout.fileno(), timeout):
                if line is None:
                    print(f"the guest did not end within {timeout:.0f} seconds", flush=True)
                    return 124
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
                if found := RESULT.search(line):
                    status = int(found[1])
        finally:
            guest.kill()
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
