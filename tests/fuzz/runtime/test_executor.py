"""Containers of hostile configurations, for real: each runs or is refused, and leaves nothing."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, given, settings

from sampan.kernel import cgroup
from tests.fuzz.runtime import schema
from tests.fuzz.runtime.test_parsers import MORE
from tests.kernel.oci.conftest import Runtime, rootfs, runtime

__all__ = ["rootfs", "runtime"]

#: What would be the machine's and not the container's, or would wait for somebody.
_NOT_HERE = (
    ("linux", "rootfsPropagation"),
    ("process", "terminal"),
    ("process", "oomScoreAdj"),
    ("process", "scheduler"),
    ("hooks",),
)


def tame(config: dict[str, Any], parent: str) -> dict[str, Any]:
    """``config`` in a cgroup below ``parent``, without what reaches beyond the container."""
    for path in _NOT_HERE:
        place: Any = config
        for name in path[:-1]:
            place = place.get(name) if isinstance(place, dict) else None
        if isinstance(place, dict):
            place.pop(path[-1], None)
    if isinstance(config.get("linux"), dict):
        config["linux"]["cgroupsPath"] = f"{parent}/fuzz"
    if isinstance(config.get("root"), dict):
        config["root"]["path"] = "rootfs"
    return config


@settings(
    max_examples=25 * MORE,
    derandomize=MORE == 1,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schema.mutated("true"))
def test_no_partial_container_is_left(runtime: Runtime, config: dict[str, Any]) -> None:
    runtime.write(tame(config, runtime.parent))
    result = runtime("run", "--bundle", runtime.bundle, "fuzz")
    complaint = (config, result)
    assert "Traceback" not in result.stderr, complaint
    assert "internal error" not in result.stderr, complaint
    assert result.returncode == 0 or result.stderr.strip(), complaint
    assert not runtime.root.exists() or os.listdir(runtime.root) == [], complaint
    left = [path for path in cgroup.probe().directories(f"{runtime.parent}/fuzz")]
    assert not [path for path in left if os.path.exists(path)], complaint
    assert mounts(runtime) == [], complaint


def mounts(runtime: Runtime) -> list[str]:
    with open("/proc/self/mountinfo") as file:
        return [line for line in file if line.split()[4].startswith(str(runtime.bundle))]
