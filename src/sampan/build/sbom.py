"""A bill of materials of a tree as an SPDX 2.3 document (https://spdx.github.io/spdx-spec/v2.3/).

Deterministic: the same packages, name and time give the same document.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from typing import Any

from sampan.build.attest import Attestation
from sampan.build.packages import Distribution, Package

SPDX = "https://spdx.dev/Document"
_UNSAFE = re.compile(r"[^A-Za-z0-9.-]")
#: What SPDX's license expressions are made of; anything else is no expression.
_EXPRESSION = re.compile(r"[A-Za-z0-9.+-]+(?: (?:AND|OR|WITH) [A-Za-z0-9.+-]+)*")


def bill(
    packages: Sequence[Package],
    system: Distribution,
    *,
    name: str,
    identity: str,
    created: str,
    tool: str,
) -> Attestation:
    """The document; ``identity`` (a digest) makes its namespace its own, ``created`` is RFC 3339
    to the second, ``tool`` says who wrote it."""
    entries = [_entry(number, package) for number, package in enumerate(packages)]
    root = {
        "name": name,
        "SPDXID": "SPDXRef-DocumentRoot-Image",
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "primaryPackagePurpose": "CONTAINER",
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "supplier": "NOASSERTION",
    }
    if system.name:
        root["comment"] = system.name
    relations = [_relation("SPDXRef-DOCUMENT", "DESCRIBES", root["SPDXID"])]
    relations += [_relation(root["SPDXID"], "CONTAINS", entry["SPDXID"]) for entry in entries]
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"{name} {identity}")
    document = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": f"https://sampan.invalid/sbom/{_UNSAFE.sub('-', name)}-{unique}",
        "creationInfo": {"created": created, "creators": [f"Tool: {tool}"]},
        "packages": [root, *entries],
        "relationships": relations,
    }
    return Attestation(name="sbom.spdx.json", predicate_type=SPDX, predicate=document)


def _relation(source: Any, kind: str, target: Any) -> dict[str, Any]:
    return {
        "spdxElementId": source,
        "relationshipType": kind,
        "relatedSpdxElement": target,
    }


def _entry(number: int, package: Package) -> dict[str, Any]:
    """One package; a license that is no SPDX expression is told in words."""
    declared = package.license if _EXPRESSION.fullmatch(package.license) else "NOASSERTION"
    entry = {
        "name": package.name,
        "SPDXID": f"SPDXRef-{package.kind}-{_UNSAFE.sub('-', package.name)}-{number}",
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": declared,
        "copyrightText": "NOASSERTION",
        "supplier": _supplier(package.supplier),
        "externalRefs": [
            {
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": package.url,
            }
        ],
    }
    if package.license and declared == "NOASSERTION":
        entry["licenseComments"] = package.license
    return entry


def _supplier(text: str) -> str:
    """``Name <address>`` as SPDX writes an organization; NOASSERTION when unknown."""
    name, bracket, rest = text.replace("\n", " ").partition("<")
    name = name.strip()
    if not name:
        return "NOASSERTION"
    address = rest.partition(">")[0].strip()
    return f"Organization: {name} ({address})" if bracket and address else f"Organization: {name}"
