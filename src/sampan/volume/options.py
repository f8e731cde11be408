"""Options of the local driver (``docker volume create -o``) and what they mean (pure).

options ::= { "type" | "o" | "device" } | [ "size" ]

Without any, a volume is a directory of ours, which ``size`` limits. With them it is whatever
mount(8) would make of ``mount -t TYPE -o O DEVICE``: tmpfs, bind, nfs, cifs, ext4, overlay...
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from sampan.errors import InvalidParameter
from sampan.runtime import mount_options
from sampan.runtime.mount_options import MountOptions

_KNOWN = ("type", "o", "device", "size")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgtp]?)(?:i?b)?", re.IGNORECASE)
_SCALE = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40, "p": 50}
#: option -> options it is nothing without (as dockerd's)
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type"), "size": ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeMount:
    """What to mount on a volume's directory while it is used."""

    type: str
    device: str
    options: MountOptions

    @property
    def network_address(self) -> str:
        """The server of a network file system: ``addr=`` (``ip=``), or else the host a CIFS share
        is of; a host name there must be resolved first."""
        found = next((value for key, value in self.options.data if key in ("addr", "ip")), None)
        if found is None and self.type in ("cifs", "smb3"):
            found = self.device.lstrip("/\\").replace("\\", "/").partition("/")[0]
        return found or ""


def volume_mount(options: Mapping[str, str]) -> VolumeMount | None:
    """The mount that ``options`` ask for, ``None`` for a plain directory.

    Raises :class:`InvalidParameter` naming the option that is unknown or missing.
    """
    for key in options:
        if key not in _KNOWN:
            raise InvalidParameter(f'invalid option: "{key}"')
    present = {key for key, value in options.items() if value}
    for key in sorted(present):
        for needed in _NEEDS[key]:
            if needed not in present:
                raise InvalidParameter(f'missing required option: "{needed}"')
    if not present - {"size"}:
        return None
    if "size" in present:
        raise InvalidParameter("volume option size limits a plain directory: give o=size=... here")
    words = [word for word in options.get("o", "").split(",") if word]
    parsed = mount_options.parse(words)
    if parsed.bind and not options["device"].startswith("/"):
        raise InvalidParameter(f"bind volume's device is not an absolute path: {options['device']}")
    if options["type"] == "none" and not parsed.bind:
        raise InvalidParameter("volume option type=none needs bind or rbind in o")
    if parsed.remount or parsed.idmap or parsed.copy_up:
        raise InvalidParameter("volume options remount, idmap and tmpcopyup are not possible here")
    if parsed.bind and parsed.data:
        raise InvalidParameter(f"invalid option of a bind volume: {parsed.data[0][0]!r}")
    return VolumeMount(type=options["type"], device=options["device"], options=parsed)


def size_limit(options: Mapping[str, str]) -> int:
    """How many bytes a volume may hold (``size=10m``, powers of 1024), 0 for no limit.

    Raises :class:`InvalidParameter`.
    """
    text = options.get("size", "").strip()
    if not text:
        return 0
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * (1 << _SCALE[match[2].lower()])) if match else 0
    if not size:
        raise InvalidParameter(f"invalid value of volume option size: {text!r}")
    return size
