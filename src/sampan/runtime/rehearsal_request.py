"""The request that is rehearsed with: a container as nearly all are, planned but never made."""

from __future__ import annotations

from pathlib import Path

from sampan.kernel.facts import probe
from sampan.model import oci
from sampan.model.mount import Mount
from sampan.runtime import json_text, plan_codec
from sampan.runtime.outline import Outline
from sampan.runtime.plan import PlanOptions, plan
from sampan.runtime.process_plan import ProcessOptions
from sampan.runtime.requests import LogSettings

_CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]
_NO_EXEC = ["nosuid", "noexec", "nodev"]
_PTS = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]
#: Mounts as nearly every container has them, to the letter: those are made ahead.
_SPEC: oci.Spec = {
    "ociVersion": "1.2.0",
    "hostname": "rehearsal",
    "process": {
        "args": ["true"],
        "cwd": "/",
        "env": ["PATH=/bin:/usr/bin"],
        "capabilities": {
            "bounding": _CAPABILITIES,
            "effective": _CAPABILITIES,
            "permitted": _CAPABILITIES,
        },
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": _NO_EXEC},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": _PTS},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*_NO_EXEC, "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": _NO_EXEC},
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": [*_NO_EXEC, "mode=1777", f"size={64 << 20}"],
        },
    ],
    "linux": {
        "namespaces": [
            {"type": kind} for kind in ("mount", "pid", "network", "uts", "ipc", "cgroup")
        ],
        "resources": {
            "memory": {"limit": 1 << 30},
            "pids": {"limit": 100},
            "cpu": {"quota": 100000, "period": 100000},
            "devices": [{"allow": False, "access": "rwm"}],
        },
        "sysctl": {"net.ipv4.ip_unprivileged_port_start": "0"},
        "maskedPaths": ["/proc/kcore", "/proc/keys", "/sys/firmware"],
        "readonlyPaths": ["/proc/bus", "/proc/sys"],
    },
}


def sample() -> bytes:
    """A request as a client sends it, as JSON."""
    made = plan(
        _SPEC,
        probe(),
        container_id="rehearsal",
        rootfs=(Mount(type="bind", source="/"),),
        options=PlanOptions(process=ProcessOptions(keyring="rehearsal")),
    )
    value, _ = plan_codec.encode(made)
    return json_text.dumps(
        {
            **Outline(
                container_id="rehearsal",
                directory=Path("/nonexistent"),
                cgroup=made.cgroup,
                resources=made.resources or {},
                log=LogSettings(driver="none"),
            ).message(),
            "plan": value,
        }
    )
