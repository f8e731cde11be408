"""The flag parser: POSIX/GNU flags as Docker's commands take them.

flags ::= "--name" | "--name=value" | "--name" value | "-abc" | "-n" value | "-nvalue" | "-n=value"

``--`` ends the flags. A command that is not ``interspersed`` also ends them at its first
positional argument. Errors have Docker's wording and exit status 125.
"""

from __future__ import annotations

from sampan.cli.arguments import Arguments
from sampan.cli.fault import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sampan.cli.command import Flag


class HelpRequested(Exception):
    """``--help`` (or the old ``-h``) was among the flags."""

    def __init__(self, *, deprecated: bool) -> None:
        super().__init__()
        self.deprecated = deprecated


class FlagParser:
    """One pass over a command's words."""

    def __init__(
        self, flags: tuple[Flag, ...], *, interspersed: bool, warn: Callable[[str], None]
    ) -> None:
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._interspersed = interspersed
        self._warn = warn
        self._values: dict[str, object] = {}
        self._changed: set[str] = set()
        for flag in flags:
            if flag.default and not flag.target and not flag.kind.many:
                self._values[flag.name] = flag.kind.parse(flag.default)

    def parse(self, words: list[str]) -> Arguments:
        """The arguments in ``words``.

        Raises :class:`UsageError`, :class:`HelpRequested`.
        """
        positional: list[str] = []
        rest = list(reversed(words))
        while rest:
            word = rest.pop()
            if word == "--":
                positional += reversed(rest)
                break
            if word.startswith("--"):
                self._take_long(word, rest)
            elif word.startswith("-") and word != "-":
                self._take_short(word, rest)
            else:
                positional.append(word)
                if not self._interspersed:
                    positional += reversed(rest)
                    break
        return Arguments(self._values, frozenset(self._changed), positional)

    def _take_long(self, word: str, rest: list[str]) -> None:
        name, equals, value = word[2:].partition("=")
        if not name or name.startswith(("-", "=")):
            raise UsageError(f"bad flag syntax: {word}", 125, bare=True)
        flag = self._long.get(name)
        if flag is None:
            if name == "help":
                raise HelpRequested(deprecated=False)
            raise UsageError(f"unknown flag: --{name}", 125, bare=True)
        if not equals:
            if flag.kind.switch:
                value = "true"
            elif rest:
                value = rest.pop()
            else:
                raise UsageError(f"flag needs an argument: --{name}", 125, bare=True)
        self._set(flag, value)

    def _take_short(self, word: str, rest: list[str]) -> None:
        letters = word[1:]
        while letters:
            word = f"-{letters}"
            letter, letters = letters[0], letters[1:]
            flag = self._short.get(letter)
            if flag is None:
                if letter == "h":
                    raise HelpRequested(deprecated=True)
                message = f"unknown shorthand flag: {_quoted(letter)} in {word}"
                raise UsageError(message, 125, bare=True)
            if letters.startswith("=") and len(letters) > 1:
                value, letters = letters[1:], ""
            elif flag.kind.switch:
                value = "true"
            elif letters:
                value, letters = letters, ""
            elif rest:
                value = rest.pop()
            else:
                message = f"flag needs an argument: {_quoted(letter)} in {word}"
                raise UsageError(message, 125, bare=True)
            self._set(flag, value)

    def _set(self, flag: Flag, text: str) -> None:
        try:
            value = flag.kind.parse(text)
        except ValueError as error:
            names = f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"
            message = f'invalid argument "{text}" for "{names}" flag: {error}'
            raise UsageError(message, 125, bare=True) from error
        if flag.deprecated:
            self._warn(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")
        self._changed.add(flag.key)
        if not flag.kind.many:
            self._values[flag.key] = value
            return
        collected = self._values.setdefault(flag.key, [])
        assert isinstance(collected, list)
        if isinstance(value, list):
            collected.extend(value)
        else:
            collected.append(value)


def _quoted(letter: str) -> str:
    return f"'{letter}'"
