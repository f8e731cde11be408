"""Where a reference is fetched from: ``registries.conf`` version 2, mirrors, insecure hosts (pure).

``containers-registries.conf.d(5)`` semantics: the longest matching ``prefix`` decides; its
``location`` replaces the prefix; ``mirror`` tables are tried first, in order; ``blocked`` refuses.
``[aliases]`` and ``unqualified-search-registries`` concern names without a registry.
"""

from __future__ import annotations

import ipaddress
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from sampan.errors import Forbidden, InvalidParameter
from sampan.model.reference import DEFAULT_DOMAIN, Reference

#: The host that serves the API of Docker Hub, whose images are named docker.io.
HUB_HOST = "registry-1.docker.io"
From = Literal["all", "digest-only", "tag-only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A host and the name the repository has there.

    ``insecure`` allows unverified TLS and plain HTTP; ``scheme`` is ``https``, ``http``, or empty
    to try both as ``insecure`` allows. ``mirror`` says that the origin follows.
    """

    host: str
    repository: str
    scheme: str = ""
    insecure: bool = False
    mirror: bool = False

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes to try, in order."""
        if self.scheme:
            return (self.scheme,)
        return ("https", "http") if self.insecure else ("https",)


class _Mirror(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    location: str
    insecure: bool = False
    pull_from_mirror: From = "all"


class _Registry(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    location: str = ""
    prefix: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror: list[_Mirror] = []
    mirror_by_digest_only: bool = False
    pull_from_mirror: From = "all"


class _File(msgspec.Struct, rename="kebab"):
    unqualified_search_registries: list[str] = []
    registry: list[_Registry] = []
    aliases: dict[str, str] = {}
    short_name_mode: str = ""
    credential_helpers: list[str] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class Registries:
    """The configuration of registries.

    ``hub_mirrors`` are dockerd's ``--registry-mirror`` URLs; ``insecure`` are hosts, ``host:port``
    or CIDR blocks; loopback addresses always count as insecure, as with dockerd.
    """

    search: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    hub_mirrors: tuple[str, ...] = ()
    insecure: tuple[str, ...] = ()
    _tables: tuple[_Registry, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Registries:
        """A ``registries.conf`` of version 2; raises :class:`InvalidParameter`."""
        try:
            document = tomllib.loads(text)
            if "registries" in document:
                raise InvalidParameter("registries.conf is of version 1, which is not supported")
            file = msgspec.convert(document, _File)
        except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
            raise InvalidParameter(f"invalid registries.conf: {error}") from error
        for table in file.registry:
            if not table.location and not table.prefix:
                raise InvalidParameter("invalid registries.conf: a registry without location")
            if table.prefix.startswith("*.") and table.location and table.mirror:
                raise InvalidParameter(
                    "invalid registries.conf: a wildcard prefix cannot have a location"
                )
        return cls(
            search=tuple(file.unqualified_search_registries),
            aliases=dict(file.aliases),
            _tables=tuple(file.registry),
        )

    @classmethod
    def load(cls, path: Path, directories: Iterable[Path] = ()) -> Registries:
        """The configuration in ``path`` and the ``*.conf`` files of the drop-in ``directories``.

        A later file's tables for a prefix, aliases and search list replace an earlier's. What does
        not exist is empty. Raises :class:`InvalidParameter` naming the file.
        """
        found = [path] if path.exists() else []
        for directory in directories:
            found += sorted(directory.glob("*.conf")) if directory.is_dir() else []
        merged = cls()
        for file in found:
            try:
                merged = merged._merged(cls.parse(file.read_text()))
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidParameter(f"cannot read {file}: {error}") from error
            except InvalidParameter as error:
                raise InvalidParameter(f"{file}: {error.message}") from error
        return merged

    def _merged(self, later: Registries) -> Registries:
        replaced = {table.prefix or table.location for table in later._tables}
        kept = [item for item in self._tables if (item.prefix or item.location) not in replaced]
        return replace(
            self,
            search=later.search or self.search,
            aliases={**self.aliases, **later.aliases},
            _tables=(*kept, *later._tables),
        )

    def with_daemon_options(
        self, *, hub_mirrors: Sequence[str] = (), insecure: Sequence[str] = ()
    ) -> Registries:
        """This, with dockerd's ``--registry-mirror`` and ``--insecure-registry`` added."""
        return replace(
            self,
            hub_mirrors=self.hub_mirrors + tuple(hub_mirrors),
            insecure=self.insecure + tuple(insecure),
        )

    def resolve(self, text: str) -> Reference:
        """The reference a person wrote, with aliases applied to short names.

        A short name without alias is Docker Hub's, or the first search registry's.
        """
        return self.candidates(text)[0]

    def candidates(self, text: str) -> tuple[Reference, ...]:
        """What a person may have meant, to be tried in order; one unless it is a short name.

        Aliases are found by the familiar form of a name too, since Docker's clients write short
        names out; search lists are not, so that nobody's ``docker.io/x`` is looked for elsewhere.
        """
        reference = Reference.parse(text)
        for short in (text, reference.familiar):
            name, separator, suffix = _split(short)
            if alias := self.aliases.get(name):
                return (Reference.parse(f"{alias}{separator}{suffix}"),)
        if self.search and reference.domain == DEFAULT_DOMAIN and _is_short(text):
            return tuple(Reference.parse(f"{registry}/{text}") for registry in self.search)
        return (reference,)

    def endpoints(self, reference: Reference) -> tuple[Endpoint, ...]:
        """Where to pull ``reference`` from, mirrors first; raises :class:`Forbidden` if blocked."""
        name = reference.name
        table = self._table(name)
        if table is None:
            origin = self._endpoint(name, insecure=False)
            if reference.domain != DEFAULT_DOMAIN:
                return (origin,)
            return (*(self._hub_mirror(url, reference) for url in self.hub_mirrors), origin)
        if table.blocked:
            raise Forbidden(f"registry of {reference.familiar_name} is blocked by registries.conf")
        prefix = table.prefix or table.location
        rest = "" if prefix.startswith("*.") else name.removeprefix(prefix)
        mirrors = [
            replace(self._endpoint(mirror.location + rest, insecure=mirror.insecure), mirror=True)
            for mirror in table.mirror
            if self._serves(mirror, table, reference)
        ]
        location = name if prefix.startswith("*.") else (table.location or prefix) + rest
        return (*mirrors, self._endpoint(location, insecure=table.insecure))

    def push_endpoint(self, reference: Reference) -> Endpoint:
        """Where to push to: never a mirror. Raises :class:`Forbidden` if blocked."""
        return self.endpoints(reference)[-1]

    def _table(self, name: str) -> _Registry | None:
        best: tuple[int, _Registry] | None = None
        host = name.partition("/")[0]
        for table in self._tables:
            prefix = table.prefix or table.location
            if prefix.startswith("*."):
                matches = host.endswith(prefix[1:])
            else:
                matches = name == prefix or (
                    name.startswith(prefix) and name[len(prefix) : len(prefix) + 1] in "/:@"
                )
            if matches and (best is None or len(prefix) > best[0]):
                best = len(prefix), table
        return best and best[1]

    @staticmethod
    def _serves(mirror: _Mirror, table: _Registry, reference: Reference) -> bool:
        wanted: From = "digest-only" if table.mirror_by_digest_only else mirror.pull_from_mirror
        if wanted == "all":
            return True
        return (reference.digest is not None) == (wanted == "digest-only")

    def _endpoint(self, name: str, *, insecure: bool) -> Endpoint:
        host, _, repository = name.partition("/")
        scheme = ""
        if host == DEFAULT_DOMAIN:
            host, scheme = HUB_HOST, "https"
        return Endpoint(
            host=host,
            repository=repository,
            scheme=scheme,
            insecure=insecure or self.is_insecure(host),
        )

    def _hub_mirror(self, url: str, reference: Reference) -> Endpoint:
        scheme, separator, host = url.rstrip("/").rpartition("://")
        if separator and scheme not in ("http", "https"):
            raise InvalidParameter(f"invalid mirror {url!r}: unsupported scheme")
        return Endpoint(
            host=host,
            repository=reference.path,
            scheme=scheme or "https",
            insecure=self.is_insecure(host),
            mirror=True,
        )

    def is_insecure(self, host: str) -> bool:
        """Whether ``host`` (``host[:port]``) may be reached without verified TLS."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.removeprefix("[").removesuffix("]")
        if host in self.insecure or name in self.insecure or name == "localhost":
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        if address.is_loopback:
            return True
        return any(address in block for block in map(_network, self.insecure) if block is not None)


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _split(text: str) -> tuple[str, str, str]:
    """Name, separator and tag or digest."""
    name, at, digest = text.partition("@")
    if at:
        return name, at, digest
    colon = text.rfind(":")
    if colon > text.rfind("/"):
        return text[:colon], ":", text[colon + 1 :]
    return text, "", ""


def _is_short(text: str) -> bool:
    first, slash, _ = text.partition("/")
    return not (slash and ("." in first or ":" in first or first == "localhost"))
