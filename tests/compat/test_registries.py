"""The daemon and registries, through the docker command line: what is sent, from where, by whom."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
    assert "signedBy" in docker("pull", pgp, status=1).stderr
    refused = docker("load", "-i", str(tmp_path / "key.pem"), status=1)
    assert "rejected by the signature policy" in refused.stderr


def test_search(docker: DockerCli, registries: None, tagged: Callable[..., None]) -> None:
    tagged(f"{OURS}/findable/one:1")
    pushed(docker, f"{OURS}/findable/one:1")
    found = docker.out("search", "--format", "{{.Name}}", f"{OURS}/findable")
    assert found == "findable/one"
