"""runc's command line, command by command, as engines use it."""

from __future__ import annotations

import array
import fcntl
import json
import os
import re
import shlex
import socket
import struct
import subprocess
import termios
from pathlib import Path

import pytest

from sampan.kernel import cgroup
from tests.kernel.oci.conftest import PROGRAM, Runtime


def left_behind(runtime: Runtime) -> list[str]:
    """Cgroups and state directories of the runtime under test."""
    parents = cgroup.probe().directories(runtime.parent)
    found = [
        os.path.join(parent, name)
        for parent in parents
        if os.path.isdir(parent)
        for name in os.listdir(parent)
        if os.path.isdir(os.path.join(parent, name))
    ]
    return found + (os.listdir(runtime.root) if runtime.root.exists() else [])


def test_life_of_a_container(runtime: Runtime, tmp_path: Path) -> None:
    runtime.config("c", "sh", "-c", "echo started; sleep 100", annotations={"a": "b"})
    assert runtime.create("c", "--pid-file", tmp_path / "pid").returncode == 0
    state = json.loads(runtime.ok("state", "c"))
    assert state["status"] == "created"
    assert state["pid"] == int((tmp_path / "pid").read_text())
    assert state["bundle"] == str(runtime.bundle)
    assert state["rootfs"] == str(runtime.bundle / "rootfs")
    assert state["annotations"] == {"a": "b"}
    assert runtime.output("c") == "", "the program must wait for start"

    runtime.ok("start", "c")
    again = runtime("start", "c")
    assert "cannot start an already running container" in again.stderr
    assert runtime.status("c") == "running"
    assert json.loads(runtime.ok("list", "--format", "json"))[0]["id"] == "c"
    assert runtime.ok("list", "-q") == "c\n"
    assert runtime.ok("list").splitlines()[1].split()[:3] == ["c", str(state["pid"]), "running"]
    taken = runtime("create", "--bundle", runtime.bundle, "c")
    assert "container with given ID already exists" in taken.stderr

    assert json.loads(runtime.ok("ps", "-f", "json", "c"))[0] == state["pid"]
    assert "sleep 100" in runtime.ok("ps", "c")
    busy = runtime("delete", "c")
    assert "cannot delete container c that is not stopped: running" in busy.stderr

    runtime.ok("pause", "c")
    assert runtime.status("c") == "paused"
    assert "cannot exec in a paused container" in runtime("exec", "c", "true").stderr
    runtime.ok("resume", "c")
    assert "container not paused" in runtime("resume", "c").stderr

    runtime.ok("kill", "c", "KILL")
    runtime.wait("c")
    assert runtime.status("c") == "stopped"
    assert json.loads(runtime.ok("state", "c"))["pid"] == 0
    assert "container not running" in runtime("kill", "c", "9").stderr
    assert "cannot start a container that has stopped" in runtime("start", "c").stderr
    runtime.ok("delete", "c")
    assert "container does not exist" in runtime("state", "c").stderr
    assert "container does not exist" in runtime("delete", "c").stderr
    runtime.ok("delete", "--force", "c")
    assert left_behind(runtime) == []


def test_created_container_can_be_deleted_and_killed(runtime: Runtime) -> None:
    runtime.config("c", "true")
    assert runtime.create("c").returncode == 0
    runtime.ok("delete", "c")
    assert runtime.create("c").returncode == 0
    runtime.ok("kill", "c", "SIGKILL")
    runtime.wait("c")
    assert runtime.status("c") == "stopped"
    runtime.ok("delete", "c")
    assert left_behind(runtime) == []


def test_run_returns_what_the_program_does(runtime: Runtime) -> None:
    result = runtime.run("sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.stdout, result.stderr, result.returncode) == ("out\n", "err\n", 7)
    # PID 1 of a pid namespace cannot kill itself; its child can.
    assert runtime.run("sh", "-c", "sh -c 'kill -9 $$'; exit $?").returncode == 137
    assert left_behind(runtime) == []


def test_run_keep_and_detach(runtime: Runtime) -> None:
    runtime.config("c", "true")
    runtime.ok("run", "--keep", "--bundle", runtime.bundle, "c")
    assert runtime.status("c") == "stopped"
    runtime.ok("delete", "c")
    runtime.config("c", "sleep", "100")
    with open(os.devnull, "r+") as null:
        command = [PROGRAM, "--root", runtime.root, "run", "-d", "-b", runtime.bundle, "c"]
        subprocess.run(command, stdin=null, stdout=null, stderr=null, check=True)
    assert runtime.status("c") == "running"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["nope"], 'exec: "nope": executable file not found in $PATH'),
        (["/nope"], 'exec: "/nope": stat /nope: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 'exec: "/etc": is a directory'),
    ],
)
def test_create_finds_out_that_the_program_cannot_run(
    runtime: Runtime, args: list[str], message: str
) -> None:
    runtime.config("c", *args)
    result = runtime.create("c")
    assert result.returncode == 1
    assert f"create failed: unable to start container process: {message}" in (
        result.stdout.replace('\\"', '"')
    )
    assert left_behind(runtime) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hostname": 5}, "config.json: hostname: is not of type string"),
        ({"namespaces": [{"type": "pid"}]}, "hostname: no UTS namespace"),
        ({"mounts": [{"destination": "/x", "type": "nosuchfs"}]}, "mounting nosuchfs|/x"),
        ({"resources": {"pids": {"limit": 5}, "cpu": {"cpus": "4000"}}}, "cpuset.cpus"),
        ({"resources": {"unified": {"a.b": "c"}}}, "linux.resources.unified|a.b"),
        ({"cgroupsPath": "/../x"}, "cgroupsPath"),
        ({"terminal": True}, "without setting console socket"),
        ({"seccomp": {"defaultAction": "SCMP_ACT_X"}}, "linux.seccomp.defaultAction"),
        ({"intelRdt": {"closID": "x"}}, "linux.intelRdt"),
        ({"resources": {"memory": {"limit": 1}}}, "linux.resources.memory"),
        ({"oomScoreAdj": 1001}, "process.oomScoreAdj: 1001"),
        ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]}, "RLIMIT_NOFILE"),
    ],
)
def test_refused_by_name_and_nothing_left(
    runtime: Runtime, changes: dict[str, object], message: str
) -> None:
    runtime.config("c", "true")
    config = json.loads((runtime.bundle / "config.json").read_text())
    for name, value in changes.items():
        section = (
            config["process"]
            if name in ("terminal", "oomScoreAdj", "rlimits")
            else config
            if name in ("hostname", "mounts")
            else config["linux"]
        )
        section[name] = value
    runtime.write(config)
    result = runtime("create", "--bundle", runtime.bundle, "c")
    assert result.returncode == 1
    assert re.search(message, result.stderr), result.stderr
    if "config.json:" not in result.stderr and "terminal" not in changes:
        assert "sampan-runtime create failed: unable to start" in result.stderr
    assert left_behind(runtime) == []


def test_errors_of_the_command_line(runtime: Runtime) -> None:
    for words, message in (
        (["create"], '"create" requires exactly 1 argument(s)'),
        (["kill", "a", "b", "c"], '"kill" requires a maximum of 2 argument(s)'),
        (["create", "--nope", "x"], "flag provided but not defined: -nope"),
        (["exec", "x", "--"], "container does not exist"),
        (["fly"], "No help topic for 'fly'"),
        (["checkpoint", "x"], "checkpoints are not supported"),
        (["state", "../x"], "invalid container id format"),
        (["create", "x y"], "invalid container id format"),
        (["create", "--bundle", "/nonexistent", "x"], "/nonexistent/config.json not found"),
    ):
        result = runtime(*words)
        assert result.returncode in (1, 255)
        assert message in result.stderr, (words, result.stderr)
    assert "Usage: sampan-runtime" in runtime.ok("--help")
    assert "--preserve-fds" in runtime.ok("create", "--help")
    assert runtime.ok("--version").startswith("sampan-runtime version ")


def test_log_file_in_json(runtime: Runtime, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    result = runtime("--log", log, "--log-format", "json", "state", "nope")
    entry = json.loads(log.read_text().splitlines()[-1])
    assert (entry["level"], entry["msg"]) == ("error", "container does not exist")
    assert result.stderr == "container does not exist\n"


def running(runtime: Runtime, **changes: object) -> None:
    runtime.config("c", "sleep", "1000", **changes)
    assert runtime.create("c").returncode == 0
    runtime.ok("start", "c")


def test_exec(runtime: Runtime, tmp_path: Path) -> None:
    running(runtime)
    result = runtime("exec", "c", "sh", "-c", "echo hi; exit 4")
    assert (result.stdout, result.returncode) == ("hi\n", 4)
    assert runtime("exec", "c", "sh", "-c", "kill -9 $$").returncode == 137
    missing = runtime("exec", "c", "nope")
    assert missing.returncode == 255
    assert "exec failed: unable to start container process: exec: " in missing.stderr
    out = runtime.ok(
        *("exec", "--cwd", "/tmp", "-e", "A=1", "-e", "B=2", "-u", "5:6", "-g", "7"),
        *("--cap", "CAP_NET_RAW", "c", "sh", "-c"),
        "pwd; echo $A$B; id -u; id -g; id -G; grep CapBnd /proc/self/status",
    ).splitlines()
    assert out[:4] == ["/tmp", "12", "5", "6"]
    assert "7" in out[4].split()
    assert int(out[5].split()[1], 16) >> 13 & 1, "CAP_NET_RAW was added"
    assert runtime.ok("exec", "c", "cat", "/proc/self/cgroup") == runtime.ok(
        "exec", "c", "cat", "/proc/1/cgroup"
    )

    document = {"args": ["/bin/sh", "-c", "pwd; exit 3"], "cwd": "/root"}
    path = tmp_path / "process.json"
    path.write_text(json.dumps(document))
    result = runtime("exec", "--process", path, "c")
    assert (result.stdout, result.returncode) == ("/root\n", 3)
    document["cwd"] = 1  # type: ignore[assignment]
    path.write_text(json.dumps(document))
    assert "process.json: process.cwd: is not" in runtime("exec", "-p", path, "c").stderr

    pid_file = tmp_path / "pid"
    with open(os.devnull, "r+") as null:
        command = [PROGRAM, "--root", runtime.root, "exec", "-d", "--pid-file", pid_file]
        subprocess.run(
            [*command, "c", "sleep", "99"], stdin=null, stdout=null, stderr=null, check=True
        )
    assert int(pid_file.read_text()) in json.loads(runtime.ok("ps", "-f", "json", "c"))


def test_only_standard_streams_reach_programs(runtime: Runtime) -> None:
    """A program that lists its descriptors sees 0, 1, 2 and what it lists them through."""
    listing = "ls /proc/self/fd"
    assert runtime.run("sh", "-c", listing).stdout.split() == ["0", "1", "2", "3"]
    running(runtime)
    assert runtime.ok("exec", "c", "ls", "/proc/self/fd").split() == ["0", "1", "2", "3"]
    own = os.listdir(f"/proc/{runtime.pid('c')}/fd")
    assert sorted(own) == ["0", "1", "2"]


def test_preserved_descriptors(runtime: Runtime, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("passed on\n")
    runtime.config("c", "sh", "-c", "cat <&3; ls /proc/self/fd")
    command = [PROGRAM, "--root", runtime.root, "run", "--preserve-fds", "1", "-b", runtime.bundle]
    shell = ["sh", "-c", 'exec 3< "$0"; exec "$@"', tmp_path / "secret", *command, "c"]
    out = subprocess.run(shell, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["passed", "on", "0", "1", "2", "3", "4"]
    runtime.config("d", "true")
    missing = runtime("create", "--preserve-fds", "40", "-b", runtime.bundle, "d")
    assert "preserved-fd" in missing.stderr


def receive_terminal(listener: socket.socket) -> int:
    connection, _ = listener.accept()
    with connection:
        _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    fds = array.array("i")
    fds.frombytes(ancillary[0][2])
    return fds[0]


def read_all(master: int) -> str:
    data = b""
    while True:
        try:
            chunk = os.read(master, 4096)
        except OSError:
            return data.decode()
        if not chunk:
            return data.decode()
        data += chunk


def test_console_socket(runtime: Runtime, tmp_path: Path) -> None:
    config = runtime.config("c", "sh", "-c", "tty; test -c /dev/console && echo console; sleep 100")
    config["process"].update(terminal=True, consoleSize={"height": 33, "width": 44})
    runtime.write(config)
    path = tmp_path / "console.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(2)
        # No file of ours is held by init although it waits: containerd reads until the end.
        runtime.ok("create", "--console-socket", path, "-b", runtime.bundle, "c")
        master = receive_terminal(listener)
        size = struct.unpack("HHHH", fcntl.ioctl(master, termios.TIOCGWINSZ, bytes(8)))
        assert size[:2] == (33, 44)
        runtime.ok("start", "c")
        assert os.read(master, 4096).startswith(b"/dev/pts/0")
        runtime.ok("exec", "-d", "-t", "--console-socket", path, "c", "tty")
        second = receive_terminal(listener)
        assert read_all(second) == "/dev/pts/1\r\n"
        os.close(second)
        os.close(master)


def test_update_and_events(runtime: Runtime) -> None:
    running(runtime)
    runtime.ok("update", "--memory", "64m", "--pids-limit", "9", "--cpu-quota", "50000", "c")
    reading = json.loads(runtime.ok("events", "--stats", "c"))
    assert (reading["type"], reading["id"]) == ("stats", "c")
    assert reading["data"]["memory"]["usage"]["limit"] == 64 << 20
    assert reading["data"]["pids"] == {"current": 1, "limit": 9}
    document = json.dumps({"memory": {"limit": 32 << 20}, "cpu": {"shares": 77}})
    runtime.ok("update", "-r", "-", "c", input=document)
    limits = cgroup.stats(cgroup.probe(), f"{runtime.parent}/c")
    assert limits.memory.limit == 32 << 20
    for bad in ('{"memory": {"limit": "x"}}', '{"memry": {}}', "nonsense"):
        result = runtime("update", "-r", "-", "c", input=bad)
        assert result.returncode == 1
        assert "resources: " in result.stderr
    assert "duration interval" in runtime("events", "--interval", "0s", "c").stderr


def test_events_end_with_the_container_and_tell_of_oom(runtime: Runtime) -> None:
    eat = "x=aaaaaaaa; while true; do x=$x$x; done"
    limit = {"memory": {"limit": 16 << 20, "swap": 16 << 20}}
    runtime.config("c", "sh", "-c", eat, resources=limit)
    assert runtime.create("c").returncode == 0
    with subprocess.Popen(
        [PROGRAM, "--root", runtime.root, "events", "--interval", "50ms", "c"],
        stdout=subprocess.PIPE,
        text=True,
    ) as events:
        assert events.stdout is not None
        assert json.loads(events.stdout.readline())["type"] == "stats"
        runtime.ok("start", "c")
        kinds = {json.loads(line)["type"] for line in events.stdout}
        assert events.wait(10) == 0
    assert "oom" in kinds


def test_kill_all_without_a_pid_namespace(runtime: Runtime) -> None:
    config = runtime.config("c", "sh", "-c", "sleep 1000 & sleep 1000 & wait")
    namespaces = config["linux"]["namespaces"]
    config["linux"]["namespaces"] = [entry for entry in namespaces if entry["type"] != "pid"]
    runtime.write(config)
    assert runtime.create("c").returncode == 0
    runtime.ok("start", "c")

    def members() -> list[int]:
        return json.loads(runtime.ok("ps", "-f", "json", "c")) or []

    while len(members()) < 3:  # it makes them meanwhile
        assert runtime.status("c") == "running"
    found = members()
    runtime.ok("kill", "--all", "c", "KILL")
    for _ in range(100):  # they die of it, at a time of their own
        if not members():
            break
    assert members() == []
    assert not any(os.path.exists(f"/proc/{pid}/exe") for pid in found[1:])
    runtime.ok("delete", "c")
    assert left_behind(runtime) == []


def test_spec_runs_as_it_is(runtime: Runtime, tmp_path: Path) -> None:
    runtime.ok("spec", "--bundle", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "File config.json exists" in runtime("spec", "-b", tmp_path).stderr
    config["process"].update(terminal=False, args=["sh", "-c", "touch /x || echo read-only"])
    config["linux"]["cgroupsPath"] = f"{runtime.parent}/spec"
    runtime.write(config)
    result = runtime("run", "-b", runtime.bundle, "spec")
    assert result.stdout == "read-only\n"


def test_rootless_spec_has_one_mapped_user(runtime: Runtime, tmp_path: Path) -> None:
    runtime.ok("spec", "--rootless", "-b", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    script = "cat /proc/self/uid_map; id -u"
    config["process"].update(terminal=False, args=["sh", "-c", script])
    config["linux"]["cgroupsPath"] = f"{runtime.parent}/rl"
    runtime.write(config)
    runtime.ids.append("rl")
    assert runtime.ok("run", "-b", runtime.bundle, "rl").split() == ["0", "0", "1", "0"]


def test_mounts_of_a_user_namespace_do_not_reach_the_host(runtime: Runtime, tmp_path: Path) -> None:
    """Where "/" is shared, as systemd makes it, a bind mount is no way out for mounts on it."""
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    config = runtime.config("m", "mount")
    config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        config["linux"][key] = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config["mounts"] += [
        {"destination": "/mnt", "source": str(source), "options": ["rbind"]},
        {"destination": "/mnt/below", "type": "tmpfs", "source": "tmpfs"},
    ]
    runtime.write(config)
    words = (PROGRAM, "--root", runtime.root, "run", "--bundle", runtime.bundle, "m")
    script = f"mount --bind {source} {source}; {shlex.join(map(str, words))}; echo; mount"
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "shared", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    inside, outside = done.stdout.split("\n\n")
    assert "/mnt/below" in inside, done
    assert f"{source}/below" not in outside


def check_features(document: object) -> None:
    """By the specification's own schema."""
    validators, referencing = map(pytest.importorskip, ("jsonschema.validators", "referencing"))
    from tests.spec import SPEC

    folder = SPEC / "oci-runtime" / "schema"
    draft = referencing.jsonschema.DRAFT4
    resources = [
        (path.name, draft.create_resource(json.loads(path.read_text())))
        for path in folder.glob("*.json")
    ]
    registry = referencing.Registry().with_resources(resources)
    schema = json.loads((folder / "features-schema.json").read_text())
    schema.pop("id", None)
    kind = validators.validator_for(schema)
    found = [error.message for error in kind(schema, registry=registry).iter_errors(document)]
    assert found == []


def test_features_is_what_the_schema_says(runtime: Runtime) -> None:
    document = json.loads(runtime.ok("features"))
    check_features(document)
    assert set(document["linux"]["namespaces"]) >= {"mount", "pid", "user", "cgroup"}
    assert document["hooks"] == [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ]
    # features.md: what the runtime can, "irrelevant to the actual availability" on this host.
    cgroups = document["linux"]["cgroup"]
    assert cgroups["v1"]
    assert cgroups["v2"]
    missing = document["annotations"]["org.sampan.runtime.missing"].split(", ")
    assert ("cgroup v2" in missing) is (cgroup.probe().mode != "v2")
    assert "SECCOMP_FILTER_FLAG_LOG" in document["linux"]["seccomp"]["supportedFlags"]
    assert {"rro", "idmap", "bind", "rshared", "tmpcopyup"} <= set(document["mountOptions"])
