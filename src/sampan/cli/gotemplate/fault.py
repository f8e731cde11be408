"""What can be wrong with a template."""

from __future__ import annotations


class TemplateError(Exception):
    """A template does not parse or does not fit its data; the message is Go's."""

    @property
    def message(self) -> str:
        """The message."""
        return str(self)


class ParseError(TemplateError):
    """``template: :1: unclosed action``."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"template: :{line}: {message}")
        self.line = line
        self.reason = message

    def named(self, name: str) -> TemplateError:
        """The same, of a template that has a name."""
        return TemplateError(f"template: {name}:{self.line}: {self.reason}")
