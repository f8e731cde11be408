"""``--env``, ``--env-file``, ``--label``, ``--label-file`` and other ``key=value`` lists."""

from __future__ import annotations

from sampan.cli.command import Kind
from sampan.cli.fault import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_BLANK = " \t"


def validate_env(text: str) -> str:
    """``NAME`` or ``NAME=value``. Raises ``ValueError``."""
    if not text or text.startswith("="):
        raise ValueError(f"invalid environment variable: {text}")
    return text


def validate_label(text: str) -> str:
    """``key`` or ``key=value``. Raises ``ValueError``."""
    key = text.partition("=")[0]
    if not key.strip():
        raise ValueError(f"invalid label '{text}': empty name")
    if key != key.strip():
        raise ValueError(f"invalid label '{text}': leading or trailing whitespace in name")
    return text


ENV = Kind("list", validate_env, many=True)
LABEL = Kind("list", validate_label, many=True)


def read_file(path: str, environment: Mapping[str, str] | None) -> list[str]:
    """The entries of an env or label file: one a line, ``#`` comments and blank lines left out.

    A bare name takes its value from ``environment`` and is left out when it has none there; with
    None it stays bare (labels). Raises :class:`CliError`.
    """
    try:
        with open(path, "rb") as file:
            content = file.read().removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise CliError(f"open {path}: {error.strerror and error.strerror.lower()}") from error
    entries = []
    for number, raw in enumerate(content.split(b"\n"), 1):
        try:
            line = raw.decode().removesuffix("\r").lstrip(_BLANK)
        except UnicodeDecodeError:
            message = f"env file {path} contains invalid utf8 bytes at line {number}: {raw!r}"
            raise CliError(message) from None
        if not line or line.startswith("#"):
            continue
        name, equals, _value = line.partition("=")
        if not name:
            raise CliError(f"invalid variable: no variable name on line '{line}'")
        if any(blank in name for blank in _BLANK):
            raise CliError(f"invalid variable: variable '{name}' contains whitespaces")
        if equals:
            entries.append(line)
        elif environment is None:
            entries.append(name)
        elif name in environment:
            entries.append(f"{name}={environment[name]}")
    return entries


def read_environment(
    files: list[str], entries: list[str], environment: Mapping[str, str]
) -> list[str]:
    """The variables of files, then those of flags; a bare flag takes the client's value."""
    found = [entry for path in files for entry in read_file(path, environment)]
    for entry in entries:
        bare = "=" not in entry and entry in environment
        found.append(f"{entry}={environment[entry]}" if bare else entry)
    return found


def read_labels(files: list[str], entries: list[str]) -> dict[str, str]:
    """The labels of files, then those of flags; the last of equal keys wins."""
    found = [entry for path in files for entry in read_file(path, None)]
    return to_map([*found, *entries])


def to_map(entries: list[str]) -> dict[str, str]:
    """``key=value`` entries as a map; a bare key has an empty value."""
    pairs = (entry.partition("=") for entry in entries)
    return {key: value for key, _equals, value in pairs}
