"""The store of contexts (named daemon addresses), in the files of Docker's CLI.

``contexts/meta/<sha256 of the name>/meta.json`` is the description of a context,
``contexts/tls/<the same>/docker/{ca,cert,key}.pem`` its TLS material.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from sampan.cli.fault import CliError
from sampan.client.document import as_table, flag, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document

DEFAULT = "default"
TLS_NAMES = ("ca.pem", "cert.pem", "key.pem")


class Context(NamedTuple):
    """A named daemon address."""

    name: str
    description: str = ""
    host: str = ""
    skip_tls_verify: bool = False
    #: Members of ``Metadata`` besides the description.
    metadata: tuple[tuple[str, str], ...] = ()
    #: Other endpoint types, as they are stored.
    meta_path: str = ""
    tls_path: str = ""
    tls_files: tuple[str, ...] = ()

    def document(self) -> Document:
        """The content of ``meta.json``."""
        metadata: Document = dict(self.metadata)
        if self.description:
            metadata["Description"] = self.description
        return {"Name": self.name, "Metadata": metadata, "Endpoints": self.endpoints()}

    def endpoints(self) -> Document:
        """The ``Endpoints`` member."""
        endpoint: Document = {"Host": self.host} if self.host else {}
        return {"docker": {**endpoint, "SkipTLSVerify": self.skip_tls_verify}}


class ContextStore:
    """The contexts below a configuration directory."""

    def __init__(self, config_directory: str) -> None:
        self._root = os.path.join(config_directory, "contexts")

    def names(self) -> list[str]:
        """The names of all stored contexts, sorted."""
        return sorted(context.name for context in self.all())

    def all(self) -> list[Context]:
        """Every stored context, sorted by name."""
        root = os.path.join(self._root, "meta")
        try:
            directories = os.listdir(root)
        except FileNotFoundError:
            return []
        found = [self._read(os.path.join(root, name)) for name in directories]
        return sorted((context for context in found if context), key=lambda item: item.name)

    def get(self, name: str) -> Context:
        """The context called ``name``. Raises :class:`CliError` when there is none."""
        validate_name(name)
        context = self._read(self._meta(name))
        if context is None:
            message = f'context "{name}": context not found: open {self._meta(name)}/meta.json: '
            raise CliError(message + "no such file or directory")
        return context

    def exists(self, name: str) -> bool:
        """Whether there is a context called ``name``."""
        return os.path.exists(os.path.join(self._meta(name), "meta.json"))

    def save(self, context: Context, tls: dict[str, bytes] | None) -> None:
        """Write a context; ``tls`` replaces its TLS files unless None."""
        import json

        validate_name(context.name)
        content = json.dumps(context.document(), separators=(",", ":")).encode()
        _write(os.path.join(self._meta(context.name), "meta.json"), content)
        if tls is None:
            return
        directory = os.path.join(self._tls(context.name), "docker")
        _remove_tree(directory)
        for name, data in tls.items():
            _write(os.path.join(directory, name), data)

    def remove(self, name: str) -> None:
        """Remove a context and its TLS files."""
        self.get(name)
        _remove_tree(self._tls(name))
        _remove_tree(self._meta(name))

    def tls_material(self, context: Context) -> dict[str, bytes]:
        """The TLS files of a context, by file name."""
        material = {}
        for name in context.tls_files:
            with open(os.path.join(context.tls_path, "docker", name), "rb") as file:
                material[name] = file.read()
        return material

    def _meta(self, name: str) -> str:
        return os.path.join(self._root, "meta", _key(name))

    def _tls(self, name: str) -> str:
        return os.path.join(self._root, "tls", _key(name))

    def _read(self, directory: str) -> Context | None:
        import json

        try:
            with open(os.path.join(directory, "meta.json"), "rb") as file:
                document = as_table(json.loads(file.read()))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CliError(f"cannot read {directory}/meta.json: {error}") from error
        name = text(document, "Name")
        endpoint = table(table(document, "Endpoints"), "docker")
        metadata = table(document, "Metadata")
        tls_path = self._tls(name)
        return Context(
            name=name,
            description=text(metadata, "Description"),
            host=text(endpoint, "Host"),
            skip_tls_verify=flag(endpoint, "SkipTLSVerify"),
            metadata=tuple(
                (key, value)
                for key, value in metadata.items()
                if key != "Description" and isinstance(value, str)
            ),
            meta_path=self._meta(name),
            tls_path=tls_path,
            tls_files=tuple(
                name for name in TLS_NAMES if os.path.exists(os.path.join(tls_path, "docker", name))
            ),
        )


def validate_name(name: str) -> None:
    """Raise :class:`CliError` unless ``name`` may name a stored context."""
    if not name:
        raise CliError("context name cannot be empty")
    if name == DEFAULT:
        raise CliError('"default" is a reserved context name')
    allowed = all(c.isascii() and (c.isalnum() or c in "_.+-") for c in name)
    if not allowed or not name[0].isalnum() or len(name) < 2:
        pattern = "^[a-zA-Z0-9][a-zA-Z0-9_.+-]+$"
        raise CliError(
            f'context name "{name}" is invalid, names are validated against regexp "{pattern}"'
        )


def _key(name: str) -> str:
    import hashlib

    return hashlib.sha256(name.encode()).hexdigest()


def _write(path: str, content: bytes) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    temporary = f"{path}.{os.getpid()}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    os.replace(temporary, path)


def _remove_tree(path: str) -> None:
    import shutil

    if os.path.isdir(path):
        shutil.rmtree(path)
