"""Source policies: which sources a build may use, and which instead (pure).

Rules are tried in order. ``ALLOW`` and ``DENY``: the last that matches counts. ``CONVERT`` puts
another source in the place of the one asked for, which is then judged anew. Sources are named as
BuildKit names them: ``docker-image://docker.io/library/busybox:latest``, ``git://HOST/PATH#REF``,
``https://…``. Reference: build.md section 10; spec/buildkit/sourcepolicy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from sampan.build.remote import GitSource
from sampan.errors import Forbidden, InvalidParameter, Unsupported
from sampan.model.reference import Reference

IMAGE, GIT = "docker-image://", "git://"
CHECKSUM = {"http": "http.checksum", "https": "http.checksum", "git": "git.checksum"}
#: Conversions of one source after which a policy is taken to be a circle.
_MOST = 20


class Action(Enum):
    """What a rule does."""

    ALLOW = "allow"
    DENY = "deny"
    CONVERT = "convert"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule: ``pattern`` names the source, ``*`` standing for anything unless ``exact``.

    ``equal`` and ``unequal`` are attributes the source must and must not have. A conversion is to
    ``replacement`` (in which ``$1`` is what the first ``*`` stood for; "": the source stays) with
    ``attributes``.
    """

    action: Action
    pattern: str
    exact: bool = False
    equal: Sequence[tuple[str, str]] = ()
    unequal: Sequence[tuple[str, str]] = ()
    replacement: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "**" in self.pattern and not self.exact:
            raise InvalidParameter(f'source policy: invalid wildcard: "**" in {self.pattern!r}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A source a build asks for."""

    identifier: str
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def scheme(self) -> str:
        """``docker-image``, ``git``, ``https`` …"""
        return self.identifier.partition("://")[0]

    @property
    def checksum(self) -> str:
        """The checksum it must have, "" for any."""
        return self.attributes.get(CHECKSUM.get(self.scheme, ""), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """The rules of one build."""

    rules: Sequence[Rule] = ()

    def judge(self, asked: Asked) -> Asked:
        """What is used instead of a source, or itself. Raises Forbidden, InvalidParameter."""
        for _ in range(_MOST + 1):
            other = self._converted(asked)
            if other is None:
                return asked
            asked = other
        raise InvalidParameter("source policy: too many mutations on a single source")

    def _converted(self, asked: Asked) -> Asked | None:
        denied = False
        for rule in self.rules:
            found = _matched(rule, asked)
            if found is None:
                continue
            if rule.action is not Action.CONVERT:
                denied = rule.action is Action.DENY
                continue
            target = _expanded(rule.replacement or rule.pattern, found)
            if not rule.replacement and "*" in rule.pattern:
                target = asked.identifier
            other = Asked(identifier=target, attributes={**asked.attributes, **rule.attributes})
            if other != asked:
                return other
        if denied:
            raise Forbidden(f"source {asked.identifier!r} denied by policy")
        return None

    def image(self, reference: str) -> str:
        """The reference of the image to use instead of one. Raises Forbidden, Unsupported."""
        if not self.rules:
            return reference
        named = Reference.parse(reference).with_default_tag()
        judged = self.judge(Asked(identifier=f"{IMAGE}{named}"))
        if judged.scheme != "docker-image":
            raise Unsupported(f"source policy: an image cannot become {judged.identifier!r}")
        other = judged.identifier.removeprefix(IMAGE)
        return reference if other == str(named) else other

    def address(self, address: str, checksum: str = "") -> tuple[str, str]:
        """The http(s) address and its checksum to use instead. Raises Forbidden, Unsupported."""
        given = {"http.checksum": checksum} if checksum else {}
        judged = self.judge(Asked(identifier=address, attributes=given))
        if judged.scheme not in ("http", "https"):
            raise Unsupported(f"source policy: an address cannot become {judged.identifier!r}")
        return judged.identifier, judged.checksum

    def repository(self, source: GitSource) -> GitSource:
        """The repository to use instead. Raises Forbidden, Unsupported."""
        place = source.repository.partition("://")[2] or source.repository
        fragment = ":".join(part for part in (source.ref, source.subdirectory) if part)
        identifier = f"{GIT}{place}" + (f"#{fragment}" if fragment else "")
        given = {"git.fullurl": source.repository}
        if source.checksum:
            given["git.checksum"] = source.checksum
        judged = self.judge(Asked(identifier=identifier, attributes=given))
        if judged.identifier != identifier:
            raise Unsupported("source policy: conversions of git repositories to others")
        return replace(source, checksum=judged.checksum)


def _matched(rule: Rule, asked: Asked) -> list[str] | None:
    """What the pattern's ``*`` stand for; None when the rule does not match."""
    attributes = asked.attributes
    if any(attributes.get(key, "") != value for key, value in rule.equal):
        return None
    if any(attributes.get(key, "") == value for key, value in rule.unequal):
        return None
    if rule.pattern == asked.identifier:
        return []
    return None if rule.exact else _captured(rule.pattern.split("*"), asked.identifier)


def _captured(parts: Sequence[str], text: str) -> list[str] | None:
    """What lies between ``parts`` in a text, each as long as can be; None where they are not."""
    first, *rest = parts
    if not text.startswith(first) or (not rest and text != first):
        return None
    if not rest:
        return []
    text = text[len(first) :]
    found: list[str] = []
    for number, part in reversed(list(enumerate(rest))):
        if number == len(rest) - 1:
            if not text.endswith(part):
                return None
            text = text[: len(text) - len(part)]
        if number == 0:
            found.append(text)
            break
        at = text.rfind(rest[number - 1])
        if at < 0:
            return None
        found.append(text[at + len(rest[number - 1]) :])
        text = text[:at]
    return found[::-1]


def _expanded(text: str, captured: Sequence[str]) -> str:
    """``$1`` and ``${1}`` in a text replaced."""
    for number in range(len(captured), 0, -1):
        text = text.replace(f"${{{number}}}", captured[number - 1])
        text = text.replace(f"${number}", captured[number - 1])
    return text
