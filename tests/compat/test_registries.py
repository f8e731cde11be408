"""The daemon and registries, through the docker command line: what is sent, from where, by whom."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import aiodocker
import docker as docker_py
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sampan.model.platform import Platform
from tests.compat.conftest import DockerCli, Eventually, Sampand

DEBIANS, OURS = "127.0.0.1:5000", "127.0.0.1:5001"

Configure = Callable[..., None]


@pytest.fixture(scope="module")
def registries(sampand: Sampand, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Debian's docker-registry (ours where it is missing) and ours beside the daemon."""
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    root = tmp_path_factory.mktemp("registries")
    ours = [sys.executable, "-m", "sampan.registry.server"]
    commands = {OURS: [*ours, "--listen", OURS, "--root", str(root / "ours")]}
    commands[DEBIANS] = [*ours, "--listen", DEBIANS, "--root", str(root / "debians")]
    if shutil.which("docker-registry"):
        config = root / "config.yml"
        config.write_text(
            "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\n"
            f"storage: {{filesystem: {{rootdirectory: {root / 'debians'}}}}}\n"
            f"http: {{addr: {DEBIANS}}}\n"
        )
        commands[DEBIANS] = ["docker-registry", "serve", str(config)]
    inside = ["nsenter", f"--net=/run/netns/{sampand.namespace}"]
    with contextlib.ExitStack() as stack:
        for address, command in commands.items():
            log = stack.enter_context((root / f"{address}.log").open("wb"))
            process = subprocess.Popen([*inside, *command], stdout=log, stderr=log)
            stack.callback(process.wait, 60)
            stack.callback(process.terminate)
            probe = ["curl", "-sf", "--retry", "50", "--retry-connrefused", "--retry-delay", "0"]
            subprocess.run(
                [*inside, *probe, "--retry-max-time", "60", f"http://{address}/v2/"],
                check=True,
                capture_output=True,
            )
        yield


@pytest.fixture
def configure(sampand: Sampand, registries: None, eventually: Eventually) -> Iterator[Configure]:
    """Give the running daemon other options (as in daemon.json); taken back at the end."""

    def change(**options: object) -> None:
        before = sampand.log().count("configuration reloaded")
        text = json.dumps({name.replace("_", "-"): value for name, value in options.items()})
        (sampand.root / "daemon.json").write_text(text)
        assert sampand.process is not None
        sampand.process.send_signal(signal.SIGHUP)
        eventually(lambda: sampand.log().count("configuration reloaded") > before)

    yield change
    change()


@pytest.fixture
def tagged(docker: DockerCli) -> Iterator[Callable[..., None]]:
    """Give ``busybox`` other names, which are removed at the end."""
    names: list[str] = []

    def tag(*more: str) -> None:
        for name in more:
            docker("tag", "busybox", name)
            names.append(name)

    yield tag
    for name in names:
        docker("rmi", name, status=None)


def pushed(docker: DockerCli, name: str) -> str:
    """The digest a push ends with."""
    return docker.out("push", name).rpartition("digest: ")[2].split()[0]


def test_plain_layers_are_pushed_compressed_and_only_once(
    docker: DockerCli, sampand: Sampand, registries: None, tagged: Callable[..., None]
) -> None:
    first, second = f"{DEBIANS}/push/first:1", f"{DEBIANS}/push/second:1"
    tagged(first, second)
    identity = docker.out("image", "inspect", "-f", "{{.Id}}", "busybox")
    digest = pushed(docker, first)
    again = docker.out("push", first)
    assert again.count("Layer already exists") == 2
    assert digest in again
    assert docker.out("push", second).count("Mounted from push/first") == 2
    known = docker.out("image", "inspect", "-f", "{{json .RepoDigests}}", first)
    assert f'"{DEBIANS}/push/first@{digest}"' in known
    assert docker.out("image", "ls", "--format", "{{.Tag}}", first) == "1"
    url = f"http://{DEBIANS}/v2/push/first/manifests/1"
    accept = "Accept: application/vnd.oci.image.manifest.v1+json"
    command = ["nsenter", f"--net=/run/netns/{sampand.namespace}", "curl", "-sf", "-H", accept, url]
    manifest = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert [layer["mediaType"].rpartition(".")[2] for layer in manifest["layers"]] == ["tar+gzip"]
    docker("rmi", first, second)
    docker("pull", first)
    assert docker.out("image", "inspect", "-f", "{{.Id}}", first) == identity
    docker("rmi", first)
    assert docker("push", f"{DEBIANS}/push/none:1", status=1).stderr


def test_registries_conf(
    docker: DockerCli,
    sampand: Sampand,
    configure: Configure,
    tagged: Callable[..., None],
    tmp_path: Path,
    name: str,
    eventually: Eventually,
) -> None:
    """Aliases, search lists, mirrors, prefixes, blocked ones; a wrong file changes nothing."""
    origin, mirror = f"{OURS}/origin/app:1", f"{DEBIANS}/mirror/app:1"
    tagged(origin, mirror)
    digest = pushed(docker, origin)
    assert pushed(docker, mirror) == digest
    docker("rmi", origin, mirror)
    conf = tmp_path / "registries.conf"
    conf.write_text(
        f'unqualified-search-registries = ["{DEBIANS}/nowhere", "{OURS}/origin"]\n'
        f'[aliases]\nnickname = "{OURS}/origin/app"\n'
        f'[[registry]]\nprefix = "named.example/team"\nlocation = "{OURS}/origin"\n'
        f'[[registry.mirror]]\nlocation = "{DEBIANS}/mirror"\n'
        '[[registry]]\nlocation = "bad.example"\nblocked = true\n'
    )
    configure(registries_conf=str(conf))
    assert docker.out("run", "--rm", "--name", name, "nickname:1", "echo", "by alias") == "by alias"
    docker("rmi", origin)
    # A short name as it was typed, which docker's own command line does not send.
    sampan = DockerCli(str(Path(sys.executable).parent / "sampan"), docker.host, docker.config)
    sampan("pull", "app:1")  # the second search registry has it
    docker("rmi", origin)
    docker("pull", "named.example/team/app:1")
    assert "blocked" in docker("pull", "bad.example/x:1", status=1).stderr
    assert docker.out("image", "ls", "-q", "--no-trunc", "named.example/team/app")
    docker("rmi", "named.example/team/app:1")

    conf.write_text("[[registry]]\n")
    assert sampand.process is not None
    sampand.process.send_signal(signal.SIGHUP)
    eventually(lambda: f"configuration not reloaded: {conf}" in sampand.log())
    docker("pull", "nickname:1")  # as before
    docker("rmi", origin)


def test_questions_are_asked_of_mirrors(
    docker: DockerCli, sampand: Sampand, configure: Configure, tagged: Callable[..., None]
) -> None:
    """Docker Hub's tags and platforms come from its mirror: the Hub itself is out of reach."""
    names = [f"{DEBIANS}/library/asked:{tag}" for tag in ("1", "2")]
    tagged(*names)
    digest = {pushed(docker, name) for name in names}.pop()
    docker("rmi", *names)
    configure(registry_mirrors=[f"http://{DEBIANS}"])
    docker("pull", "--all-tags", "asked")
    try:
        listed = docker.out("image", "ls", "--format", "{{.Tag}}", "asked")
        assert sorted(listed.split()) == ["1", "2"]
        client = docker_py.APIClient(base_url=sampand.host)
        found = client.inspect_distribution("asked:1")
        client.close()
    finally:
        docker("rmi", "asked:1", "asked:2")
    assert found["Descriptor"]["digest"] == digest
    # A manifest names no platform: its image's configuration does.
    assert found["Platforms"] == [{"architecture": platform(), "os": "linux"}]


async def test_pushing_as_nobody(
    sampand: Sampand, registries: None, tagged: Callable[..., None]
) -> None:
    """aiodocker names credentials where there are none: by a word that is no JSON."""
    repository = f"{DEBIANS}/push/nobody"
    tagged(f"{repository}:1")
    async with aiodocker.Docker(sampand.host) as client:
        told = await client.images.push(repository, tag="1")
    assert told[-1]["aux"]["Tag"] == "1"


def platform() -> str:
    """The machine's architecture in Go's words."""
    return Platform.parse(f"linux/{os.uname().machine}").architecture


PROXY = """
import asyncio, sys

async def serve(reader, writer):
    head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
    method, url, rest = head.split(" ", 2)
    print(method, url, flush=True)
    if method == "CONNECT":
        writer.write(b"HTTP/1.1 502 Bad Gateway\\r\\nContent-Length: 0\\r\\n\\r\\n")
    else:
        path = "/" + url.split("/", 3)[3]
        rest = rest.replace("\\r\\n", "\\r\\nConnection: close\\r\\n", 1)
        back, forth = await asyncio.open_connection("127.0.0.1", 5001)
        forth.write(f"{method} {path} {rest}".encode())
        while data := await back.read(65536):
            writer.write(data)
        forth.close()
    await writer.drain()
    writer.close()

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 3128) as server:
        print("ready", flush=True)
        await server.serve_forever()

asyncio.run(main())
"""


def test_proxies(
    docker: DockerCli, sampand: Sampand, registries: None, tagged: Callable[..., None]
) -> None:
    """daemon.json's proxy is used, hosts of no-proxy are not asked through it."""
    tagged(f"{OURS}/proxied/app:1")
    pushed(docker, f"{OURS}/proxied/app:1")
    docker("rmi", f"{OURS}/proxied/app:1")
    address = "http://somebody:secret@127.0.0.1:3128"
    options = {
        "insecure-registries": ["far.example", "direct.example"],
        "proxies": {"http-proxy": address, "https-proxy": address, "no-proxy": "direct.example"},
    }
    (sampand.root / "daemon.json").write_text(json.dumps(options))
    command = ["nsenter", f"--net=/run/netns/{sampand.namespace}", sys.executable, "-c", PROXY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as proxy:
        try:
            assert proxy.stdout
            assert proxy.stdout.readline() == "ready\n"
            sampand.restart()
            assert docker.out("info", "-f", "{{.HTTPProxy}}") == (
                "http://xxxxx:xxxxx@127.0.0.1:3128"
            )
            docker("pull", "far.example/proxied/app:1")
            refused = docker("pull", "direct.example/proxied/app:1", status=1).stderr
            assert "direct.example" in refused
            assert "secret" not in refused
        finally:
            proxy.terminate()
            asked = proxy.stdout.read() if proxy.stdout else ""
            (sampand.root / "daemon.json").write_text("{}")
            sampand.restart()
    docker("rmi", "far.example/proxied/app:1")
    assert "HEAD http://far.example/v2/proxied/app/manifests/1" in asked
    assert "direct.example" not in asked


def test_signatures_on_push_and_pull(
    docker: DockerCli, configure: Configure, tagged: Callable[..., None], tmp_path: Path
) -> None:
    """What is pushed with a key is accepted by a policy with its public half, and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public, policy = (tmp_path / name for name in ("key.pem", "pub.pem", "policy.json"))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    requirement = {"type": "sigstoreSigned", "keyPath": str(public)}
    policy.write_text(
        json.dumps(
            {
                "default": [{"type": "insecureAcceptAnything"}],
                "transports": {
                    "docker": {
                        f"{DEBIANS}/signed": [requirement],
                        f"{OURS}/pgp": [
                            {"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}
                        ],
                    },
                    "docker-archive": {"": [{"type": "reject"}]},
                },
            }
        )
    )
    bad, good, pgp = f"{DEBIANS}/signed/bad:1", f"{DEBIANS}/signed/good:1", f"{OURS}/pgp/x:1"
    tagged(bad, good, pgp)
    pushed(docker, bad)
    pushed(docker, pgp)
    configure(signing_key=str(private), signature_policy=str(policy))
    pushed(docker, good)
    docker("rmi", bad, good)
    assert "no signature exists" in docker("pull", bad, status=1).stderr
    docker("pull", good)
    assert "signedBy: cannot read /k" in docker("pull", pgp, status=1).stderr
    refused = docker("load", "-i", str(tmp_path / "key.pem"), status=1)
    assert "rejected by the signature policy" in refused.stderr


def test_search(docker: DockerCli, registries: None, tagged: Callable[..., None]) -> None:
    tagged(f"{OURS}/findable/one:1")
    pushed(docker, f"{OURS}/findable/one:1")
    found = docker.out("search", "--format", "{{.Name}}", f"{OURS}/findable")
    assert found == "findable/one"


STALLING = """
import asyncio, json, pathlib, sys

root = pathlib.Path(sys.argv[1])
entry = json.loads((root / "index.json").read_text())["manifests"][0]
layer = max((root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size).name
stall = True

async def serve(reader, writer):
    global stall
    first = await reader.readexactly(1)
    if first == b"\\x16":  # TLS: there is none here
        writer.close()
        return
    head = first.decode() + (await reader.readuntil(b"\\r\\n\\r\\n")).decode()
    while head:
        method, path, _ = head.split(" ", 2)
        start = head.lower().partition("range: bytes=")[2].partition("-")[0]
        name = path.rpartition("/")[2].removeprefix("sha256:")
        if name == "1":
            name = entry["digest"][7:]
        file = root / "blobs/sha256" / name
        data = file.read_bytes() if file.is_file() else b"{}"
        kind = entry["mediaType"] if "/manifests/" in path else "application/octet-stream"
        if name == layer:
            print("layer from", start or 0, flush=True)
        total, first = len(data), int(start or 0)
        data = data[first:]
        answer = f"HTTP/1.1 {206 if start else 200} OK\\r\\nContent-Type: {kind}\\r\\n"
        answer += f"Docker-Content-Digest: sha256:{name}\\r\\nContent-Length: {len(data)}\\r\\n"
        if start:
            answer += f"Content-Range: bytes {first}-{total - 1}/{total}\\r\\n"
        writer.write(answer.encode() + b"\\r\\n")
        if method == "GET" and name == layer and stall:
            stall = False
            writer.write(data[: len(data) // 2])
            await writer.drain()
            print("half", flush=True)
            await asyncio.Event().wait()
        if method == "GET":
            writer.write(data)
        await writer.drain()
        head = (await reader.readuntil(b"\\r\\n\\r\\n")).decode()

async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", 5002) as server:
        print("ready", flush=True)
        await server.serve_forever()

asyncio.run(main())
"""


def test_a_daemon_killed_while_it_pulls_goes_on_with_what_it_has(
    docker: DockerCli, sampand: Sampand, registries: None, tmp_path: Path, eventually: Eventually
) -> None:
    """Two pulls share one download; after kill -9 nothing half is there, the rest is fetched."""
    sampan = DockerCli(str(Path(sys.executable).parent / "sampan"), docker.host, docker.config)
    noise = os.urandom(6 << 20)  # which no compression makes smaller
    (tmp_path / "noise").write_bytes(noise)
    subprocess.run(
        ["tar", "-C", str(tmp_path), "-cf", str(tmp_path / "root.tar"), "noise"], check=True
    )
    docker("import", str(tmp_path / "root.tar"), "stalling:1")
    sampan("push", "stalling:1", f"oci:{tmp_path / 'layout'}:1")
    docker("rmi", "stalling:1")
    image = "127.0.0.1:5002/stalling:1"
    inside = ["nsenter", f"--net=/run/netns/{sampand.namespace}"]
    command = [*inside, sys.executable, "-c", STALLING, str(tmp_path / "layout")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as registry:
        assert registry.stdout
        try:
            assert registry.stdout.readline() == "ready\n"
            pulls = [docker.popen("pull", image), docker.popen("pull", image)]
            assert registry.stdout.readline() == "layer from 0\n"
            assert registry.stdout.readline() == "half\n"
            ingests = sampand.root / "data/content/ingest"
            eventually(lambda: sum(f.stat().st_size for f in ingests.iterdir()) > 1 << 20)
            sampand.restart(signal.SIGKILL)
            for pull in pulls:
                assert pull.wait(60) != 0
                pull.communicate()
            assert "stalling" not in docker.out("image", "ls")
            assert not [key for key in snapshots(sampand) if key.startswith("unpack-")]
            pulls = [docker.popen("pull", image), docker.popen("pull", image)]
            for pull in pulls:
                _, errors = pull.communicate(timeout=60)
                assert pull.returncode == 0, errors
        finally:
            registry.terminate()
            asked = registry.stdout.read().split("layer from ")[1:]
    assert [int(start) > 0 for start in asked] == [True]
    assert not list(ingests.iterdir())
    docker("create", "--name", "stalled", image, "x")
    docker("cp", "stalled:/noise", str(tmp_path / "back"))
    docker("rm", "stalled")
    docker("rmi", image)
    assert (tmp_path / "back").read_bytes() == noise


def snapshots(sampand: Sampand) -> list[str]:
    """The keys of all snapshots."""
    records = (sampand.root / "data/snapshots/.meta").iterdir()
    return [json.loads(record.read_text())["key"] for record in records]
