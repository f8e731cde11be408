"""What is attached to a manifest by a tag (cosign, SIGNATURE_SPEC.md, "Discovery").

Cosign keeps signatures, attestations and SBOMs of a manifest in images whose tags are made of its
digest, ``sha256-HEX.sig``. They have no subject: the tag alone says what they are about, so it goes
where they go, as the name that OCI layouts give (image-layout.md, "index.json").
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest

REF_NAME = "org.opencontainers.image.ref.name"
KINDS = ("sig", "att", "sbom")
_TAG = re.compile(rf"(sha\d+)-([0-9a-f]+)\.(?:{'|'.join(KINDS)})")


def tags(subject: Digest) -> tuple[str, ...]:
    """The tags that what is attached to ``subject`` has."""
    return tuple(f"{subject.algorithm}-{subject.hex}.{kind}" for kind in KINDS)


def tag(annotations: Mapping[str, str]) -> str:
    """The tag by which a descriptor's manifest is attached; empty when it is not."""
    name = annotations.get(REF_NAME, "")
    return name if _TAG.fullmatch(name) else ""


def subject(annotations: Mapping[str, str]) -> Digest | None:
    """What a descriptor's manifest is attached to, if it is."""
    found = _TAG.fullmatch(annotations.get(REF_NAME, ""))
    if found is None:
        return None
    try:
        return Digest.parse(f"{found[1]}:{found[2]}")
    except InvalidParameter:
        return None
