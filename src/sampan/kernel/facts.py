"""What this kernel and host offer, probed once into a frozen value that planners take.

Nothing here decides; a planner that needs what is missing says so by name.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from sampan.errors import Unsupported
from sampan.kernel import capabilities, cgroup, mount, namespaces, resctrl

_MINIMUM = (5, 12)
_DIGITS = "0123456789"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Features of the running kernel.

    ``capabilities`` are those in our permitted set; ``namespaces`` the kinds that exist (OCI
    names). ``overlay_layers``: overlay takes ``lowerdir+`` one at a time (Linux 6.5), in which
    case neither their number nor their characters are bounded; ``overlay_layer_fds``: also as
    descriptors (6.13). ``lsm``: active security modules. ``initial``: we are in the host's own user
    namespace, where capabilities are over all that the kernel has.
    """

    kernel: tuple[int, int]
    release: str
    machine: str
    layout: cgroup.Layout
    capabilities: frozenset[str]
    last_capability: int
    namespaces: frozenset[str]
    overlay_layers: bool
    overlay_layer_fds: bool
    filesystems: frozenset[str]
    lsm: frozenset[str]
    seccomp: bool
    resctrl: bool
    initial: bool = True

    @property
    def mounts(self) -> bool:
        """Whether we may mount at all: else that is for whom we put in a user namespace."""
        return "CAP_SYS_ADMIN" in self.capabilities

    @property
    def limits_devices(self) -> bool:
        """Whether it is for us which devices a cgroup may use."""
        return self.initial and self.mounts

    @property
    def makes_devices(self) -> bool:
        """Whether mknod(2) of devices is for us, in a mount that is not a user namespace's."""
        return self.initial and "CAP_MKNOD" in self.capabilities

    def capability_mask(self) -> int:
        """All capabilities this kernel knows, as bits."""
        return (1 << (self.last_capability + 1)) - 1


def memory_nodes() -> str:
    """The NUMA nodes that have memory, as the kernel lists them: ``0-1``."""
    try:
        with open("/sys/devices/system/node/has_memory") as file:
            return file.read().strip()
    except FileNotFoundError:
        return "0"  # a kernel that knows no nodes


def probe() -> Facts:
    """Look at the running kernel (about 1 ms).

    Raises :class:`Unsupported` when it is older than 5.12 or has no cgroups.
    """
    release = os.uname().release
    kernel = version(release)
    if kernel < _MINIMUM or not mount.supports_mount_setattr():
        raise Unsupported(
            f"Linux {release} is too old: sampan needs mount_setattr(2), that is 5.12 or later"
        )
    layers, fds = _overlay_layers()
    _, permitted, _ = capabilities.capget()
    return Facts(
        kernel=kernel,
        release=release,
        machine=os.uname().machine,
        layout=cgroup.probe(),
        capabilities=frozenset(capabilities.names(permitted)),
        last_capability=int(_read("/proc/sys/kernel/cap_last_cap") or "40"),
        namespaces=frozenset(
            kind
            for kind, file in namespaces.FILES.items()
            if os.path.exists(f"/proc/self/ns/{file}")
        ),
        overlay_layers=layers,
        overlay_layer_fds=fds,
        filesystems=frozenset(
            line.split()[-1] for line in _read("/proc/filesystems").splitlines() if line.strip()
        ),
        lsm=frozenset(filter(None, _read("/sys/kernel/security/lsm").strip().split(","))),
        seccomp=os.path.exists("/proc/sys/kernel/seccomp/actions_avail"),
        resctrl=resctrl.available(),
        initial=namespaces.in_initial_user(),
    )


def version(release: str) -> tuple[int, int]:
    """(6, 18) of a release such as ``6.18.44-fc``; (0, 0) when it is not written so."""
    parts = release.split(".")
    digits = [part[: len(part) - len(part.lstrip(_DIGITS))] for part in parts[:2]]
    if len(digits) < 2 or not all(digits):
        return 0, 0
    return int(digits[0]), int(digits[1])


def _read(path: str) -> str:
    """The text of a /proc or /sys file, empty when the kernel has none."""
    with contextlib.suppress(OSError), open(path) as file:
        return file.read()
    return ""


def _overlay_layers() -> tuple[bool, bool]:
    """Whether overlay takes ``lowerdir+`` as a string and as a descriptor; tried on "/"."""
    try:
        fs = mount.fsopen("overlay")
    except OSError:
        return False, False  # ENODEV: the planner refuses an overlay root by name
    with mount.descriptor(fs):
        strings = fds = False
        try:
            # File systems that only know mount(2)'s string, as overlay before Linux 6.5, take
            # any option here and refuse it when they are mounted.
            mount.fsconfig(fs, mount.FSCONFIG_SET_STRING, "no such option", "/")
        except OSError:
            with contextlib.suppress(OSError):
                mount.fsconfig(fs, mount.FSCONFIG_SET_STRING, "lowerdir+", "/")
                strings = True
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        with mount.descriptor(root), contextlib.suppress(OSError):
            mount.fsconfig(fs, mount.FSCONFIG_SET_FD, "lowerdir+", None, root)
            fds = True
        return strings, fds
