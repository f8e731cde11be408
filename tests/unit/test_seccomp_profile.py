"""Docker-format seccomp profiles resolved for a container."""

from __future__ import annotations

import json

import pytest

from sampan.errors import InvalidParameter
from sampan.model.oci import Seccomp
from sampan.runtime.seccomp_profile import DockerProfile, load_default, parse, resolve
from tests.spec import SPEC


def names(profile: DockerProfile, *caps: str, kernel: tuple[int, int] = (6, 1)) -> set[str]:
    """Names of all calls that some rule allows."""
    resolved = resolve(profile, capabilities=caps, kernel=kernel, machine="x86_64")
    return {
        name
        for rule in resolved["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }


def test_default_follows_capabilities_kernel_and_architecture() -> None:
    profile = load_default()
    plain = names(profile)
    assert {"read", "arch_prctl", "process_vm_readv"} <= plain
    assert not {"mount", "bpf", "riscv_flush_icache", "open_by_handle_at"} & plain
    assert {"mount", "bpf", "setns"} <= names(profile, "CAP_SYS_ADMIN")
    assert "bpf" in names(profile, "CAP_BPF")
    assert "process_vm_readv" not in names(profile, kernel=(4, 7))
    resolved = resolve(profile, capabilities=(), kernel=(6, 1), machine="x86_64")
    assert resolved["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    clone3 = [rule for rule in resolved["syscalls"] if "clone3" in rule["names"]]
    assert clone3 == [{"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]
    privileged = resolve(profile, capabilities=("CAP_SYS_ADMIN",), kernel=(6, 1), machine="x86_64")
    assert not any(rule["action"] == "SCMP_ACT_ERRNO" for rule in privileged["syscalls"])


def test_shipped_profile_is_the_reference_one() -> None:
    assert load_default() == json.loads((SPEC / "seccomp/default.json").read_text())


@pytest.mark.parametrize("name", ["conditional_include.json", "default-old-format.json"])
def test_old_formats(name: str) -> None:
    profile = parse((SPEC / "seccomp/fixtures" / name).read_text())
    resolved = resolve(profile, capabilities=(), kernel=(6, 1), machine="x86_64")
    assert all(rule["names"] and rule["action"] for rule in resolved["syscalls"])


def test_plain_oci_profile_passes_through() -> None:
    profile: Seccomp = {
        "defaultAction": "SCMP_ACT_LOG",
        "architectures": ["SCMP_ARCH_X86_64"],
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "listenerPath": "/run/x",
        "listenerMetadata": "m",
        "syscalls": [
            {
                "names": ["getcwd"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 5,
                "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }
    text = json.dumps(profile)
    assert resolve(parse(text), capabilities=(), kernel=(6, 1), machine="aarch64") == profile


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Decoding seccomp profile failed"),
        ("[]", "not a JSON object"),
        ("{}", "no defaultAction"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}', "list of objects"),
    ],
)
def test_no_profile(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"architectures": ["a"], "archMap": [{"architecture": "b"}]}, "use either"),
        ({"syscalls": [{"name": "a", "names": ["b"], "action": "x"}]}, "both 'name' and 'names'"),
        ({"syscalls": [{"names": ["b"], "includes": {"minKernel": "4"}}]}, "invalid minKernel"),
        ({"syscalls": [{"names": ["b"], "includes": {"caps": "x"}}]}, "caps is not a list"),
    ],
)
def test_contradictions(part: dict[str, object], message: str) -> None:
    profile = parse(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", **part}))
    with pytest.raises(InvalidParameter, match=message):
        resolve(profile, capabilities=(), kernel=(6, 1), machine="x86_64")
