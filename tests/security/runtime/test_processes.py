"""What a hostile container finds of the runtime's own processes: binary, memory, descriptors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.engine.capabilities import ALL
from sampan.model.mount import Mount
from sampan.runtime.client import Launcher
from sampan.runtime.requests import CreateRequest
from tests.engines import network_namespace
from tests.security.runtime.conftest import (
    GUARDED,
    PYTHON,
    Lab,
    both,
    engine_config,
    python,
    run,
    start,
)
from tests.security.runtime.mutants import SOURCE, Cut, copy_code, mutant

# Started as `#!/proc/self/exe`, so by the binary that started it. It keeps a descriptor of that,
# becomes another program, so that nobody runs it any more, and overwrites it when told to.
THIEF = """#!/proc/self/exe -IS
import os
fd = os.open("/proc/self/exe", os.O_PATH)
os.set_inheritable(fd, True)
wait = "until test -e /go; do sleep 0.02; done"
os.execv("/bin/sh", ["sh", "-c", f"{wait}; echo pwned > /proc/self/fd/{fd}; echo > /done"])
"""


def overwrite_interpreter(lab: Lab, guard: str, directory: Path, how: str) -> bool:
    """CVE-2019-5736. The interpreter is a copy, whatever happens to it."""
    interpreter = directory / "python"
    shutil.copy2(PYTHON, interpreter)
    cut = Cut("runtime/oci_cli.py", "if name in _SEALED:", "if False:")
    runtime = lab.runtime
    runtime.program = mutant(
        lab.directory, *(() if guard == GUARDED else (cut,)), interpreter=str(interpreter)
    )
    thief = lab.root / "thief"
    thief.write_text(THIEF)
    thief.chmod(0o755)
    if how == "run":
        start(runtime, engine_config(runtime, "/thief"))
    else:
        container_id = start(runtime, engine_config(runtime, "sleep", "1000"))
        words = [runtime.program, "--root", runtime.root, "exec", "--detach", container_id]
        null = subprocess.DEVNULL
        subprocess.run([*words, "/thief"], stdin=null, stdout=null, stderr=null, check=True)
    (lab.root / "go").touch()
    until = subprocess.run(
        ["timeout", "30", "sh", "-c", f"until test -e {lab.root}/done; do sleep 0.02; done"],
        check=False,
    )
    assert until.returncode == 0, "the attack did not come to its end"
    return not interpreter.read_bytes().startswith(b"\x7fELF")


@both
@pytest.mark.parametrize("how", ["run", "exec"])
def test_cve_2019_5736(lab: Lab, guard: str, how: str, tmp_path: Path) -> None:
    """The host's binary is overwritten through /proc/self/exe."""
    assert overwrite_interpreter(lab, guard, tmp_path, how) is (guard != GUARDED)


LOOK_UP = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sampan.layer.copy import archive_get, archive_put
from sampan.runtime import identity
root = os.open(sys.argv[2], os.O_RDONLY)
if sys.argv[3] == "guarded":
    list(archive_get(root, "/etc/passwd")[1])
    with open(sys.argv[4], "rb") as stream:
        archive_put(root, "/etc", stream)
    passwd = identity.read_database(root, "etc/passwd")
    group = identity.read_database(root, "etc/group")
    identity.resolve("root:root", ("root",), passwd, group)
else:  # what docker-tar did: look up owners once the root was the container's
    import pwd
    os.chroot(sys.argv[2])
    try:
        pwd.getpwnam("root-of-the-container")
    except KeyError:
        pass
print(open("/proc/self/maps").read())
"""


@both
def test_cve_2019_14271(lab: Lab, guard: str, tmp_path: Path) -> None:
    """A look-up of names in the container's root loads its libraries into the engine.

    The planted library is a harmless one under the name that nsswitch.conf makes glibc load.
    """
    library = next(Path("/").glob("lib/*-linux-gnu*/libz.so.1"), None)
    if library is None:
        pytest.skip("needs a shared library to plant")
    root = lab.root
    (root / "etc/nsswitch.conf").write_text("passwd: evil\ngroup: evil\n")
    (root / "etc/group").write_text("root:x:0:\n")
    for directory in ("lib", str(library.parent).lstrip("/")):
        (root / directory).mkdir(parents=True, exist_ok=True)
        shutil.copy(library.resolve(), root / directory / "libnss_evil.so.2")
        libc = library.parent / "libc.so.6"  # what the planted one needs
        shutil.copy(libc.resolve(), root / directory / "libc.so.6")
    # So that it can be seen afterwards what is loaded.
    subprocess.run(["mount", "--bind", "/proc", root / "proc"], check=True)
    archive = tmp_path / "x.tar"
    subprocess.run(["tar", "-cf", archive, "-C", tmp_path, "--files-from=/dev/null"], check=True)
    try:
        result = subprocess.run(
            [sys.executable, "-c", LOOK_UP, str(SOURCE.parent), str(root), guard, str(archive)],
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        subprocess.run(["umount", root / "proc"], check=True)
    assert "libc.so" in result.stdout, result.stderr
    assert ("libnss_evil" in result.stdout) is (guard != GUARDED)


FIND_MEMORY = """
import os
for name in os.listdir("/proc"):
    if name.isdigit() and int(name) not in (1, os.getpid()):
        for file in ("mem", "environ", "exe"):
            try:
                with open(f"/proc/{name}/{file}", "rb"):
                    print("opened", file)
            except OSError as error:
                print(error)
"""


@both
def test_init_cannot_be_traced(lab: Lab, guard: str) -> None:
    """A neighbour in the same user and pid namespaces opens the memory of init before its execve.

    CVE-2016-9962, and what comes after it: with it go the descriptors and the code of the runtime.
    Without the guard init is as dumpable as on a machine with fs.suid_dumpable=1.
    """
    runtime = lab(guard, DUMPABLE)
    attacker = engine_config(runtime, "sleep", "1000")
    attacker["linux"].pop("seccomp")
    attacker["process"]["capabilities"] = {
        name: list(ALL) for name in ("bounding", "effective", "permitted")
    }
    rows = [{"containerID": 0, "hostID": 200000, "size": 1000}]
    attacker["linux"].update(uidMappings=rows, gidMappings=rows)
    attacker["linux"]["namespaces"].append({"type": "user"})
    attacker["linux"].pop("sysctl")
    for name in ("usr", "lib", "lib64"):
        (lab.root / name).mkdir(exist_ok=True)
    first = start(runtime, attacker)
    pid = runtime.pid(first)

    victim = engine_config(runtime, "sleep", "1000")
    victim["linux"].pop("sysctl")
    for entry in victim["linux"]["namespaces"]:
        if entry["type"] == "pid":
            entry["path"] = f"/proc/{pid}/ns/pid"
    victim["linux"]["namespaces"].append({"type": "user", "path": f"/proc/{pid}/ns/user"})
    runtime.write(victim)
    runtime.ids.append("victim")
    made = runtime.create("victim")
    assert made.returncode == 0, made.stdout
    found = runtime.ok("exec", first, *python(FIND_MEMORY)).splitlines()
    assert found
    assert ("opened mem" in found) is (guard != GUARDED), found


# Looks at every process but PID 1 and its own, until it is told to stop. What was got of one that
# had become its program meanwhile does not count.
TRACE = """
import ctypes, os
ptrace = ctypes.CDLL(None).ptrace

def name(pid):
    with open(f"/proc/{pid}/comm") as file:
        return file.read().strip()

def openable(pid, file):
    os.close(os.open(f"/proc/{pid}/{file}", os.O_RDONLY))

def attempts(pid):
    for file in ("mem", "environ", "maps"):
        yield file, lambda: openable(pid, file)
    for link in ("exe", "cwd", "root"):
        yield link, lambda: os.readlink(f"/proc/{pid}/{link}")
    yield "fd", lambda: os.listdir(f"/proc/{pid}/fd")
    def attach():  # PTRACE_SEIZE, by a process whose end lets go again
        tracer = os.fork()
        if tracer == 0:
            os._exit(1 if ptrace(0x4206, pid, None, None) else 0)
        if os.waitpid(tracer, 0)[1]:
            raise OSError
    yield "ptrace", attach

def look(pid):
    before = name(pid)
    if before == "true":
        return
    for what, attempt in attempts(pid):
        try:
            attempt()
            result = "got"
        except OSError:
            result = "refused"
        if name(pid) == before:
            print(result, what, file=log, flush=True)

with open("/found", "a") as log:
    print("looking", file=log, flush=True)
    while not os.path.exists("/stop"):
        for entry in os.listdir("/proc"):
            if entry.isdigit() and int(entry) not in (1, os.getpid()):
                try:
                    look(int(entry))
                except OSError:
                    pass
"""
HOLD = Cut(
    "runtime/program_operations.py",
    "    # From here on the end of the channel means",
    "    channel.select.poll().poll(1500)\n    # From here on the end of the channel means",
)
DUMPABLE = Cut("kernel/prctl.py", "prctl(PR_SET_DUMPABLE, int(dumpable))", "prctl(4, 1)")


@both
@pytest.mark.parametrize("rights", ["same user", "user namespace"])
def test_exec_cannot_be_traced(lab: Lab, guard: str, rights: str) -> None:
    """A process of the container goes for one that joins it, before that executes its program.

    What joins has the runtime's memory and binary. It is held where it is most like the attacker:
    same user, same capabilities; or same user namespace, in which the attacker has all of them.
    """
    runtime = lab.runtime
    runtime.program = mutant(lab.directory, HOLD, *(() if guard == GUARDED else (DUMPABLE,)))
    config = engine_config(runtime, *python(TRACE))
    without = config["linux"]
    without.pop("seccomp")
    config["process"]["capabilities"] = {}
    if rights == "same user":
        config["process"]["user"] = {"uid": 1000, "gid": 1000}
    else:
        config["process"]["capabilities"] = {
            name: list(ALL) for name in ("bounding", "effective", "permitted")
        }
        rows = [{"containerID": 0, "hostID": 200000, "size": 1000}]
        without.update(uidMappings=rows, gidMappings=rows)
        without["namespaces"].append({"type": "user"})
        without.pop("sysctl")
        for name in ("usr", "lib", "lib64"):
            (lab.root / name).mkdir(exist_ok=True)
    found = lab.root / "found"
    found.touch()
    found.chmod(0o666)
    container_id = start(runtime, config)
    words = ["timeout", "30", "sh", "-c", f"until grep -q looking {found}; do sleep 0.05; done"]
    subprocess.run(words, check=True)
    runtime.ok("exec", container_id, "true")
    (lab.root / "stop").touch()
    runtime.wait(container_id)
    lines = set(found.read_text().splitlines())
    seen = {"mem", "environ", "maps", "exe", "cwd", "root", "fd", "ptrace"}
    assert {f"{'refused' if guard == GUARDED else 'got'} {what}" for what in seen} <= lines, lines
    assert guard != GUARDED or not [line for line in lines if line.startswith("got")], lines


COUNT = """
import os
found = []
for number in range(3, 1024):
    try:
        os.fstat(number)
    except OSError:
        continue
    found.append(number)
print(found)
"""
CLOSE = Cut(
    "kernel/process.py",
    "    for fd in sorted(keep):\n        if fd >= first:",
    "    return\n    for fd in sorted(keep):\n        if fd >= first:",
)
OUTSIDE = Cut("runtime/process_operations.py", "    if not inside:\n", "    if False:\n")


@both
@pytest.mark.parametrize("how", ["run", "exec"])
def test_no_descriptor_leaks(lab: Lab, guard: str, how: str, outside: Path) -> None:
    """The program has 0, 1 and 2, whatever its caller and the runtime have open."""
    runtime = lab(guard, CLOSE)
    with open(outside / "secret") as leak:
        words: list[str | Path] = [runtime.program, "--root", runtime.root]
        if how == "run":
            runtime.write(engine_config(runtime, *python(COUNT)))
            words += ["run", "--bundle", runtime.bundle, "c"]
            runtime.ids.append("c")
        else:
            words += ["exec", start(runtime, engine_config(runtime, "sleep", "1000"))]
            words += python(COUNT)
        result = subprocess.run(
            words, capture_output=True, text=True, pass_fds=[leak.fileno()], check=True
        )
    assert (result.stdout != "[]\n") is (guard != GUARDED), result.stdout


@pytest.mark.parametrize(
    ("cuts", "succeeds"),
    [((), False), ((CLOSE,), False), ((OUTSIDE,), False), ((CLOSE, OUTSIDE), True)],
)
def test_cve_2024_21626(lab: Lab, outside: Path, cuts: tuple[Cut, ...], succeeds: bool) -> None:
    """A working directory of /proc/self/fd/N is where a leaked descriptor leads: to the host.

    Two guards, each enough: nothing is open, and the directory must have a name inside the root.
    """
    runtime = lab("mutant", *cuts) if cuts else lab(GUARDED)
    container_id = start(runtime, engine_config(runtime, "sleep", "1000"))
    fd = os.open(outside, os.O_RDONLY)
    try:
        found = ""
        for number in {fd, *range(3, 12)}:
            result = subprocess.run(
                [
                    *(runtime.program, "--root", runtime.root, "exec"),
                    *("--cwd", f"/proc/self/fd/{number}", container_id, "/bin/cat", "secret"),
                ],
                capture_output=True,
                text=True,
                pass_fds=[fd],
                check=False,
            )
            found += result.stdout
    finally:
        os.close(fd)
    assert ("secret" in found) is succeeds


def test_cve_2024_21626_at_creation(lab: Lab) -> None:
    """process.cwd of an image cannot be such a path at all."""
    for number in range(3, 12):
        config = engine_config(lab.runtime, "/bin/cat", "etc/hostname")
        config["process"]["cwd"] = f"/proc/self/fd/{number}"
        assert run(lab.runtime, config).returncode == 1


@both
def test_cve_2020_15257(
    lab: Lab, guard: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container on the host's network reaches what listens on an abstract socket.

    sampan's processes listen on files that only their owner may open; the mutant's monitor
    listens on an abstract name as well.
    """
    if guard != GUARDED:
        cut = Cut(
            "runtime/connection.py",
            "        os.chmod(address, 0o600)\n",
            "        os.chmod(address, 0o600)\n"
            "        if '_shim' not in globals():\n"
            "            globals()['_shim'] = socket.socket(socket.AF_UNIX)\n"
            "            _shim.bind('\\0sampan-shim')\n            _shim.listen()\n",
        )
        tree = copy_code(tmp_path / "mutant", cut)
        monkeypatch.setattr("sampan.runtime.version.source_root", lambda: str(tree))
    config = engine_config(lab.runtime, "/bin/cat", "/proc/net/unix")
    config["linux"]["namespaces"] = [
        entry for entry in config["linux"]["namespaces"] if entry["type"] != "network"
    ]
    config["linux"].pop("sysctl")
    config["linux"].pop("seccomp")
    with network_namespace():
        launcher = Launcher.spawn(tmp_path / "exec")
        try:
            request = CreateRequest(
                container_id="c",
                spec=config,  # type: ignore[arg-type]
                rootfs=(Mount(type="bind", source=str(lab.root), options=("rbind",)),),
                directory=tmp_path / "exec" / "c",
            )
            monitor = launcher.create(request)
            text = ""
            with monitor.attach(stdin=False, stdout=True, stderr=True) as stream:
                monitor.start()
                while data := stream.recv(65536):
                    text += data.decode(errors="replace")
            monitor.close()
        finally:
            launcher.close(stop=True)
    assert "Path" in text
    assert ("@" in text) is (guard != GUARDED), text
