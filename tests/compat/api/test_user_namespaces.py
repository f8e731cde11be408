"""User namespaces through the engine: ``--userns-remap``, podman's modes, idmapped mounts.

The daemon has an /etc of its own, in which it makes the user ``dockremap``.
"""

from __future__ import annotations

import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.conftest import BUSYBOX, CLI, DockerCli, Sampand, _clean_up, busybox_archive

SAMPAN = Path(sys.executable).parent / "sampan"
pytestmark = [
    pytest.mark.skipif(not shutil.which("useradd"), reason="needs useradd"),
    pytest.mark.skipif(not SAMPAN.exists(), reason="needs sampan installed"),
]
_OWN_ETC = (
    'mount -t overlay etc -o "lowerdir=/etc,upperdir=$0/up,workdir=$0/work" /etc && exec "$@"'
)
#: cap_net_raw+ep as on disk (linux/capability.h, VFS_CAP_REVISION_2)
_NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000").decode()


@pytest.fixture(scope="module")
def sampand(namespace: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sampand]:
    """A daemon with ``--userns-remap=default`` and an image with privileged programs."""
    root = tmp_path_factory.mktemp("remapped")
    for name in ("cli", "etc/up", "etc/work"):
        (root / name).mkdir(parents=True)
    (root / "daemon.json").write_text('{"userns-remap": "default"}')
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OWN_ETC]
    daemon = Sampand(root, namespace, prefix=[*prefix, str(root / "etc")])
    try:
        daemon.start()
        archive = root / "busybox.tar"
        archive.write_bytes(busybox_archive())
        cli = DockerCli(CLI, daemon.host, root / "cli")
        cli("load", "-i", str(archive))
        archive.write_bytes(privileged_programs())
        cli("import", str(archive), "programs")
        yield daemon
    finally:
        _clean_up(daemon)


def privileged_programs() -> bytes:
    """A root file system with a set-user-id su, a cat with a file capability, and no password."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, mode, headers in (
            ("bin/sh", 0o755, {}),
            ("bin/su", 0o4755, {}),
            ("bin/id", 0o755, {}),
            ("bin/cat", 0o755, {"SCHILY.xattr.security.capability": _NET_RAW}),
        ):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size, entry.pax_headers = mode, BUSYBOX.stat().st_size, headers
            with open(BUSYBOX, "rb") as file:
                tar.addfile(entry, file)
        passwd = b"root::0:0:root:/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return out.getvalue()


@pytest.fixture
def sampan(sampand: Sampand) -> DockerCli:
    """Our command line, which knows podman's words."""
    return DockerCli(str(SAMPAN), sampand.host, sampand.root / "cli")


def uid_map(text: str) -> list[tuple[int, int, int]]:
    rows = [tuple(map(int, line.split())) for line in text.splitlines()]
    return [(row[0], row[1], row[2]) for row in rows]


def test_the_default_user_is_made_and_shown(sampand: Sampand, docker: DockerCli) -> None:
    line = (sampand.root / "etc/up/subuid").read_text().splitlines()[-1]
    name, first, count = line.split(":")
    assert (name, count) == ("dockremap", "65536")
    assert "dockremap:" in (sampand.root / "etc/up/passwd").read_text()
    assert "dockremap" not in Path("/etc/passwd").read_text()
    assert '"name=userns"' in docker.out("info", "--format", "{{json .SecurityOptions}}")
    ids = docker.out("run", "--rm", "busybox", "cat", "/proc/self/uid_map")
    assert uid_map(ids) == [(0, int(first), 65536)]
    whole = docker.out("run", "--rm", "--userns=host", "busybox", "cat", "/proc/self/uid_map")
    assert uid_map(whole) == [(0, 0, (1 << 32) - 1)]


def test_what_a_container_finds(docker: DockerCli) -> None:
    script = """
        stat -c '%n %u:%g' / /bin/sh /etc/hosts /etc/resolv.conf /dev /dev/null /dev/pts /dev/shm \
            /t /v /sys/fs/cgroup
        echo x > /dev/null; echo y > /dev/stdout; echo '127.9.9.9 nine' >> /etc/hosts
        touch /v/a /t/a /tmp/a; mknod /tmp/null c 1 3; mknod /tmp/sda b 8 0; cat /host/secret
        echo over > /host/secret; dd if=/dev/vda of=/dev/null count=1
        echo 1 > /proc/sys/vm/swappiness; cat /proc/1/environ > /dev/null; hostname other
    """
    host = subprocess.run(["mktemp", "-d"], capture_output=True, text=True, check=True)
    directory = Path(host.stdout.strip())
    (directory / "secret").write_text("host's\n")
    (directory / "secret").chmod(0o600)
    try:
        found = docker(
            *("run", "--rm", "-v", f"{directory}:/host", "-v", "/v", "--tmpfs", "/t"),
            *("busybox", "sh", "-c", script),
            status=None,
        )
        assert (directory / "secret").read_text() == "host's\n"
    finally:
        shutil.rmtree(directory)
    paths = "/ /bin/sh /etc/hosts /etc/resolv.conf /dev /dev/null /dev/pts /dev/shm /t /v"
    assert found.stdout.splitlines() == [
        *(f"{path} 0:0" for path in [*paths.split(), "/sys/fs/cgroup"]),
        "y",
    ]
    refusals = [line.rpartition(": ")[2] for line in found.stderr.splitlines()]
    assert refusals == [
        *("Operation not permitted", "Operation not permitted", "Permission denied"),
        *("Permission denied", "No such file or directory", "Read-only file system"),
        "Operation not permitted",
    ], found.stderr


def test_privileged_programs_work_inside(docker: DockerCli) -> None:
    user = ["run", "--rm", "-u", "1000", "programs"]
    assert docker.out(*user, "/bin/su", "root", "-c", "/bin/id -u") == "0"
    status = docker.out(*user, "/bin/cat", "/proc/self/status")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff"))
    assert int(effective.split()[1], 16) == 1 << 13
    network = "cd /proc/sys/net/ipv4 && cat ip_unprivileged_port_start ping_group_range"
    found = docker.out("run", "--rm", "busybox", "sh", "-c", f"{network}; ping -c 1 127.0.0.1")
    assert found.split()[:3] == ["0", "0", "65535"]
    assert "1 packets received" in found
    served = "httpd -p 127.0.0.1:80 -h /etc && wget -q -O- http://127.0.0.1/passwd | head -1"
    assert docker.out("run", "--rm", "-u", "1000", "busybox", "sh", "-c", served).startswith("root")


def test_file_systems_can_be_mounted_inside(docker: DockerCli) -> None:
    script = """
        mount -t tmpfs none /mnt && mount -t proc none /mnt && ls /mnt/self/status \
            && mount -t sysfs none /mnt -o ro && ls -d /mnt/class && readlink /proc/self/ns/user
    """
    found = docker.out(
        *("run", "--rm", "--cap-add", "SYS_ADMIN", "--security-opt", "systempaths=unconfined"),
        *("--cgroupns", "private", "busybox", "sh", "-c", f"mkdir /mnt; {script}"),
    ).splitlines()
    assert found[:2] == ["/mnt/self/status", "/mnt/class"]
    assert found[2] != os.readlink("/proc/self/ns/user")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces.  You must run"),
        (["--network=host"], "cannot share the host's network namespace when user namespaces are"),
        (["--pid=host"], "cannot share the host PID namespace when user namespaces are enabled"),
    ],
)
def test_refused_as_dockerd_does(docker: DockerCli, words: list[str], message: str) -> None:
    refused = docker("run", "--rm", *words, "busybox", "true", status=125)
    assert message in refused.stderr
    docker("run", "--rm", "--userns=host", *words, "busybox", "true")


def test_files_keep_their_ids_everywhere(
    sampand: Sampand, docker: DockerCli, name: str, tmp_path: Path
) -> None:
    """cp, diff, commit, export, volumes and a daemon that is killed: all speak of inner ids."""
    docker("run", "-d", "--name", name, "-v", f"{name}:/v", "busybox", "sleep", "1000")
    script = "mkdir /d; echo a > /d/a; chown 5:6 /d/a; cp /d/a /v/a; chown 7:8 /v/a; rm /etc/group"
    docker("exec", name, "sh", "-c", script)
    assert docker.out("exec", "-u", "1000", name, "id", "-u") == "1000"
    volume = Path(docker.out("volume", "inspect", "--format", "{{.Mountpoint}}", name))
    assert owner(volume / "a") == (7, 8)
    (tmp_path / "file").write_text("from outside\n")
    for target in ("/d/b", "/v/b"):
        docker("cp", "-a", str(tmp_path / "file"), f"{name}:{target}")
    assert docker.out("exec", name, "stat", "-c", "%u:%g", "/d/b", "/v/b") == "0:0\n0:0"
    assert owner(volume / "b") == (0, 0)
    assert copied(docker, f"{name}:/d/a") == copied(docker, f"{name}:/d/a") == (5, 6)

    sampand.restart(signal.SIGKILL)
    assert docker.out("exec", name, "sh", "-c", "touch /d/c; stat -c '%u:%g' /d/c") == "0:0"
    assert copied(docker, f"{name}:/d/a") == (5, 6)
    assert "C /etc\nD /etc/group" in docker.out("diff", name)
    docker("commit", name, f"{name}:new")
    try:
        seen = docker.out(
            *("run", "--rm", "--userns=host", "-v", f"{name}:/v", f"{name}:new"),
            *("stat", "-c", "%n %u:%g", "/d", "/d/a", "/d/c", "/v/a"),
        )
        assert seen == "/d 0:0\n/d/a 5:6\n/d/c 0:0\n/v/a 7:8"
    finally:
        docker("rmi", f"{name}:new")
    docker("stop", "-t", "0", name)
    assert copied(docker, f"{name}:/d/a") == (5, 6)
    docker("cp", str(tmp_path / "file"), f"{name}:/d/stopped")
    docker("start", name)
    assert docker.out("exec", name, "stat", "-c", "%u:%g", "/d/stopped") == "0:0"
    docker("rm", "-f", name)
    docker("volume", "rm", name)


def test_nobody_else_reaches_what_containers_leave(sampand: Sampand, docker: DockerCli) -> None:
    """A set-user-id program in a volume has an unshifted owner: the host's root."""
    script = "cp /bin/busybox /v/su && chmod 4755 /v/su"
    docker("run", "--rm", "-v", "left:/v", "busybox", "sh", "-c", script)
    path = Path(docker.out("volume", "inspect", "--format", "{{.Mountpoint}}", "left")) / "su"
    assert (path.stat().st_uid, path.stat().st_mode & 0o7777) == (0, 0o4755)
    for directory in (sampand.root / "data", sampand.root / "data/volumes"):
        assert directory.stat().st_mode & 0o007 == 0
    command = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "sh", "-c", str(path)]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Permission denied" in refused.stderr
    docker("volume", "rm", "left")


def owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_uid, status.st_gid


def copied(docker: DockerCli, source: str) -> tuple[int, int]:
    """Owner of a file as ``docker cp`` tells it."""
    made = subprocess.run(
        [docker.program, "cp", source, "-"], env=docker.environment, capture_output=True, check=True
    )
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as tar:
        entry = tar.getmembers()[0]
        return entry.uid, entry.gid


def test_ranges_are_nobody_elses(sampand: Sampand, sampan: DockerCli, name: str) -> None:
    names = [f"{name}-{number}" for number in range(3)]
    run = ["run", "-d", "--userns=auto:size=5000"]
    try:
        for each in names[:2]:
            sampan(*run, "--name", each, "busybox", "sleep", "1000")
        sampand.restart(signal.SIGKILL)
        sampan(*run, "--name", names[2], "busybox", "sleep", "1000")
        rows = [uid_map(sampan.out("exec", each, "cat", "/proc/self/uid_map"))[0] for each in names]
        spans = sorted((first, first + count) for _, first, count in rows)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        assert {count for _, _, count in rows} == {5000}
        sampan("rm", "-f", names[0])
        again = sampan.out("run", "--rm", run[2], "busybox", "cat", "/proc/self/uid_map")
        assert uid_map(again)[0] == rows[0]
        shared = [
            "run",
            "--rm",
            f"--userns=container:{names[1]}",
            f"--network=container:{names[1]}",
        ]
        joined = sampan.out(
            *shared,
            f"--pid=container:{names[1]}",
            "busybox",
            "sh",
            "-c",
            "cat /proc/self/uid_map; ps",
        )
        assert uid_map(joined.splitlines()[0]) == [rows[1]]
        assert "sleep 1000" in joined
        refused = sampan("run", "--rm", "--userns=auto", shared[3], "busybox", status=125)
        assert "belongs to that container's user namespace" in refused.stderr
    finally:
        sampan("rm", "-f", *names, status=None)


def test_keep_id(sampand: Sampand, sampan: DockerCli) -> None:
    """The client of the socket keeps its ids, whoever that is; everybody else is nobody."""
    directory = sampand.root / "kept"
    directory.mkdir()
    os.chown(directory, 1234, 1235)
    for path in (sampand.socket, *sampand.socket.parents):
        if path.is_relative_to("/tmp") and path != Path("/tmp"):
            path.chmod(path.stat().st_mode | (0o666 if path.is_socket() else 0o011))
    script = "touch /m/new; stat -c '%u:%g' /m /m/new; id -u; id -g"
    command = [
        *("setpriv", "--reuid=1234", "--regid=1235", "--clear-groups", sampan.program),
        *(
            "run",
            "--rm",
            "--userns=keep-id",
            "-v",
            f"{directory}:/m",
            "busybox",
            "sh",
            "-c",
            script,
        ),
    ]
    found = subprocess.run(
        command, env=sampan.environment, capture_output=True, text=True, check=False
    )
    assert found.stdout.split() == ["1234:1235", "1234:1235", "1234", "1235"], found.stderr
    assert owner(directory / "new") == (1234, 1235)
    inside = sampan.out(
        *(
            "run",
            "--rm",
            "--userns=keep-id:uid=1000,gid=1000",
            "busybox",
            "sh",
            "-c",
            "id -u; id -g",
        )
    )
    assert inside.split() == ["1000", "1000"]
    nobody = sampan.out("run", "--rm", "--userns=nomap", "busybox", "cat", "/proc/self/uid_map")
    assert all(first > 0x70000000 - 1 for _, first, _ in uid_map(nobody))


def test_mounts_with_owners(sampand: Sampand, docker: DockerCli, sampan: DockerCli) -> None:
    directory = sampand.root / "owned"
    (directory / "sub").mkdir(parents=True)
    os.chown(directory / "sub", 1000, 1000)
    show = ["busybox", "stat", "-c", "%u:%g", "/m", "/m/sub"]
    bind = ["run", "--rm", "-v"]
    assert docker.out(*bind, f"{directory}:/m", *show).split() == ["65534:65534"] * 2
    assert docker.out(*bind, f"{directory}:/m:idmap", *show).split() == ["0:0", "1000:1000"]
    custom = "idmap=uids=@0-7-1#@1000-8-1;gids=@0-9-1#@1000-10-1"
    assert docker.out(*bind, f"{directory}:/m:{custom}", *show).split() == ["7:9", "8:10"]
    image = ["run", "--rm", "--mount", "type=image,src=programs,dst=/m", "busybox"]
    assert sampan.out(*image, "stat", "-c", "%u:%g", "/m/etc/passwd") == "0:0"
    mount = f"type=bind,src={directory},dst=/m,idmap"
    assert sampan.out("run", "--rm", "--mount", mount, *show).split() == ["0:0", "1000:1000"]
    refused = docker(
        "run", "--rm", "--userns=host", *bind[2:], f"{directory}:/m:idmap", *show, status=125
    )
    assert "mount option idmap of /m: the container has no user namespace" in refused.stderr

    as_user = ["run", "--rm", "-u", "user", "-v"]
    assert docker.out(*as_user, f"{directory}:/m:U", *show).split() == ["1000:1000"] * 2
    first = uid_map(docker.out("run", "--rm", "busybox", "cat", "/proc/self/uid_map"))[0][1]
    assert owner(directory) == owner(directory / "sub") == (first + 1000, first + 1000)
    assert docker.out(*as_user, f"{directory}:/m:U,idmap", *show).split() == ["1000:1000"] * 2
    assert owner(directory / "sub") == (1000, 1000)
    refused = docker("run", "--rm", "-v", "/etc:/m:U", "busybox", "true", status=125)
    assert "changing the owner of the host's /etc is not allowed" in refused.stderr
    made = sampand.root / "made"
    docker("run", "--rm", "-v", f"{made}:/m", "busybox", "touch", "/m/file")
    assert owner(made / "file") == (first, first)


def test_builds(docker: DockerCli, sampan: DockerCli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("context\n")
    (tmp_path / "Dockerfile").write_text("""FROM busybox
COPY --chown=5:6 file /copied
RUN cat /proc/self/uid_map && touch /made && mkdir /u && chown 1000:1000 /u && cat > /dev/null
RUN --mount=type=cache,target=/c --mount=type=bind,target=/b \\
    stat -c 'owner %u:%g' /c /b/file /copied /made && touch /c/x && chown 9:9 /c/x
RUN --mount=type=cache,target=/c stat -c 'owner %u:%g' /c/x
USER user
RUN touch /u/file
""")
    built = sampan("build", "--progress", "plain", "-t", "remapped", str(tmp_path))
    told = built.stdout + built.stderr
    owners = [line.rpartition("owner ")[2] for line in told.splitlines() if " owner " in line]
    assert [o for o in owners if o[0].isdigit()] == ["0:0", "0:0", "5:6", "0:0", "9:9"], told
    assert " 65536" in told
    seen = docker.out(
        *("run", "--rm", "--userns=host", "remapped"),
        *("stat", "-c", "%u:%g", "/copied", "/made", "/u/file"),
    )
    assert seen.split() == ["5:6", "0:0", "1000:1000"]
    docker("rmi", "remapped")


def test_shared_memory_and_networks_of_neighbours(docker: DockerCli, name: str) -> None:
    docker("run", "-d", "--name", name, "--ipc=shareable", "busybox", "sleep", "1000")
    found = docker.out(
        *("run", "--rm", f"--ipc=container:{name}", f"--network=container:{name}"),
        *("busybox", "sh", "-c", "touch /dev/shm/x; stat -c '%u:%g' /dev/shm /dev/shm/x; hostname"),
    )
    assert found.split()[:2] == ["0:0", "0:0"]
    assert found.split()[2] == docker.out("exec", name, "hostname")
    assert docker.out("exec", name, "stat", "-c", "%u", "/dev/shm/x") == "0"
    host = docker.out("run", "-d", "--userns=host", "busybox", "sleep", "1000")
    refused = docker("run", "--rm", f"--network=container:{host}", "busybox", status=125)
    assert "it is in the host's user namespace, and this container is not" in refused.stderr
    docker("rm", "-f", host)
