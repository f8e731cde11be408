"""``signedBy``: signatures made by skopeo and gpg, and every way not to be one."""

from __future__ import annotations

import asyncio
import base64
import bz2
import json
import os
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp import web

from sampan.content.store import FileStore
from sampan.errors import Forbidden, InvalidParameter
from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry import Lookaside, Policy, Registry, Settings, simplesigning
from sampan.registry.lookaside import address as place_of
from sampan.registry.policy import SignedIdentity
from sampan.registry.server.config import ServerConfig, Storage
from sampan.registry.server.serve import serving
from tests.security.registry.test_client import listening
from tests.unit.registry import samples

pytestmark = pytest.mark.skipif(
    shutil.which("gpg") is None or shutil.which("gpgv") is None, reason="needs gpg and gpgv"
)

NAME = Reference.parse("r.example/team/app:1")
DIGEST = Digest.of(b"manifest")


class Keys:
    """A directory of gpg(1) with keys in it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(mode=0o700)

    def gpg(self, *words: str, data: bytes = b"") -> bytes:
        command = ["gpg", "--batch", "--yes", "--quiet", "--homedir", str(self.home)]
        command += ["--pinentry-mode", "loopback", "--passphrase", ""]
        result = subprocess.run([*command, *words], input=data, capture_output=True, check=False)
        assert result.returncode == 0, (words, result.stderr)
        return result.stdout

    def make(self, name: str, *, expires: str = "never") -> None:
        self.gpg("--quick-generate-key", f"{name}@example.com", "ed25519", "sign", expires)

    def public(self, name: str, *options: str) -> bytes:
        return self.gpg(*options, "--export", f"{name}@example.com")

    def sign(self, name: str, text: bytes, *options: str) -> bytes:
        return self.gpg("-u", f"{name}@example.com", *options, "--sign", data=text)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    made = Keys(tmp_path_factory.mktemp("g") / "h")
    for name in ("good", "other"):
        made.make(name)
    yield made
    subprocess.run(["gpgconf", "--homedir", str(made.home), "--kill", "all"], check=True)


def document(name: str = str(NAME), digest: str = str(DIGEST), **changes: object) -> bytes:
    critical = {
        "type": "atomic container signature",
        "image": {"docker-manifest-digest": digest},
        "identity": {"docker-reference": name},
        **changes,
    }
    optional = {"creator": "test", "timestamp": 1}
    return json.dumps({"critical": critical, "optional": optional}).encode()


def reason(keys: Keys, *messages: bytes, keyrings: tuple[bytes, ...] | None = None) -> str:
    trusted = keyrings if keyrings is not None else (keys.public("good"),)
    return simplesigning.verify(messages, trusted, [DIGEST], NAME, SignedIdentity())


def test_a_good_signature_and_texts_that_are_none(keys: Keys) -> None:
    def signed(*texts: bytes) -> str:
        return reason(keys, *(keys.sign("good", text) for text in texts))

    assert signed(document()) == ""
    assert signed(b"{}", document()) == ""
    assert "malformed" in signed(b"{}")
    assert "malformed" in signed(document(more=1))
    assert "is a 'cosign'" in signed(document(type="cosign"))
    assert "another manifest" in signed(document(digest="sha256:" + "a" * 64))
    assert "r.example/team/app:2" in signed(document("r.example/team/app:2"))
    assert "too long" in signed(document() + b" " * (1 << 20))
    assert "no signature exists" in reason(keys)


def test_keyrings(keys: Keys) -> None:
    message = keys.sign("good", document())
    armoured, other = keys.public("good", "--armor"), keys.public("other")
    assert reason(keys, message, keyrings=(armoured,)) == ""
    assert reason(keys, message, keyrings=(other, armoured)) == ""
    assert reason(keys, message, keyrings=(keys.public("other", "--armor") + armoured,)) == ""
    for keyring in (other, b"", b"nonsense", armoured[:-200], b"-----BEGIN PGP PUBLIC KEY BLOCK"):
        assert "trusted key" in reason(keys, message, keyrings=(keyring,)), keyring


def test_messages_that_are_not_signed_by_one_trusted_key_alone(keys: Keys) -> None:
    good = keys.sign("good", document())
    both = keys.sign("good", document(), "-u", "other@example.com")
    trusted = (keys.public("good"), keys.public("other"))
    changed = bytearray(keys.sign("good", document(), "--compress-algo", "none"))
    changed[changed.index(b"team/app") + 1] ^= 1
    detached = keys.sign("good", document(), "--detach-sign")
    unsigned = keys.gpg("--store", data=document())
    bomb = keys.sign("good", bytes(64 << 20), "--compress-algo", "zip")
    assert len(bomb) < 1 << 20
    for message in (
        both,
        bytes(changed),
        detached,
        unsigned,
        bomb,
        unsigned + good,
        good[:-10],
        document(),
        bz2.compress(document()),
        b"",
    ):
        assert reason(keys, message, keyrings=trusted), message[:80]


def test_keys_that_have_expired_or_were_revoked(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "h")
    try:
        keys.make("old", expires="seconds=1")
        message = keys.sign("old", document(), "--faked-system-time", _just_after(keys, "old"))
        expiring = keys.public("old")
        keys.make("good")
        lost = keys.sign("good", document())
        assert reason(keys, lost) == ""
        fingerprint = keys.gpg("--with-colons", "--list-keys", "good@example.com").decode()
        fingerprint = next(
            line.split(":")[9] for line in fingerprint.splitlines() if line.startswith("fpr")
        )
        revocation = keys.home / "openpgp-revocs.d" / f"{fingerprint}.rev"
        keys.gpg("--import", data=revocation.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
        assert "trusted key" in reason(keys, lost)
        deadline = time.monotonic() + 20
        while not reason(keys, message, keyrings=(expiring,)):  # good for a second
            assert time.monotonic() < deadline
    finally:
        subprocess.run(["gpgconf", "--homedir", str(keys.home), "--kill", "all"], check=True)


def _just_after(keys: Keys, name: str) -> str:
    """The moment a key was made, as gpg takes it: it was valid then."""
    listed = keys.gpg("--with-colons", "--list-keys", f"{name}@example.com").decode()
    created = next(line.split(":")[5] for line in listed.splitlines() if line.startswith("pub"))
    return f"{created}!"


def test_without_gpgv_nothing_is_accepted(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    message = keys.sign("good", document())
    public = keys.public("good")
    monkeypatch.setattr(os, "defpath", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    assert "not installed" in reason(keys, message, keyrings=(public,))


# -- registries.d


def test_sections_of_registries_d(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing said\ndefault-docker:\n")
    (tmp_path / "b.yaml").write_text(
        "docker:\n"
        "  r.example: {lookaside: 'https://signatures.example/r/'}\n"
        "  r.example/team: {sigstore: 'file:///srv/team', use-sigstore-attachments: false}\n"
        "  r.example/none: {lookaside-staging: 'file:///srv/staging'}\n"
    )
    (tmp_path / "c.txt").write_text("not: read")
    found = Lookaside.load(tmp_path)
    other, none = Reference.parse("r.example/x"), Reference.parse("r.example/none/x:1")
    assert found.base(NAME) == "file:///srv/team"
    assert found.base(other) == "https://signatures.example/r"
    assert found.base(none) == ""
    assert found.base(Reference.parse("s.example/x")) == "file:///var/lib/containers/sigstore"
    assert not found.attachments(NAME)
    assert found.attachments(other)
    assert place_of("https://s.example/r", NAME, DIGEST, 3) == (
        f"https://s.example/r/team/app@sha256={DIGEST.hex}/signature-3"
    )
    assert Lookaside.load(tmp_path / "nowhere") == Lookaside()


@pytest.mark.parametrize(
    "text",
    [
        "docker: [",
        "docker: {r.example: {lookaside: 'ftp://x/'}}",
        "docker: {r.example: {lookaside: 'file://host/x'}}",
        "docker: {r.example: {place: 'file:///x'}}",
        "docker: {twice.example: {}}",
        "default-docker: {}",
    ],
)
def test_wrong_files_of_registries_d_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text("default-docker: {}\ndocker: {twice.example: {}}\n")
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(InvalidParameter, match=r"b\.yaml"):
        Lookaside.load(tmp_path)


# -- with skopeo


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    storage = Storage(root=str(tmp_path / "root"))
    async with serving(ServerConfig(listen="127.0.0.1:0", storage=storage)) as (host, port):
        yield f"{host}:{port}"


def layout(directory: Path, sample: samples.Sample) -> str:
    """An OCI layout with one image, as skopeo names it."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    for blob in (sample.manifest, *sample.blobs):
        (blobs / Digest.of(blob).hex).write_bytes(blob)
    entry = {
        **sample.descriptor(),
        "annotations": {"org.opencontainers.image.ref.name": "1"},
    }
    index = {"schemaVersion": 2, "manifests": [entry]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return f"oci:{directory}:1"


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="needs skopeo")
@pytest.mark.parametrize("transport", ["file", "http"])
async def test_what_skopeo_signs_is_accepted(
    address: str, keys: Keys, tmp_path: Path, transport: str
) -> None:
    sample = samples.image(1)
    source = layout(tmp_path / "layout", sample)
    signatures, configuration = tmp_path / "signatures", tmp_path / "registries.d"
    configuration.mkdir()
    section = {"lookaside-staging": f"file://{signatures}", "lookaside": f"file://{signatures}"}
    (configuration / "a.yaml").write_text(json.dumps({"default-docker": section}))
    command = ["skopeo", "--insecure-policy", "--registries.d", str(configuration), "copy"]
    command += ["--dest-tls-verify=false", "--preserve-digests", source]

    async def push(name: str, *options: str) -> Reference:
        result = await asyncio.to_thread(
            subprocess.run,
            [*command, f"docker://{address}/{name}", *options],
            env={**os.environ, "GNUPGHOME": str(keys.home)},
            capture_output=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return Reference.parse(f"{address}/{name}")

    signed = await push("team/app:1", "--sign-by", "good@example.com")
    bare = await push("team/bare:1")
    content = FileStore(tmp_path / "content")

    async def serve(request: web.BaseRequest) -> web.StreamResponse:
        file = signatures / request.path.lstrip("/")
        assert "Authorization" not in request.headers
        return web.FileResponse(file) if file.is_file() else web.Response(status=404)

    async with listening(serve) as theirs:
        if transport == "http":
            section = {"lookaside": f"http://{theirs}/"}
            (configuration / "a.yaml").write_text(json.dumps({"default-docker": section}))
        places = Lookaside.load(configuration)

        def trusting(name: str) -> Settings:
            data = base64.b64encode(keys.public(name)).decode()
            requirement = {"type": "signedBy", "keyType": "GPGKeys", "keyData": data}
            policy = Policy.parse(json.dumps({"default": [requirement]}).encode())
            return Settings(policy=policy, lookaside=places)

        async with Registry(trusting("good")) as registry:
            assert (await registry.pull(signed, content=content)).root.digest == sample.digest
            with pytest.raises(Forbidden, match="no signature exists"):
                await registry.pull(bare, content=content)
            # A signature that is put beside another name says still what it is for.
            shutil.copytree(
                signatures / f"team/app@sha256={sample.digest.hex}",
                signatures / f"team/bare@sha256={sample.digest.hex}",
            )
            with pytest.raises(Forbidden, match="the signature is for"):
                await registry.pull(bare, content=content)
        async with Registry(trusting("other")) as registry:
            with pytest.raises(Forbidden, match="trusted key"):
                await registry.pull(signed, content=content)
