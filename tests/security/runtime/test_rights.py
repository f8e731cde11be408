"""What a container's root may not do to the host: rights, devices, keys, terminals, processes."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.engine.capabilities import ALL
from sampan.kernel import cgroup
from tests.kernel.oci.conftest import Config
from tests.security.runtime.conftest import (
    GUARDED,
    Lab,
    both,
    engine_config,
    python,
    run,
    start,
)
from tests.security.runtime.mutants import Cut

NET_RAW = 13


def without_filter(config: Config) -> None:
    """The kernel's own defence alone."""
    del config["linux"]["seccomp"]


#: vfs_cap_data revision 2 (capabilities(7)): inheritable NET_RAW, nothing permitted.
INHERITS = struct.pack("<IIIII", 0x02000000, 0, 1 << NET_RAW, 0, 0)


def capable_program(lab: Lab) -> None:
    """/caps/grep: gives its user what of the file's inheritable set is in the process's."""
    program = lab.root / "caps" / "grep"
    program.parent.mkdir()
    program.write_bytes((lab.root / "bin" / "busybox").read_bytes())
    program.chmod(0o755)
    os.setxattr(program, "security.capability", INHERITS)


def gained(output: str) -> bool:
    return int(output.split()[1], 16) >> NET_RAW & 1 == 1


@both
def test_cve_2022_24769(lab: Lab, guard: str) -> None:
    """An inheritable set that is not empty gives capabilities to users by way of files."""
    capable_program(lab)
    config = engine_config(lab.runtime, "/caps/grep", "CapPrm", "/proc/self/status")
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    if guard != GUARDED:
        held = config["process"]["capabilities"]
        held["inheritable"] = held["bounding"]
    result = run(lab.runtime, config)
    assert gained(result.stdout) is (guard != GUARDED)


@both
def test_cve_2022_29162(lab: Lab, guard: str) -> None:
    """``exec --cap`` puts the capability into the inheritable set as well."""
    cut = Cut(
        "runtime/oci_exec.py",
        'for key in ("bounding", "effective", "permitted"):',
        'for key in ("bounding", "effective", "permitted", "inheritable"):',
    )
    capable_program(lab)
    runtime = lab(guard, cut)
    container_id = start(runtime, engine_config(runtime, "sleep", "1000"))
    output = runtime.ok(
        *("exec", "--user", "1000", "--cap", "CAP_NET_RAW", container_id),
        *("/caps/grep", "CapPrm", "/proc/self/status"),
    )
    assert gained(output) is (guard != GUARDED)


@both
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_hooks_of_the_image_have_no_rights(lab: Lab, guard: str, no_new_privileges: bool) -> None:
    """A startContainer hook is a program of the image: it may what the container's program may.

    Without the guard it runs as the host's root, with all capabilities and without a filter.
    """
    early = 'steps += [\n        operation("bounding"'
    cut = Cut("runtime/process_plan.py", early, f"steps += options.prelude\n    {early}")
    runtime = lab(guard, cut)
    config = engine_config(runtime, "cat", "/tmp/status")
    config["process"].update(
        user={"uid": 1000, "gid": 1000}, noNewPrivileges=no_new_privileges, capabilities={}
    )
    script = "grep -e CapEff -e Uid -e Seccomp: /proc/self/status >> /tmp/status"
    config["hooks"] = {"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]}
    (lab.root / "tmp").chmod(0o777)
    (lab.root / "tmp/status").touch()
    (lab.root / "tmp/status").chmod(0o666)
    result = run(runtime, config)
    assert result.returncode == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    rightless = [["Uid:", *["1000"] * 4], ["CapEff:", "0" * 16], ["Seccomp:", "2"]]
    assert lines[-3:] == rightless
    assert (lines[:3] != rightless) is (guard != GUARDED), result.stdout


# Opens release_agent for writing, and never writes: the host's own is at stake.
RELEASE_AGENT = """
import ctypes, os
libc = ctypes.CDLL(None)
def attempt():
    for controller in ("pids", "devices", "freezer", "memory", "rdma"):
        where = f"/tmp/{controller}"
        os.makedirs(where, exist_ok=True)
        libc.mount(b"cgroup", where.encode(), b"cgroup", 0, controller.encode())
    roots = [f"/tmp/{name}" for name in os.listdir("/tmp")]
    roots += [f"/sys/fs/cgroup/{name}" for name in os.listdir("/sys/fs/cgroup")]
    for root in roots:
        try:
            os.close(os.open(f"{root}/release_agent", os.O_WRONLY))
            print("opened", root)
        except OSError:
            pass
attempt()
if libc.unshare(0x10000000 | 0x00020000 | 0x02000000) == 0:  # user, mount, cgroup namespaces
    attempt()
print("end")
"""


def release_agent(lab: Lab, *, rights: bool, cgroups: bool) -> bool:
    config = engine_config(lab.runtime, *python(RELEASE_AGENT))
    if rights:
        for name in ("bounding", "effective", "permitted"):
            config["process"]["capabilities"][name] = list(ALL)
        config["linux"].pop("seccomp")
    if cgroups:
        config["linux"]["namespaces"].append({"type": "cgroup"})
    output = run(lab.runtime, config).stdout
    assert output.endswith("end\n")
    return "opened" in output


def test_cve_2022_0492(lab: Lab) -> None:
    """release_agent of a version 1 hierarchy: a program that the host runs as root.

    Without rights no hierarchy can be mounted, nor a user namespace be made to get them. Were they
    there, a cgroup namespace would still show no root of a hierarchy, where that file is; and this
    kernel wants CAP_SYS_ADMIN of the host's user namespace of whoever writes it.
    """
    if cgroup.probe().mode == "v2":
        pytest.skip("cgroup v2 has no release_agent")
    assert not release_agent(lab, rights=False, cgroups=False)
    assert not release_agent(lab, rights=True, cgroups=True)
    assert release_agent(lab, rights=True, cgroups=False)


@both
def test_release_agent_below_a_cgroup_namespace(lab: Lab, guard: str) -> None:
    """With all rights, what keeps the file away is that no root of a hierarchy is to be seen."""
    if cgroup.probe().mode == "v2":
        pytest.skip("cgroup v2 has no release_agent")
    cut = Cut(
        "runtime/process_operations.py",
        "    if context.new & namespaces.CLONE_NEWCGROUP:",
        "    if False:",
    )
    lab(guard, cut)
    assert release_agent(lab, rights=True, cgroups=True) is (guard != GUARDED)


DISK = """
import os, sys
os.mknod("/disk", int(sys.argv[1]), int(sys.argv[2]))
try:
    os.close(os.open("/disk", os.O_RDONLY))
    print("opened")
except OSError as error:
    print(error)
"""


def openable_device() -> os.stat_result:
    """A disk of the host, or what else its root may open and no container."""
    names = [line.split()[3] for line in Path("/proc/partitions").read_text().splitlines()[2:]]
    for name in (*names, "fuse", "net/tun", "kmsg"):
        try:
            fd = os.open(Path("/dev", name), os.O_RDONLY)
        except OSError:
            continue
        status = os.fstat(fd)
        os.close(fd)
        return status
    pytest.skip("this machine has no device that root may open")


@both
def test_hosts_disks(lab: Lab, guard: str) -> None:
    """A node of the host's disk can be made (CAP_MKNOD), but not be opened: the device cgroup."""
    device = openable_device()
    config = engine_config(lab.runtime, *python(DISK), str(device.st_mode), str(device.st_rdev))
    if guard != GUARDED:
        config["linux"]["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    result = run(lab.runtime, config)
    assert result.returncode == 0, result.stderr
    assert (result.stdout == "opened\n") is (guard != GUARDED)


WITH_KEY = """
import ctypes, os, sys
call = ctypes.CDLL(None).syscall
add_key, keyctl = {"x86_64": (248, 250), "aarch64": (217, 219)}[os.uname().machine]
assert call(keyctl, 1, None) >= 0  # a session keyring of our own, not the machine's
assert call(add_key, b"user", b"sampan-secret", b"x", 1, -3) >= 0
os.execv(sys.argv[1], sys.argv[1:])
"""
READ_KEY = """
import ctypes, os
keyctl = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
call = ctypes.CDLL(None).syscall
key = call(keyctl, 10, -3, b"user", b"sampan-secret", 0)  # search the session keyring
data = ctypes.create_string_buffer(16)
print(data.value if key > 0 and call(keyctl, 11, key, data, 16) > 0 else "nothing")
"""


@both
def test_keys_of_the_caller(lab: Lab, guard: str) -> None:
    """Whoever shares the session keyring can read its keys; containers get one of their own."""
    runtime = lab(guard, Cut("runtime/process_plan.py", "if options.keyring:", "if False:"))
    config = engine_config(runtime, *python(READ_KEY))
    without_filter(config)  # which allows no keyctl(2) either
    runtime.write(config)
    runtime.ids.append("c")
    words = [runtime.program, "--root", runtime.root, "run", "--bundle", runtime.bundle, "c"]
    result = subprocess.run(
        [sys.executable, "-c", WITH_KEY, *map(str, words)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == ("nothing\n" if guard == GUARDED else "b'x'\n")


ON_TERMINAL = """
import fcntl, os, pty, sys, termios
pid, manager = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
try:
    while os.read(manager, 4096):
        pass
except OSError:
    pass
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
TYPE = """
import fcntl, sys, termios
try:
    for byte in b"id":
        fcntl.ioctl(0, termios.TIOCSTI, bytes([byte]))
except OSError as error:
    sys.exit(7)
"""


@both
@pytest.mark.parametrize("how", ["run", "exec"])
def test_typing_into_the_callers_terminal(lab: Lab, guard: str, how: str) -> None:
    """TIOCSTI: a container without a terminal of its own types into that of its caller.

    It has another session, so the terminal it was handed is not its controlling one.
    """
    legacy = Path("/proc/sys/dev/tty/legacy_tiocsti")
    if guard != GUARDED and legacy.exists() and legacy.read_text().strip() == "0":
        pytest.skip("this kernel closes TIOCSTI by itself (dev.tty.legacy_tiocsti=0)")
    runtime = lab(
        guard, Cut("runtime/process_operations.py", "        os.setsid()", "        pass")
    )
    words = [str(runtime.program), "--root", str(runtime.root)]
    if how == "run":
        runtime.write(engine_config(runtime, *python(TYPE)))
        runtime.ids.append("c")
        words += ["run", "--bundle", str(runtime.bundle), "c"]
    else:
        words += ["exec", start(runtime, engine_config(runtime, "sleep", "1000")), *python(TYPE)]
    result = subprocess.run(
        [sys.executable, "-c", ON_TERMINAL, *words], capture_output=True, text=True, check=False
    )
    assert result.returncode == (7 if guard == GUARDED else 0), result


BOMB = """
import os
made = 0
try:
    for _ in range(200):
        if os.fork() == 0:
            os.read(os.pipe()[0], 1)
        made += 1
except OSError as error:
    pass
print(made, flush=True)
os._exit(0)
"""


@both
def test_fork_bomb(lab: Lab, guard: str) -> None:
    """pids.limit bounds what a container starts; all of it ends with the container."""
    config = engine_config(lab.runtime, *python(BOMB))
    if guard == GUARDED:
        config["linux"]["resources"]["pids"] = {"limit": 20}
    result = run(lab.runtime, config)
    assert (int(result.stdout) == 200) is (guard != GUARDED)
    path = f"{lab.runtime.parent}/c0"
    assert not [d for d in cgroup.probe().directories(path) if os.path.exists(d)]


NAMESPACE = "import ctypes; print(ctypes.CDLL(None).unshare(0x10000000))"


@both
def test_no_user_namespace_inside(lab: Lab, guard: str) -> None:
    """The filter keeps unshare(CLONE_NEWUSER), where kernel holes start, from ordinary rights."""
    config = engine_config(lab.runtime, *python(NAMESPACE))
    if guard != GUARDED:
        without_filter(config)
    assert (run(lab.runtime, config).stdout == "0\n") is (guard != GUARDED)
