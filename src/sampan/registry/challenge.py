"""``WWW-Authenticate`` headers (RFC 9110 section 11.6.1), read strictly enough to be safe.

challenges ::= challenge *( "," challenge )
challenge  ::= scheme [ 1*SP ( token68 / param *( "," param ) ) ]
param      ::= token "=" ( token / quoted-string )
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAM = re.compile(rf'\s*({_TOKEN})\s*=\s*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)")')
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?=$|[\s,])")
_COMMA = re.compile(r"\s*,")
_MAX = 16 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """A scheme (lower case) and its parameters (names in lower case)."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)


def parse(headers: Iterable[str]) -> Iterator[Challenge]:
    """The challenges in the values of ``WWW-Authenticate`` headers, as far as they can be read."""
    for header in headers:
        position = 0
        text = header[:_MAX]
        while match := _SCHEME.match(text, position):
            position = match.end()
            parameters: dict[str, str] = {}
            while param := _PARAM.match(text, position):
                quoted = param[3]
                value = param[2] if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                parameters.setdefault(param[1].lower(), value)
                position = param.end()
                comma = _COMMA.match(text, position)
                # A comma may also separate the next challenge, which has no "=" after its word.
                if comma and _PARAM.match(text, comma.end()):
                    position = comma.end()
            yield Challenge(scheme=match[1].lower(), parameters=parameters)
