"""Volumes of a plugin: Docker's volume plugin protocol (``VolumeDriver.*``).

The plugin keeps the data and knows where it is mounted; names, labels and options are kept by
:class:`sampan.volume.local.LocalVolumes` beside those of our own volumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sampan.errors import NotFound, SampanError, StartFailed, Unavailable
from sampan.plugin.client import Answer, Plugin
from sampan.volume.model import Volume

INTERFACE = "VolumeDriver"


class RemoteVolumes:
    """The volumes of one plugin. Methods block for as long as the plugin takes."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.name = plugin.name
        self._scope = ""

    def create(self, name: str, options: Mapping[str, str]) -> None:
        """Have the plugin make a volume; raises the plugin's refusal."""
        self._call("Create", f"create {name}", patient=True, Name=name, Opts=dict(options))

    def remove(self, name: str) -> None:
        """Have the plugin delete a volume and its data."""
        self._call("Remove", f"remove {name}", Name=name)

    def mount(self, name: str, user: str) -> Path:
        """Have a volume mounted for ``user`` (a container's id); the directory it is at.

        Raises :class:`StartFailed`.
        """
        try:
            answer = self._call("Mount", f"mount {name}", patient=True, Name=name, ID=user)
        except SampanError as error:
            raise StartFailed(f"error while mounting volume '{name}': {error.message}") from error
        path = _path(answer)
        if not path.is_absolute():
            raise StartFailed(
                f"error while mounting volume '{name}': plugin {self.name} told no mount point"
            )
        return path

    def unmount(self, name: str, user: str) -> None:
        """Say that ``user`` does not need the volume any more."""
        self._call("Unmount", f"unmount {name}", Name=name, ID=user)

    def get(self, name: str) -> Volume:
        """What the plugin knows of a volume; raises :class:`NotFound` when it has none."""
        try:
            found = self._call("Get", f"get {name}", Name=name).get("Volume")
        except NotFound:
            raise
        except SampanError as error:
            raise NotFound(f"get {name}: {error.message}") from error
        if not isinstance(found, dict) or found.get("Name") != name:
            raise NotFound(f"get {name}: no such volume")
        return self._volume(found)

    def list(self) -> tuple[Volume, ...]:
        """All volumes the plugin has."""
        found = self._call("List", "list").get("Volumes")
        entries = found if isinstance(found, list) else []
        return tuple(self._volume(v) for v in entries if isinstance(v, dict) and v.get("Name"))

    def scope(self) -> str:
        """``local``, or ``global`` when every host sees the same volumes; asked once."""
        if not self._scope:
            try:
                told = self.plugin.call(f"{INTERFACE}.Capabilities").get("Capabilities")
            except Unavailable:
                return "local"
            except SampanError:  # an older plugin does not know the call
                told = None
            found = str(told.get("Scope", "")).lower() if isinstance(told, dict) else ""
            self._scope = found if found in ("local", "global") else "local"
        return self._scope

    def _volume(self, found: Mapping[str, object]) -> Volume:
        status = found.get("Status")
        return Volume(
            name=str(found["Name"]),
            mountpoint=_path(found),
            created_at=str(found.get("CreatedAt") or ""),
            driver=self.name,
            status=status if isinstance(status, dict) else {},
        )

    def _call(self, method: str, doing: str, *, patient: bool = False, **body: object) -> Answer:
        try:
            return self.plugin.call(f"{INTERFACE}.{method}", body, patient=patient)
        except SampanError as error:
            raise type(error)(f"{doing}: {error.message}") from error


def _path(found: Mapping[str, object]) -> Path:
    text = found.get("Mountpoint")
    return Path(text) if isinstance(text, str) else Path()
