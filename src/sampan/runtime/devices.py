"""Which device nodes a container gets (pure)."""

from __future__ import annotations

import posixpath

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model import oci

#: Minor numbers of the character devices with major number 1.
_MEMORY = {"null": 3, "zero": 5, "full": 7, "random": 8, "urandom": 9}


def default_devices() -> list[oci.Device]:
    """Those every container has (config-linux.md "Default Devices"), but /dev/console and links."""
    devices: list[oci.Device] = [
        {"path": f"/dev/{name}", "type": "c", "major": 1, "minor": minor, "fileMode": 0o666}
        for name, minor in _MEMORY.items()
    ]
    devices.append({"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o666})
    return devices


def checked_device(device: oci.Device) -> oci.Device:
    """``device``, if it says what is needed. Raises :class:`InvalidParameter`."""
    path, kind = device.get("path", ""), device.get("type", "")
    if not path.startswith("/") or posixpath.normpath(path) == "/":
        raise InvalidParameter(f"linux.devices: invalid path {path!r}")
    if kind not in ("c", "b", "u", "p"):
        raise InvalidParameter(f"linux.devices: unknown type {kind!r} of {path}")
    if kind != "p" and ("major" not in device or "minor" not in device):
        raise InvalidParameter(f"linux.devices: {path} needs major and minor")
    return device
