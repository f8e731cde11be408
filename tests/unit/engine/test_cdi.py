"""CDI devices: found by name, applied to a spec, refused in words."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
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


YAML = """
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - {path: /dev/nvidia0, hostPath: /dev/null, fileMode: 0600}
- name: all
  containerEdits:
    env: [GPU=all]
- name: rdt
  containerEdits: {intelRdt: {closID: x}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> cdi.Registry:
    (tmp_path / "gpu.json").write_text(json.dumps(SPEC))
    (tmp_path / "other.yaml").write_text("kind: [x")
    (tmp_path / "nvidia.yml").write_text(YAML)
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
    complaint = r"unresolvable CDI devices vendor.com/gpu=9 \(.*other.yaml: while"
    with pytest.raises(InvalidParameter, match=complaint):
        registry.edits(["vendor.com/gpu=9"])
    with pytest.raises(Unsupported, match="poststop"):
        cdi.apply({}, registry.edits(["vendor.com/gpu=1"]), HostDevices())
    bad = HostConfig(device_requests=[DeviceRequest(driver="cdi", device_ids=["nonsense"])])
    with pytest.raises(InvalidParameter, match="invalid CDI device name"):
        cdi.requested(bad, [])
    with pytest.raises(Unsupported, match="CDI: intelRdt is not supported"):
        cdi.apply({}, registry.edits(["nvidia.com/gpu=rdt"]), HostDevices())


def gpus(**request: object) -> HostConfig:
    made = msgspec.convert({"Capabilities": [["gpu"]], **request}, DeviceRequest)
    return HostConfig(device_requests=[made])


def test_gpus_are_devices_of_yaml_files(registry: cdi.Registry, tmp_path: Path) -> None:
    found = [
        cdi.requested(gpus(**request), [str(tmp_path)])
        for request in ({"Count": -1}, {"Count": 1}, {"DeviceIDs": ["0"], "Driver": "nvidia"})
    ]
    assert [edits[-1].env for edits in found] == [["GPU=all"], [], []]
    assert found[1] == found[2]
    spec: oci.Spec = {}
    cdi.apply(spec, found[1], HostDevices())
    [device] = spec["linux"]["devices"]
    assert (device["path"], device["fileMode"]) == ("/dev/nvidia0", 0o600)
    for request, complaint in (
        ({"Count": 2}, "unresolvable CDI devices nvidia.com/gpu=1"),
        ({"Count": 1, "Driver": "amd"}, 'device driver "amd" with capabilities: [[gpu]]'),
        ({"Count": 1, "Capabilities": [["tpu", "x"]]}, 'driver "" with capabilities: [[tpu x]]'),
    ):
        with pytest.raises(InvalidParameter, match=re.escape(complaint)):
            cdi.requested(gpus(**request), [str(tmp_path)])
