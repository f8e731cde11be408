"""Which capabilities a container's program gets (pure; capabilities(7), dockerd's rules)."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import InvalidParameter


def _split(words: str) -> tuple[str, ...]:
    return tuple(words.split())


#: in the kernel's order, so that a kernel's ``cap_last_cap`` cuts the tail off
ALL = tuple(
    f"CAP_{name}"
    for name in _split(
        """
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO
    SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME
    SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG
    WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"""
    )
)
DEFAULT = tuple(
    f"CAP_{name}"
    for name in _split(
        """
    CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP
    NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE"""
    )
)


def normalize(names: Sequence[str], field: str) -> tuple[str, ...]:
    """``names`` in capitals with ``CAP_`` before; raises InvalidParameter for unknown ones."""
    found = []
    for name in names:
        upper = name.upper()
        if upper != "ALL":
            upper = upper if upper.startswith("CAP_") else f"CAP_{upper}"
            if upper not in ALL:
                raise InvalidParameter(f'invalid {field}: unknown capability: "{upper}"')
        found.append(upper)
    return tuple(found)


def effective(
    add: Sequence[str],
    drop: Sequence[str],
    *,
    privileged: bool,
    available: Sequence[str] = ALL,
) -> tuple[str, ...]:
    """The capabilities to run with, of those ``available`` on this host.

    ``ALL`` in ``add`` starts from every one, ``ALL`` in ``drop`` from none; privileged is all.
    Raises InvalidParameter for an unknown name, or an added one this host cannot give.
    """
    if privileged:
        return tuple(name for name in ALL if name in available)
    added, dropped = normalize(add, "CapAdd"), normalize(drop, "CapDrop")
    for name in added:
        if name != "ALL" and name not in available:
            raise InvalidParameter(
                "invalid CapAdd: capability not supported by your kernel or not available in the "
                f'current environment: "{name}"'
            )
    if "ALL" in added:
        wanted = [name for name in ALL if name in available and name not in dropped]
    elif "ALL" in dropped:
        wanted = [name for name in added if name != "ALL"]
    else:
        wanted = [name for name in DEFAULT if name not in dropped]
        wanted += [name for name in added if name not in wanted]
    return tuple(dict.fromkeys(name for name in wanted if name in available))
