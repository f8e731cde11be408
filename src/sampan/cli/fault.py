"""How a command ends when it does not end well."""

from __future__ import annotations

from sampan.errors import SampanError


class CliError(SampanError):
    """A fault found on this side; the message is printed as it is.

    An empty message means that everything was said already.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


class UsageError(CliError):
    """The command line is wrong; the message is followed by a hint where to look.

    ``bare`` messages (unknown flag, invalid value) carry no program name, as in Docker.
    """

    def __init__(
        self, message: str, code: int = 1, *, bare: bool = False, hint: str = "Run"
    ) -> None:
        super().__init__(message, code)
        self.bare = bare
        self.hint = hint


class ExitStatus(CliError):
    """The command ends with this status and says nothing more."""

    def __init__(self, code: int) -> None:
        super().__init__("", code)
