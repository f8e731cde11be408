"""Here-documents of RUN, COPY and ADD (spec/dockerfile/reference.md, "Here-Documents").

heredoc ::= [ digits ] "<<" [ "-" ] name | [ digits ] "<<" [ "-" ] quote name quote
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_HEREDOC = re.compile(r"(\d*)<<(-?)([^<]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heredoc:
    """One here-document; ``expand`` is off when the delimiter was quoted.

    ``strip_tabs`` (``<<-``) has been applied to ``content``; ``descriptor`` is the number before
    ``<<`` (0 when none).
    """

    name: str
    expand: bool
    strip_tabs: bool
    descriptor: int = 0
    content: str = ""


def heredoc_of(word: str) -> Heredoc | None:
    """The here-document that a word announces, if it does."""
    match = _HEREDOC.fullmatch(word)
    if match is None:
        return None
    name = match[3]
    bare = re.sub(r"""(["'])(.*?)\1|\\(.)""", lambda found: found[2] or found[3] or "", name)
    if not bare or any(char.isspace() for char in bare) or "'" in bare or '"' in bare:
        return None
    return Heredoc(
        name=bare,
        expand=bare == name,
        strip_tabs=bool(match[2]),
        descriptor=int(match[1] or 0),
    )


def heredocs_of(line: str, escape: str) -> Iterator[Heredoc]:
    """The here-documents announced on an ADD, COPY or RUN line (also behind ONBUILD), in order."""
    match = re.match(r"\s*(?:onbuild\s+)?(?:add|copy|run)\s+(.*)", line, re.IGNORECASE | re.DOTALL)
    if match is None or "<<" not in line:
        return
    for word in _shell_words(match[1], escape):
        heredoc = heredoc_of(word)
        if heredoc is not None:
            yield heredoc


def _shell_words(text: str, escape: str) -> Iterator[str]:
    """Words as a shell sees them, quotes and escapes kept; a quoted ``<<`` announces nothing."""
    current = quote = ""
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if not quote and char.isspace():
            if current:
                yield current
            current = ""
            continue
        if char == escape and quote != "'" and at < len(text):
            char += text[at]
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        current += char
    if current:
        yield current
