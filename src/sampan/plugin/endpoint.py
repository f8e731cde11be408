"""Where plugins listen: what the plugin directories say (Docker, "Plugin API: discovery").

    NAME.sock, NAME/NAME.sock   the socket itself
    NAME.spec                   an address: unix:///path/to.sock or tcp://host:port
    NAME.json                   {"Name": ..., "Addr": ADDRESS, "TLSConfig": {...}}

Sockets win over the other two; earlier directories win over later ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from sampan.errors import InvalidParameter, NotFound

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_MAX_SPEC = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Files of a TCP plugin's TLS; ``verify`` False accepts any certificate."""

    verify: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginAddress:
    """One plugin's address: ``socket`` is a path, else ``host`` and ``port`` count."""

    name: str
    socket: str = ""
    host: str = ""
    port: int = 0
    tls: Tls | None = None


def find(name: str, directories: Sequence[Path]) -> PluginAddress:
    """The address of the plugin ``name``.

    Raises :class:`NotFound` (``plugin "x" not found``), :class:`InvalidParameter` for a file that
    cannot be understood.
    """
    if _NAME.fullmatch(name):
        for directory in directories:
            for path in (directory / f"{name}.sock", directory / name / f"{name}.sock"):
                if path.is_socket():
                    return PluginAddress(name=name, socket=str(path))
        for directory in directories:
            for suffix, read in ((".spec", _spec), (".json", _json)):
                for path in (directory / f"{name}{suffix}", directory / name / f"{name}{suffix}"):
                    if path.is_file():
                        return read(name, path)
    raise NotFound(f'plugin "{name}" not found')


def names(directories: Sequence[Path]) -> tuple[str, ...]:
    """Names of all plugins the directories tell of, sorted."""
    found: set[str] = set()
    for directory in directories:
        if not directory.is_dir():
            continue
        for path in directory.iterdir():
            inner = (path / f"{path.name}.sock", path / f"{path.name}.spec")
            if path.suffix in (".sock", ".spec", ".json"):
                found.add(path.stem)
            elif path.is_dir() and any(file.exists() for file in inner):
                found.add(path.name)
    return tuple(sorted(name for name in found if _NAME.fullmatch(name)))


def parse_address(name: str, text: str, tls: Tls | None = None) -> PluginAddress:
    """An address ``unix:///path`` or ``tcp://host:port`` (pure); raises InvalidParameter."""
    parts = urlsplit(text.strip())
    if parts.scheme == "unix" and not parts.netloc and parts.path.startswith("/"):
        return PluginAddress(name=name, socket=parts.path)
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme in ("tcp", "http", "https") and parts.hostname and port:
        secure = tls if tls is not None else (Tls() if parts.scheme == "https" else None)
        return PluginAddress(name=name, host=parts.hostname, port=port, tls=secure)
    raise InvalidParameter(f"plugin {name}: invalid address {text.strip()!r}")


def _spec(name: str, path: Path) -> PluginAddress:
    return parse_address(name, _read(path))


def _json(name: str, path: Path) -> PluginAddress:
    try:
        document = json.loads(_read(path))
        address = str(document["Addr"])
        given = document.get("TLSConfig")
        tls = given and Tls(
            verify=not given.get("InsecureSkipVerify", False),
            ca=str(given.get("CAFile") or ""),
            certificate=str(given.get("CertFile") or ""),
            key=str(given.get("KeyFile") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidParameter(f"plugin {name}: {path} cannot be understood: {error}") from error
    return parse_address(str(document.get("Name") or name), address, tls or None)


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            return file.read(_MAX_SPEC)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameter(f"plugin file {path} cannot be read: {error}") from error
