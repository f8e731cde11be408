"""The client configuration file, ``config.json`` of Docker's CLI, shared with it.

Members this program does not know are kept as they are when the file is written.
"""

from __future__ import annotations

import os

from sampan.cli.fault import CliError
from sampan.client.document import labels, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sampan.client.document import Document

FILE = "config.json"


def directory(option: str, environment: Mapping[str, str]) -> str:
    """The configuration directory: ``--config``, ``DOCKER_CONFIG`` or ``~/.docker``."""
    home = environment.get("HOME") or os.path.expanduser("~")
    return option or environment.get("DOCKER_CONFIG", "") or os.path.join(home, ".docker")


class Config:
    """The parsed file; ``save`` writes it back."""

    def __init__(self, path: str, document: Document) -> None:
        self.path = path
        self.document = document

    @classmethod
    def load(cls, directory: str, warn: Callable[[str], None]) -> Config:
        """The configuration in ``directory``; a missing file is an empty one.

        An unreadable file is reported through ``warn`` and taken as empty, as Docker does.
        """
        path = os.path.join(directory, FILE)
        try:
            with open(path, encoding="utf-8") as file:
                content = file.read()
        except FileNotFoundError:
            return cls(path, {})
        except OSError as error:
            warn(f"WARNING: Error loading config file: open {path}: {error.strerror}")
            return cls(path, {})
        import json

        try:
            document = json.loads(content) if content.strip() else {}
        except ValueError as error:
            warn(f"WARNING: Error parsing config file ({path}): {error}")
            return cls(path, {})
        return cls(path, document if isinstance(document, dict) else {})

    @property
    def directory(self) -> str:
        """Where the file is."""
        return os.path.dirname(self.path)

    def text(self, key: str) -> str:
        """A string member."""
        return text(self.document, key)

    def table(self, key: str) -> Document:
        """An object member."""
        return table(self.document, key)

    def labels(self, key: str) -> dict[str, str]:
        """An object of strings."""
        return labels(self.document, key)

    def save(self) -> None:
        """Write the file atomically, readable by its owner only.

        Raises :class:`CliError`.
        """
        import json

        temporary = f"{self.path}.{os.getpid()}.tmp"
        try:
            os.makedirs(self.directory, 0o700, exist_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(self.document, file, indent="\t", ensure_ascii=False)
                file.write("\n")
                file.flush()
                os.fsync(descriptor)
            os.replace(temporary, os.path.realpath(self.path))
        except OSError as error:
            raise CliError(f"cannot write {self.path}: {error.strerror}") from error
