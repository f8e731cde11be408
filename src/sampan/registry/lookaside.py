"""Where simple signatures of images are kept: ``registries.d`` (containers-registries.d(5)), pure.

A *lookaside* is a place beside the registry (a web server, or a directory) with files
``<repository>@<algorithm>=<hex>/signature-<n>``, ``n`` from 1. The most particular section that
fits an image decides alone. Signatures are only read, so ``lookaside-staging`` is of no concern.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

import msgspec

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest
from sampan.model.reference import Reference

#: Where podman and skopeo look, and sign to, when nothing is configured.
DEFAULT = "file:///var/lib/containers/sigstore"


class _Section(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    lookaside: str = ""
    lookaside_staging: str = ""
    #: the names of both before containers-common 0.49
    sigstore: str = ""
    sigstore_staging: str = ""
    use_sigstore_attachments: bool | None = None

    @property
    def url(self) -> str:
        return self.lookaside or self.sigstore


class _File(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    default_docker: _Section | None = None
    docker: dict[str, _Section] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookaside:
    """The sections of all files by scope; nothing configured is :data:`DEFAULT` for everything."""

    _default: _Section = field(default_factory=lambda: _Section(lookaside=DEFAULT))
    _scopes: Mapping[str, _Section] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path) -> Lookaside:
        """What the ``*.yaml`` files of ``directory`` say together; what does not exist is empty.

        Raises :class:`InvalidParameter` naming the file that cannot be read, or that configures a
        scope a second time.
        """
        default: _Section | None = None
        scopes: dict[str, _Section] = {}
        for path in sorted(directory.glob("*.yaml")) if directory.is_dir() else ():
            try:
                found = msgspec.yaml.decode(path.read_bytes(), type=_File | None) or _File()
            except OSError as error:
                raise InvalidParameter(f"cannot read {path}: {error.strerror}") from error
            except msgspec.DecodeError as error:
                raise InvalidParameter(f"invalid {path}: {error}") from error
            twice = sorted(scopes.keys() & (found.docker or {}).keys())
            if found.default_docker is not None and default is not None:
                twice.insert(0, "default-docker")
            if twice:
                raise InvalidParameter(f"invalid {path}: {twice[0]} is configured twice")
            scopes.update(found.docker or {})
            default = found.default_docker or default
            for section in (found.default_docker, *(found.docker or {}).values()):
                _check(path, section)
        return cls(_scopes=scopes) if default is None else cls(_default=default, _scopes=scopes)

    def base(self, image: Reference) -> str:
        """The URL (``file``, ``http``, ``https``) of an image's signatures; empty without any."""
        return self._section(image).url.rstrip("/")

    def attachments(self, image: Reference) -> bool:
        """Whether signatures attached to an image in its registry count, too.

        They do unless a section says otherwise; other programs want to be told that they do.
        """
        return self._section(image).use_sigstore_attachments is not False

    def _section(self, image: Reference) -> _Section:
        for scope in image.scopes():
            found = self._scopes.get(scope)
            if found is not None:
                return found
        return self._default


def _check(path: Path, section: _Section | None) -> None:
    if section is None or not section.url:
        return
    parts = urlsplit(section.url)
    if parts.scheme not in ("file", "http", "https") or (parts.scheme == "file" and parts.netloc):
        raise InvalidParameter(
            f"invalid {path}: lookaside {section.url[:200]!r} is no file or web address"
        )


def address(base: str, image: Reference, digest: Digest, number: int) -> str:
    """The URL of signature ``number`` (from 1) of the manifest ``digest``."""
    name = quote(f"{image.path}@{digest.algorithm}={digest.hex}", safe="/@=")
    return f"{base}/{name}/signature-{number}"
