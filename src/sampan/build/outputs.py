"""What is to be made of a finished build: the outputs a client asks for (pure).

Spec: reference/build.md section 8; the keys are those of BuildKit's exporters, so that attributes
that arrive over its protocol and those of ``--output`` mean the same. A key nobody acts on is
refused by name.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sampan.errors import InvalidParameter, Unsupported
from sampan.layer import Compression
from sampan.model.reference import Reference


class Kind(StrEnum):
    """Where a build's result goes."""

    IMAGE = "image"
    OCI = "oci"
    DOCKER = "docker"
    LOCAL = "local"
    TAR = "tar"
    CACHE_ONLY = "cacheonly"


class Scope(StrEnum):
    """What an annotation is put on (spec/dockerfile/annotations.md)."""

    MANIFEST = "manifest"
    MANIFEST_DESCRIPTOR = "manifest-descriptor"
    INDEX = "index"
    INDEX_DESCRIPTOR = "index-descriptor"


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """One annotation; ``platform`` restricts it to one image of an index ("" all)."""

    scope: Scope
    platform: str
    key: str
    value: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One output. ``destination`` is a path at the client's, ``-`` its standard output, "" the
    engine itself. ``level`` None is the compressor's own default; ``platform_split`` None means
    only where there are several platforms; ``epoch`` None means the build's."""

    kind: Kind
    names: tuple[Reference, ...] = ()
    destination: str = ""
    as_tar: bool = True
    push: bool = False
    push_by_digest: bool = False
    insecure: bool = False
    store: bool = True
    compression: Compression | None = None
    level: int | None = None
    force_compression: bool = False
    oci_types: bool = True
    oci_artifact: bool = True
    clamp: bool = True
    epoch: int | None = None
    inline_attestations: bool = True
    attestation_prefix: str = ""
    platform_split: bool | None = None
    delete: bool = False
    annotations: tuple[Annotation, ...] = ()
    inline_cache: bool = False

    @property
    def to_client(self) -> bool:
        """Whether bytes go to the client."""
        return self.kind in (Kind.OCI, Kind.LOCAL, Kind.TAR) or (
            self.kind is Kind.DOCKER and bool(self.destination)
        )


_COMPRESSIONS = {
    "uncompressed": Compression.NONE,
    "gzip": Compression.GZIP,
    "zstd": Compression.ZSTD,
}
_LEVELS = {Compression.GZIP: 9, Compression.ZSTD: 22, Compression.NONE: 0}
_ANNOTATION = re.compile(
    r"annotation(?:-(manifest|index|manifest-descriptor|index-descriptor))?(?:\[([^\]]+)\])?\.(.+)"
)
_IMAGE_KEYS = frozenset(
    (
        *(
            "name",
            "push",
            "push-by-digest",
            "registry.insecure",
            "unpack",
            "store",
            "name-canonical",
        ),
        *("oci-mediatypes", "oci-artifact", "attestation-inline", "compression"),
        *("force-compression", "compression-level", "rewrite-timestamp", "source-date-epoch"),
        *("dangling-name-prefix", "danging-name-empty-only", "prefer-nondist-layers"),
        "compatibility-version",
    )
)
_FILE_KEYS = frozenset(("platform-split", "attestation-prefix", "source-date-epoch", "dest"))
_KEYS: Mapping[Kind, frozenset[str]] = {
    Kind.IMAGE: _IMAGE_KEYS,
    Kind.OCI: _IMAGE_KEYS | {"dest", "tar"},
    Kind.DOCKER: _IMAGE_KEYS | {"dest", "tar", "context"},
    Kind.LOCAL: _FILE_KEYS | {"mode"},
    Kind.TAR: _FILE_KEYS,
    Kind.CACHE_ONLY: frozenset(),
}


def parse_output(text: str) -> Output:
    """The value of ``--output``: ``type=…,key=value,…``, a directory, or ``-``.

    Raises :class:`InvalidParameter` for a malformed one, :class:`Unsupported` for what no output
    here does.
    """
    if text == "-":
        return output("tar", {"dest": "-"})
    fields = next(csv.reader([text]), [])
    if len(fields) == 1 and "=" not in fields[0]:
        return output("local", {"dest": text})
    values: dict[str, str] = {}
    for entry in fields:
        key, equals, value = entry.partition("=")
        if not equals:
            raise InvalidParameter(f"invalid value {entry!r}: an output is written key=value")
        values[key.strip().lower() if not key.startswith("annotation") else key] = value
    kind = values.pop("type", "")
    if not kind:
        raise InvalidParameter("type is required for output")
    return output(kind, values)


def output(kind: str, values: Mapping[str, str]) -> Output:
    """The output of BuildKit's exporter ``kind`` with these attributes; errors as above."""
    values = dict(values)
    if kind == "registry":
        kind = "image"
        values["push"] = "true"
    try:
        found = Kind(kind)
    except ValueError:
        raise Unsupported(f"output type {kind!r} is not supported") from None
    annotations = _annotations(values)
    for key in values:
        if key not in _KEYS[found]:
            raise Unsupported(f"key {key!r} of output type {kind!r} is not supported")
    for key in ("prefer-nondist-layers", "danging-name-empty-only"):
        if _flag(values, key, False):
            raise Unsupported(f"key {key!r} of outputs is not supported")
    if found in (Kind.LOCAL, Kind.OCI) and not values.get("dest") and "tar" not in values:
        values.setdefault("dest", "-" if found is Kind.OCI else "")
    if found is Kind.LOCAL and not values["dest"]:
        raise InvalidParameter("dest is required for local output")
    mode = values.get("mode", "copy")
    if mode not in ("copy", "delete"):
        raise InvalidParameter(f"invalid mode {mode!r} of output: copy or delete")
    return _image(found, values, annotations, delete=mode == "delete")


def _image(
    kind: Kind, values: Mapping[str, str], annotations: tuple[Annotation, ...], *, delete: bool
) -> Output:
    compression = _compression(values.get("compression"))
    epoch = values.get("source-date-epoch", "")
    split = values.get("platform-split")
    names = [name for name in values.get("name", "").split(",") if name]
    if prefix := values.get("dangling-name-prefix"):
        names = names or [prefix]
    return Output(
        kind=kind,
        names=tuple(Reference.parse(name).with_default_tag() for name in names),
        destination=values.get("dest", ""),
        as_tar=_flag(values, "tar", True),
        push=_flag(values, "push", False),
        push_by_digest=_flag(values, "push-by-digest", False),
        insecure=_flag(values, "registry.insecure", False),
        store=_flag(values, "store", True) and not _flag(values, "push-by-digest", False),
        compression=compression,
        level=_level(values.get("compression-level"), compression),
        force_compression=_flag(values, "force-compression", False),
        oci_types=_flag(values, "oci-mediatypes", True),
        oci_artifact=_flag(values, "oci-artifact", _flag(values, "oci-mediatypes", True)),
        clamp=_flag(values, "rewrite-timestamp", True),
        epoch=_number("source-date-epoch", epoch) if epoch else None,
        inline_attestations=_flag(values, "attestation-inline", True),
        attestation_prefix=values.get("attestation-prefix", ""),
        platform_split=None if split is None else _flag(values, "platform-split", True),
        delete=delete,
        annotations=annotations,
    )


def _annotations(values: dict[str, str]) -> tuple[Annotation, ...]:
    """Take the annotations out of ``values``."""
    found: list[Annotation] = []
    for key in [key for key in values if key.startswith("annotation")]:
        match = _ANNOTATION.fullmatch(key)
        if match is None:
            raise InvalidParameter(f"invalid annotation {key!r}")
        scope, platform, name = match.groups()
        found.append(
            Annotation(
                scope=Scope(scope or "manifest"),
                platform=platform or "",
                key=name,
                value=values.pop(key),
            )
        )
    return tuple(found)


def parse_annotation(text: str) -> tuple[str, str]:
    """``--annotation [TYPE[PLATFORM],…:]KEY=VALUE`` as keys of an output, joined by newlines.

    Returns the attribute's name and its value; raises :class:`InvalidParameter`.
    """
    key, equals, value = text.partition("=")
    types, colon, name = key.rpartition(":")
    if not equals or not (name or key):
        raise InvalidParameter(f"invalid annotation {text!r}, expected key=value")
    if not colon:
        return f"annotation.{key}", value
    names = []
    for kind in types.split(","):
        if _ANNOTATION.fullmatch(f"annotation-{kind}.x") is None:
            raise InvalidParameter(f"unknown annotation type {kind!r}")
        names.append(f"annotation-{kind}.{name}")
    return "\n".join(names), value


def _flag(values: Mapping[str, str], key: str, default: bool) -> bool:
    text = values.get(key)
    if text is None:
        return default
    if text.lower() in ("", "1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise InvalidParameter(f"non-bool value {text!r} for {key}")


def _compression(text: str | None) -> Compression | None:
    if not text:
        return None
    if text not in _COMPRESSIONS:
        raise Unsupported(f"compression {text!r} is not supported: uncompressed, gzip or zstd")
    return _COMPRESSIONS[text]


def _level(text: str | None, compression: Compression | None) -> int | None:
    if not text:
        return None
    level = _number("compression-level", text)
    most = _LEVELS[compression or Compression.GZIP]
    if level > most:
        raise InvalidParameter(f"compression level {level} is not in 0..{most}")
    return level


def _number(key: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal():
        raise InvalidParameter(f"invalid {key}: {text!r}")
    return int(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """Which attestations a build carries.

    ``provenance`` is ``""`` (none), ``min`` or ``max``; ``version`` the SLSA predicate's, ``v1`` or
    ``v0.2``.
    """

    provenance: str = ""
    version: str = "v1"
    builder_id: str = ""
    reproducible: bool = False
    sbom: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


def attest(attributes: Mapping[str, str]) -> Attest:
    """The attestations of BuildKit's ``attest:provenance`` and ``attest:sbom`` options.

    ``attributes`` maps ``provenance`` and ``sbom`` to their CSV text (``""`` for the defaults).
    Raises :class:`InvalidParameter`, :class:`Unsupported`.
    """
    found = Attest()
    for kind, text in attributes.items():
        values = dict(
            (entry.partition("=")[0], entry.partition("=")[2])
            for entry in next(csv.reader([text]), [])
            if entry
        )
        if _flag(values, "disabled", False):
            continue
        values.pop("disabled", None)
        if kind == "provenance":
            found = _provenance(found, values)
        elif kind == "sbom":
            if generator := values.pop("generator", ""):
                raise Unsupported(f"SBOM generator {generator!r}: the built-in scanner is used")
            _none_left(kind, values)
            found = Attest(
                provenance=found.provenance,
                version=found.version,
                builder_id=found.builder_id,
                reproducible=found.reproducible,
                sbom=True,
            )
        else:
            raise Unsupported(f"attestation type {kind!r} is not supported")
    return found


def _provenance(found: Attest, values: dict[str, str]) -> Attest:
    mode = values.pop("mode", "min")
    version = values.pop("version", "v1")
    if mode not in ("min", "max"):
        raise InvalidParameter(f"invalid provenance mode {mode!r}: min or max")
    if version not in ("v1", "v0.2"):
        raise InvalidParameter(f"invalid SLSA provenance version {version!r}: v1 or v0.2")
    builder = values.pop("builder-id", "")
    reproducible = _flag(values, "reproducible", False)
    values.pop("reproducible", None)
    if _flag(values, "inline-only", False):
        raise Unsupported("provenance key 'inline-only' is not supported")
    values.pop("inline-only", None)
    _none_left("provenance", values)
    return Attest(
        provenance=mode,
        version=version,
        builder_id=builder,
        reproducible=reproducible,
        sbom=found.sbom,
    )


def _none_left(kind: str, values: Mapping[str, str]) -> None:
    for key in values:
        raise Unsupported(f"key {key!r} of attestation {kind!r} is not supported")
