"""Simple signatures (``signedBy``): OpenPGP messages that say which manifest a name means.

A signature is a signed OpenPGP message whose text is a JSON document (containers-signature(5)).
gpgv(1) verifies it: GnuPG's program for just this, which trusts the keys it is given and no other
state of the machine. Reading the document is pure.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess
import tempfile
import threading
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

import msgspec

from sampan.model.digest import Digest
from sampan.model.reference import Reference
from sampan.registry.policy import SignedIdentity

#: Longer messages and texts are no signatures, and more than so many are not looked at.
MAX_SIGNATURE = 4 << 20
MAX_SIGNATURES = 100
_MAX_PAYLOAD = 64 << 10
_TYPE = "atomic container signature"
_SECONDS = 30.0
_ARMOUR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
#: What must be said exactly once of a message with one good signature, nothing around it.
_ONCE = ("PLAINTEXT", "NEWSIG", "GOODSIG", "VALIDSIG")
#: A key that was good once, or a signature that is not good any more.
_NEVER = frozenset(
    {"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "KEYREVOKED", "NODATA", "UNEXPECTED"}
)


class _Identity(msgspec.Struct, forbid_unknown_fields=True):
    reference: str = msgspec.field(name="docker-reference")


class _Image(msgspec.Struct, forbid_unknown_fields=True):
    digest: str = msgspec.field(name="docker-manifest-digest")


class _Critical(msgspec.Struct, forbid_unknown_fields=True):
    type: str
    image: _Image
    identity: _Identity


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    critical: _Critical
    optional: msgspec.Raw = msgspec.Raw()


def verify(
    signatures: Iterable[bytes],
    keyrings: Sequence[bytes],
    digests: Collection[Digest],
    image: Reference,
    identity: SignedIdentity,
) -> str:
    """Empty when some signature is good for one of the manifests ``digests``; or why not.

    ``keyrings`` are public keys, armoured or not; ``image`` is the name it was asked for by.
    Runs a program for each signature: blocking.
    """
    reason = "a signature was required, but no signature exists"
    for message in signatures:
        payload, reason = _opened(message, keyrings)
        reason = reason or _judge(payload, digests, image, identity)
        if not reason:
            return ""
    return reason


def _judge(
    payload: bytes, digests: Collection[Digest], image: Reference, identity: SignedIdentity
) -> str:
    """Empty when a verified text is about this image; or why not."""
    try:
        critical = msgspec.json.decode(payload, type=_Payload).critical
    except msgspec.DecodeError:
        return "the signed document is malformed"
    if critical.type != _TYPE:
        return f"the signed document is a {critical.type[:80]!r}"
    if critical.image.digest not in map(str, digests):
        return "the signature is for another manifest"
    if not identity.accepts(image, critical.identity.reference):
        return f"the signature is for {critical.identity.reference[:200]!r}"
    return ""


def _opened(message: bytes, keyrings: Sequence[bytes]) -> tuple[bytes, str]:
    """The text of a message signed by a key of ``keyrings``, or why it is not."""
    with tempfile.TemporaryDirectory(prefix="sampan-gpgv-") as name:
        directory = Path(name)
        command = ["gpgv", "--homedir", name, "--quiet", "--output", "-"]
        for number, keyring in enumerate(keyrings):
            path = directory / f"{number}.gpg"
            path.write_bytes(_unarmoured(keyring))
            command += ["--keyring", str(path)]
        file, status = directory / "signature", directory / "status"
        file.write_bytes(message)
        fd = os.open(status, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            command += ["--status-fd", str(fd), "--", str(file)]
            payload, code = _run(command, fd)
        except FileNotFoundError:
            return b"", "gpgv, which checks OpenPGP signatures, is not installed"
        finally:
            os.close(fd)
        said = [
            line.split(" ")[1]
            for line in status.read_text(errors="replace").splitlines()
            if line.startswith("[GNUPG:] ")
        ]
    if len(payload) > _MAX_PAYLOAD:
        return b"", "the signed document is too long"
    good = code == 0 and all(said.count(word) == 1 for word in _ONCE)
    if not good or not _NEVER.isdisjoint(said):
        return b"", "no signature is by a trusted key"
    return payload, ""


def _run(command: Sequence[str], fd: int) -> tuple[bytes, int]:
    """The first bytes a program writes, and its exit status; it inherits ``fd``."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(fd,),
        env={"PATH": os.defpath, "LC_ALL": "C"},
    ) as process:
        assert process.stdout is not None
        deadline = threading.Timer(_SECONDS, process.kill)
        deadline.start()
        try:
            payload = process.stdout.read(_MAX_PAYLOAD + 1)
            process.stdout.close()  # which ends a text without end
            return payload, process.wait()
        finally:
            deadline.cancel()
            process.kill()


def _unarmoured(keyring: bytes) -> bytes:
    """A keyring as gpgv reads it: binary (RFC 4880, section 6.2)."""
    if _ARMOUR not in keyring:
        return keyring
    found = bytearray()
    for block in keyring.split(_ARMOUR)[1:]:
        lines = block.partition(b"-----END")[0].replace(b"\r", b"").split(b"\n")
        body = lines[lines.index(b"", 1) :] if b"" in lines[1:] else []
        text = b"".join(line for line in body if not line.startswith(b"="))
        try:
            found += base64.b64decode(text, validate=True)
        except binascii.Error:
            return b""  # no key at all: nothing is signed by one of it
    return bytes(found)
