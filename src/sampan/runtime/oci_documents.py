"""spec and features: the two documents ``sampan-runtime`` writes (config.md, features.md)."""

from __future__ import annotations

import json
import os

from sampan.errors import Conflict, SampanError
from sampan.kernel import capabilities, namespaces
from sampan.kernel import facts as kernel_facts
from sampan.kernel.facts import Facts
from sampan.kernel.libseccomp import Library
from sampan.kernel.seccomp import ARCHITECTURES, FLAGS, supported_flags
from sampan.kernel.seccomp_compiler import ACTIONS, OPERATORS
from sampan.model import oci
from sampan.runtime import mount_options
from sampan.runtime.oci_arguments import Parsed
from sampan.runtime.oci_control import Runtime
from sampan.runtime.oci_state import OCI_VERSION

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def spec(runtime: Runtime, parsed: Parsed) -> int:
    """Write config.json into the bundle. Raises Conflict when there is one."""
    path = os.path.join(parsed.string("bundle") or ".", "config.json")
    document = rootless(template()) if parsed.switch("rootless") else template()
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(document, file, indent="\t")
    except FileExistsError:
        raise Conflict("File config.json exists. Remove it first") from None
    return 0


def template() -> oci.Spec:
    """A container running sh on a terminal, as ``runc spec`` writes it."""
    capability_sets: oci.Capabilities = {
        "bounding": list(_CAPABILITIES),
        "effective": list(_CAPABILITIES),
        "permitted": list(_CAPABILITIES),
    }
    return {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": capability_sets,
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "sampan",
        "mounts": _mounts(),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [
                {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
            ],
            "maskedPaths": [
                "/proc/acpi",
                "/proc/asound",
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/timer_stats",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }


def _mounts() -> list[oci.Mount]:
    quiet = ["nosuid", "noexec", "nodev"]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*quiet, "mode=1777", "size=65536k"],
        },
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": quiet},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*quiet, "ro"]},
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": [*quiet, "relatime", "ro"],
        },
    ]


def rootless(document: oci.Spec) -> oci.Spec:
    """``document`` for a user namespace that maps the caller to root, and nobody else."""
    linux = document["linux"]
    linux["namespaces"] = [
        entry for entry in linux["namespaces"] if entry["type"] not in ("network", "user")
    ] + [{"type": "user"}]
    linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    del linux["resources"]
    mounts: list[oci.Mount] = []
    for entry in document["mounts"]:
        if entry["destination"] == "/sys":
            # Without a network namespace of its own sysfs cannot be mounted, only bound.
            entry = {
                "destination": "/sys",
                "type": "none",
                "source": "/sys",
                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
            }
        elif entry["destination"] == "/dev/pts":
            options = [word for word in entry["options"] if not word.startswith("gid=")]
            entry = {**entry, "options": options}
        mounts.append(entry)
    document["mounts"] = mounts
    return document


def features(runtime: Runtime, parsed: Parsed) -> int:
    """features.md: what this runtime understands, whatever this host has of it.

    What the host lacks of that is told in an annotation; using it is an error that names it.
    """
    facts = kernel_facts.probe()
    seccomp: dict[str, object] = {"enabled": False}
    annotations = {"io.github.seccomp.libseccomp.version": "none"}
    try:
        annotations["io.github.seccomp.libseccomp.version"] = Library.load().version
        seccomp = {
            "enabled": True,
            "actions": sorted(ACTIONS),
            "operators": sorted(OPERATORS),
            "archs": sorted(ARCHITECTURES),
            "knownFlags": sorted(FLAGS),
            "supportedFlags": sorted(supported_flags()),
        }
    except SampanError:
        # No libseccomp: profiles are refused by name.
        annotations.pop("io.github.seccomp.libseccomp.version")
    if missing := _missing(facts):
        annotations["org.sampan.runtime.missing"] = ", ".join(missing)
    document = {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": OCI_VERSION,
        "hooks": list(oci.Hooks.__annotations__),
        "mountOptions": sorted(mount_options.WORDS),
        "linux": {
            "namespaces": sorted(namespaces.FLAGS),
            "capabilities": list(capabilities.NUMBERS),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": False,
                "rdma": True,
            },
            "seccomp": seccomp,
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": [],
    }
    print(json.dumps(document, indent=4))
    return 0


def _missing(facts: Facts) -> list[str]:
    """What this runtime would do and this host cannot."""
    missing = [f"{kind} namespaces" for kind in namespaces.FLAGS if kind not in facts.namespaces]
    missing += [f"cgroup {other}" for other in ("v1", "v2") if not _has(facts, other)]
    controllers = ("cpu", "cpuset", "memory", "pids", "hugetlb", "rdma")
    missing += [f"{name} cgroup" for name in controllers if name not in facts.layout.controllers]
    missing += [module for module in ("apparmor", "selinux") if module not in facts.lsm]
    if not facts.seccomp:
        missing.append("seccomp")
    return missing


def _has(facts: Facts, version: str) -> bool:
    return facts.layout.mode == version or (version == "v1" and facts.layout.mode == "hybrid")
