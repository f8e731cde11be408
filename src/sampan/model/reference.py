"""Image references and their normalisation as the Docker CLI does it.

reference  ::= name [ ":" tag ] [ "@" digest ]
name       ::= [ domain "/" ] path-component ( "/" path-component )*
domain     ::= host [ ":" port ]
tag        ::= [A-Za-z0-9_][A-Za-z0-9_.-]{0,127}

(github.com/distribution/reference; OCI distribution spec "Pulling manifests".)
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from sampan.errors import InvalidParameter
from sampan.model.digest import Digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
#: what dockerd says, word for word: clients compare
_MALFORMED = "invalid reference format"
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised image reference: domain and path are always present."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """The reference a person wrote, normalised (``debian`` is ``docker.io/library/debian``).

        No tag is added; see :meth:`with_default_tag`. Raises :class:`InvalidParameter`.
        """
        if not text:
            raise InvalidParameter("invalid reference format: repository name is empty")
        if _IDENTIFIER.fullmatch(text):
            raise InvalidParameter(
                f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings"
            )
        name, at, digest_text = text.partition("@")
        digest = _digest(text, digest_text) if at else None
        tag = ""
        colon = name.rfind(":")
        if colon > name.rfind("/"):
            name, tag = name[:colon], name[colon + 1 :]
            if not _TAG.fullmatch(tag):
                raise InvalidParameter(_MALFORMED)
        first, slash, rest = name.partition("/")
        if slash and (
            "." in first or ":" in first or first == "localhost" or first.lower() != first
        ):
            domain, path = first, rest
        else:
            domain, path = DEFAULT_DOMAIN, name
        if domain == "index.docker.io":
            domain = DEFAULT_DOMAIN
        if domain == DEFAULT_DOMAIN and "/" not in path:
            path = f"library/{path}"
        if path.lower() != path:
            raise InvalidParameter(
                f"invalid reference format: repository name ({path.removeprefix('library/')}) "
                "must be lowercase"
            )
        if not _DOMAIN.fullmatch(domain) or not _PATH.fullmatch(path) or len(path) > 255:
            raise InvalidParameter(_MALFORMED)
        return cls(domain, path, tag, digest)

    def with_default_tag(self) -> Reference:
        """This reference, with ``latest`` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return replace(self, tag=DEFAULT_TAG)

    @property
    def name(self) -> str:
        """Domain and path."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: Docker Hub's parts left out."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        return self.path.removeprefix("library/") if self.path.count("/") == 1 else self.path

    @property
    def familiar(self) -> str:
        """The whole reference as people write it."""
        return self.familiar_name + self._suffix()

    def scopes(self) -> tuple[str, ...]:
        """What configurations may call it by, the most particular first, down to the host.

        (containers-policy.json(5), containers-registries.d(5).)
        """
        found = [str(self)]
        name = self.name
        while name:
            if name != found[-1]:
                found.append(name)
            name = name.rpartition("/")[0]
        return tuple(found)

    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{tag}@{self.digest}" if self.digest else tag

    def __str__(self) -> str:
        return self.name + self._suffix()


def _digest(text: str, digest: str) -> Digest:
    try:
        return Digest.parse(digest)
    except InvalidParameter as error:
        raise InvalidParameter(f"invalid reference format: {text!r}: {error.message}") from error
