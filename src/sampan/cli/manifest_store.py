"""Manifest lists that are being put together: files in the configuration directory, as Docker's.

``manifests/<list>/<manifest>`` holds one manifest of a list: its reference, its descriptor with
platform, and its exact bytes (base64).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.client.document import as_table, number, table, text, texts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document


#: A platform's members, in docker's order.
_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant", "features")


class Entry(NamedTuple):
    """One manifest of a list."""

    reference: str
    media_type: str
    digest: str
    size: int
    platform: Document
    raw: bytes

    def descriptor(self) -> Document:
        """The descriptor a list holds for it."""
        return {
            "mediaType": self.media_type,
            "size": self.size,
            "digest": self.digest,
            "platform": {key: self.platform[key] for key in _PLATFORM if key in self.platform},
        }


class ManifestStore:
    """The manifest lists below a configuration directory."""

    def __init__(self, config_directory: str) -> None:
        self._root = os.path.join(config_directory, "manifests")

    def exists(self, name: str) -> bool:
        """Whether a list is being put together under this name."""
        return os.path.isdir(self._list(name))

    def entries(self, name: str) -> list[Entry]:
        """The manifests of a list. Raises :class:`CliError` when there is no such list."""
        directory = self._list(name)
        try:
            files = sorted(os.listdir(directory))
        except FileNotFoundError:
            raise CliError(f"No such manifest: {name}") from None
        return [_read(os.path.join(directory, file)) for file in files]

    def get(self, name: str, manifest: str) -> Entry:
        """One manifest of a list. Raises :class:`CliError`."""
        path = os.path.join(self._list(name), _safe(manifest))
        if not os.path.exists(path):
            raise CliError(f"manifest for image {manifest} does not exist in {name}")
        return _read(path)

    def put(self, name: str, entry: Entry) -> None:
        """Keep a manifest in a list, made if need be."""
        directory = self._list(name)
        os.makedirs(directory, 0o755, exist_ok=True)
        path = os.path.join(directory, _safe(entry.reference))
        document: Document = {
            "Ref": entry.reference,
            "Descriptor": entry.descriptor(),
            "Raw": base64.b64encode(entry.raw).decode(),
        }
        temporary = f"{path}.{os.getpid()}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)

    def remove(self, name: str) -> None:
        """Forget a list. Raises :class:`CliError` when there is none."""
        if not self.exists(name):
            raise CliError(f"No such manifest: {name}")
        shutil.rmtree(self._list(name))

    def _list(self, name: str) -> str:
        return os.path.join(self._root, _safe(name))


def _safe(name: str) -> str:
    return name.replace(":", "-").replace("/", "_")


def _read(path: str) -> Entry:
    with open(path, encoding="utf-8") as file:
        document = as_table(json.load(file))
    descriptor = table(document, "Descriptor")
    return Entry(
        text(document, "Ref"),
        text(descriptor, "mediaType"),
        text(descriptor, "digest"),
        number(descriptor, "size"),
        table(descriptor, "platform"),
        base64.b64decode(text(document, "Raw")),
    )


def annotate(platform: Document, changes: dict[str, str], features: list[str]) -> Document:
    """A platform with members replaced; ``features`` are added. Raises :class:`CliError`."""
    changed: Document = {**platform, **{key: value for key, value in changes.items() if value}}
    if features:
        known = texts(platform, "os.features")
        changed["os.features"] = [*known, *(name for name in features if name not in known)]
    if not text(changed, "os") or not text(changed, "architecture"):
        raise CliError("manifest entry for image has unsupported os/arch combination: /")
    return changed
