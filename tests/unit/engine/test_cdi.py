"""CDI devices: found by name, applied to a spec, refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.engine import cdi
from sampan.engine.hostdevices import HostDevices
from sampan.errors import InvalidParameter, Unsupported
from sampan.model import oci
from sampan.wire.hostconfig import DeviceRequest, HostConfig

SPEC = {
    "cdiVersion": "0.6.0",
    "kind": "vendor.com/gpu",
    "containerEdits": {"env": ["ALL=1"]},
    "devices": [
        {
            "name": name,
            "containerEdits": {
                "env": [f"GPU={name}"],
                "deviceNodes": [{"path": f"/dev/gpu{name}", "hostPath": "/dev/null"}],
                "mounts": [{"hostPath": "/lib/gpu", "containerPath": "/lib/gpu"}],
                "hooks": [{"hookName": hook, "path": "/bin/hook", "args": ["hook", "x"]}],
            },
        }
        for name, hook in (("0", "createContainer"), ("1", "poststop"))
    ],
}


@pytest.fixture
def registry(tmp_path: Path) -> cdi.Registry:
    (tmp_path / "gpu.json").write_text(json.dumps(SPEC))
    (tmp_path / "other.yaml").write_text("kind: x")
    return cdi.Registry.load([str(tmp_path), str(tmp_path / "missing")])


def test_edits_are_applied(registry: cdi.Registry) -> None:
    spec: oci.Spec = {"process": {"env": ["A=b"]}}
    cdi.apply(spec, registry.edits(["vendor.com/gpu=0"]), HostDevices())
    assert spec["process"]["env"] == ["A=b", "ALL=1", "GPU=0"]
    [device] = spec["linux"]["devices"]
    assert (device["path"], device["major"], device["minor"]) == ("/dev/gpu0", 1, 3)
    [rule] = spec["linux"]["resources"]["devices"]
    assert (rule["major"], rule["access"]) == (1, "rwm")
    assert spec["mounts"][0]["options"] == ["ro", "nosuid", "nodev", "bind"]
    assert spec["hooks"]["createContainer"][0]["args"] == ["hook", "x"]


def test_refused(registry: cdi.Registry) -> None:
    with pytest.raises(InvalidParameter, match=r"unresolvable CDI devices vendor.com/gpu=9.*YAML"):
        registry.edits(["vendor.com/gpu=9"])
    with pytest.raises(Unsupported, match="poststop"):
        cdi.apply({}, registry.edits(["vendor.com/gpu=1"]), HostDevices())
    bad = HostConfig(device_requests=[DeviceRequest(driver="cdi", device_ids=["nonsense"])])
    with pytest.raises(InvalidParameter, match="invalid CDI device name"):
        cdi.device_names(bad)
