"""Every field of config.json that the schema has for Linux is acted on, or refused by its name.

One document has all of them. Each is changed in turn: what will be done must change with it, or
the error must name it. So a field that somebody forgets to plan, or the schema gains, is found.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import sampan.runtime
from sampan.errors import SampanError
from sampan.kernel import cgroup
from sampan.kernel import facts as kernel_facts
from sampan.kernel.cgroup import Layout
from sampan.kernel.facts import Facts
from sampan.kernel.libseccomp import Library
from sampan.kernel.seccomp_compiler import Compiler
from sampan.model.mount import Mount
from sampan.runtime import validate
from sampan.runtime.oci_create import known_only
from sampan.runtime.plan import PlanOptions, plan, plan_exec
from sampan.runtime.process_plan import ProcessOptions

_SCHEMA = json.loads(Path(sampan.runtime.__file__).with_name("oci-schema.json").read_text())
_HOOK = [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]
_IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
_THROTTLE = [{"major": 8, "minor": 0, "rate": 1000}]

DOCUMENT: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "hooks": {
        name: _HOOK
        for name in (
            *("prestart", "createRuntime", "createContainer"),
            *("startContainer", "poststart", "poststop"),
        )
    },
    "annotations": {"org.example": "a"},
    "hostname": "host",
    "domainname": "domain",
    "mounts": [
        {
            "destination": "/m",
            "type": "none",
            "source": "/a",
            "options": ["bind"],
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        },
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]},
    ],
    "root": {"path": "rootfs", "readonly": False},
    "process": {
        "args": ["sh"],
        "consoleSize": {"height": 24, "width": 80},
        "cwd": "/w",
        "env": ["A=b"],
        "terminal": True,
        "user": {"uid": 1, "gid": 1, "umask": 0o77, "additionalGids": [5]},
        "capabilities": {
            name: ["CAP_KILL", "CAP_CHOWN"]
            for name in ("bounding", "permitted", "effective", "inheritable", "ambient")
        },
        "apparmorProfile": "profile",
        "oomScoreAdj": 10,
        "selinuxLabel": "label",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "noNewPrivileges": False,
        "scheduler": {
            "policy": "SCHED_BATCH",
            "nice": 1,
            "priority": 0,
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 10, "soft": 5}],
        "execCPUAffinity": {"initial": "0", "final": "0"},
    },
    "linux": {
        "devices": [
            {
                "type": "c",
                "path": "/dev/x",
                "fileMode": 0o600,
                "major": 10,
                "minor": 20,
                "uid": 1,
                "gid": 1,
            }
        ],
        "uidMappings": _IDS,
        "gidMappings": _IDS,
        "namespaces": [
            *({"type": kind} for kind in ("mount", "pid", "uts", "ipc", "user", "time")),
            {"type": "network", "path": "/proc/1/ns/net"},
        ],
        "resources": {
            "devices": [
                {"allow": True, "type": "c", "major": 10, "minor": 20, "access": "rw"},
            ],
            "pids": {"limit": 10},
            "blockIO": {
                "weight": 100,
                "throttleReadBpsDevice": _THROTTLE,
                "throttleWriteBpsDevice": _THROTTLE,
                "throttleReadIOPSDevice": _THROTTLE,
                "throttleWriteIOPSDevice": _THROTTLE,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
            },
            "cpu": {
                "cpus": "0",
                "mems": "0",
                "period": 100000,
                "quota": 50000,
                "burst": 1000,
                "shares": 512,
                "idle": 0,
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 1 << 21}],
            "memory": {
                "limit": 1 << 26,
                "reservation": 1 << 25,
                "swap": 1 << 27,
            },
        },
        "cgroupsPath": "/a/b",
        "rootfsPropagation": "private",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 1,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["chmod"],
                    "action": "SCMP_ACT_ERRNO",
                    "errnoRet": 2,
                    "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "sysctl": {"kernel.sem": "1 2 3 4"},
        "maskedPaths": ["/proc/a"],
        "readonlyPaths": ["/proc/b"],
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX"},
        "timeOffsets": {
            "boottime": {"secs": 1, "nanosecs": 2},
            "monotonic": {"secs": 3, "nanosecs": 4},
        },
    },
}
#: What a field becomes; others: a number one more, a truth its contrary, a string with an "x".
CHANGES: dict[str, Any] = {
    "hooks.prestart.[].path": "/bin/false",
    "mounts.[].options.[]": "rbind",
    "mounts.[].type": "ramfs",
    "process.cwd": "/v",
    "process.ioPriority.class": "IOPRIO_CLASS_IDLE",
    "process.scheduler.policy": "SCHED_OTHER",
    "process.scheduler.flags.[]": "SCHED_FLAG_RECLAIM",
    "process.rlimits.[].type": "RLIMIT_CORE",
    "process.execCPUAffinity.initial": "1",
    "process.execCPUAffinity.final": "1",
    "linux.devices.[].type": "b",
    "linux.namespaces.[].type": "cgroup",
    "linux.namespaces.[].path": "/proc/1/ns/mnt",
    "linux.netDevices": {"eth0": {}},
    "linux.resources.unified": {"pids.max": "7"},
    "linux.resources.devices.[].type": "b",
    "linux.resources.devices.[].access": "m",
    "linux.resources.blockIO.leafWeight": 100,
    "linux.resources.blockIO.weightDevice.[].leafWeight": 100,
    "linux.resources.cpu.cpus": "1",
    "linux.resources.cpu.mems": "1",
    "linux.resources.cpu.shares": 1024,
    "linux.resources.hugepageLimits.[].pageSize": "1GB",
    "linux.resources.network.priorities.[].name": "eth0",
    "linux.resources.rdma": {"mlx5_0": {"hcaHandles": 2}},
    "linux.rootfsPropagation": "slave",
    "linux.seccomp.defaultAction": "SCMP_ACT_TRAP",
    "linux.seccomp.flags.[]": "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "linux.seccomp.architectures.[]": "SCMP_ARCH_AARCH64",
    "linux.seccomp.syscalls.[].names.[]": "chown",
    "linux.seccomp.syscalls.[].action": "SCMP_ACT_TRAP",
    "linux.seccomp.syscalls.[].args.[].op": "SCMP_CMP_NE",
    "linux.sysctl": {"kernel.sem": "4 3 2 1"},
    "linux.intelRdt.closID": "class",
    "linux.intelRdt.l3CacheSchema": "L3:0=f",
    "linux.intelRdt.memBwSchema": "MB:0=20",
    "linux.intelRdt.schemata.[]": "L2:0=f",
    "linux.memoryPolicy.mode": "MPOL_INTERLEAVE",
    "linux.memoryPolicy.nodes": "1",
    "linux.memoryPolicy.flags.[]": "MPOL_F_RELATIVE_NODES",
    "linux.personality.domain": "LINUX32",
}
#: Where a list is changed at its end, and not at its beginning.
_LAST = {"linux.namespaces.[].type", "linux.namespaces.[].path", "mounts.[].type"}
#: What does not come from the plan, and the test that sees it act.
ELSEWHERE = {
    "ociVersion": "test_validate.py",
    "annotations": "the state: kernel/oci/test_runtime_commands.py::test_life_of_a_container",
    "hooks.prestart": "kernel/oci/test_hooks.py",
    "hooks.createRuntime": "kernel/oci/test_hooks.py",
    "hooks.poststart": "kernel/oci/test_hooks.py",
    "hooks.poststop": "kernel/oci/test_hooks.py",
    "root.path": "every test that runs a bundle",
    "process.terminal": "kernel/oci/test_runtime_commands.py::test_console_socket",
    "process.consoleSize": "kernel/oci/test_runtime_commands.py::test_console_socket",
    "linux.seccomp.listener": "kernel/test_seccomp.py",
    # The hierarchy is always used, as every kernel since 5.11 does.
    "linux.resources.memory.useHierarchy": "nothing else is there",
    "linux.resources.memory.checkBeforeUpdate": "only update may ask",
}


def leaves(schema: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every field below ``schema``: (its path, its type)."""
    while "$ref" in schema:
        schema = _SCHEMA["definitions"][schema["$ref"]]
    kind = schema.get("type")
    if kind == "object" and schema.get("properties"):
        for name, inner in schema["properties"].items():
            yield from leaves(inner, (*path, name))
    elif kind == "array" and "items" in schema:
        yield from leaves(schema["items"], (*path, "[]"))
    else:
        yield ".".join(path), kind


FIELDS = dict(leaves(_SCHEMA["root"]))


def changed(field: str) -> dict[str, Any]:
    """The document with another value of ``field``."""
    document = copy.deepcopy(DOCUMENT)
    *path, last = field.split(".")
    place: Any = document
    for name, following in zip(path, field.split(".")[1:], strict=True):
        empty: Any = [] if following == "[]" else {}
        if name == "[]":
            if not place:
                place.append(empty)
            place = place[-1 if field in _LAST else 0]
        else:
            place = place.setdefault(name, empty)
    if last == "[]":
        place[:] = [_other(field, place[0] if place else None)]
    else:
        place[last] = _other(field, place.get(last))
    return document


def _other(field: str, old: Any) -> Any:
    if field in CHANGES:
        return CHANGES[field]
    kind = FIELDS[field]
    if kind == "boolean":
        return not old
    if kind == "integer":
        return (old or 0) + 1
    assert kind == "string", field
    return (old or "/") + "x"


def layout(mode: str) -> Layout:
    """A host with every controller there is."""
    names = "cpu cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls net_prio rdma"
    registered = "".join(f"{name}\t1\t1\t1\n" for name in names.split())
    if mode == "v2":
        made = cgroup.detect("1 1 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", registered)
        assert made.unified is not None
        offered = frozenset(["cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma"])
        return replace(made, unified=replace(made.unified, controllers=offered))
    lines = [
        f"1 1 0:{number} / /sys/fs/cgroup/{name} rw - cgroup cgroup rw,{name}\n"
        for number, name in enumerate(names.split())
    ]
    return cgroup.detect("".join(lines), registered)


@pytest.fixture(scope="module", params=["v1", "v2"])
def facts(request: pytest.FixtureRequest) -> Facts:
    try:
        Library.load()
    except SampanError:
        pytest.skip("needs libseccomp")
    real = kernel_facts.probe()
    return replace(
        real,
        layout=layout(request.param),
        lsm=frozenset({"apparmor", "selinux"}),
        capabilities=frozenset({"CAP_KILL", "CAP_CHOWN", "CAP_MKNOD", "CAP_SYS_ADMIN"}),
        initial=True,
        resctrl=True,
    )


def outcome(document: dict[str, Any], facts: Facts) -> list[str]:
    """All that will be done, as text. Raises SampanError."""
    spec, unknown = validate.parse_config(json.dumps(document).encode())
    assert not unknown
    spec = known_only(spec)
    linux = spec["linux"]
    made = plan(
        spec,
        facts,
        container_id="c",
        rootfs=(Mount(type="bind", source="/", options=("rbind",)),),
        options=PlanOptions(process=ProcessOptions(), state={"id": "c"}, resctrl=True),
        seccomp=Compiler(None, machine="x86_64").compile(linux["seccomp"]),
    )
    executed = plan_exec(spec["process"], facts, container_id="c", options=ProcessOptions())
    resources = made.resources or {}
    return [
        repr(replace(made, resources=None)),
        repr(executed),
        *map(repr, cgroup.plan(facts.layout, made.cgroup, resources)),
    ]


def test_the_document_is_taken(facts: Facts) -> None:
    assert outcome(DOCUMENT, facts) == outcome(copy.deepcopy(DOCUMENT), facts)


@pytest.mark.parametrize("field", [f for f in FIELDS if not f.startswith(tuple(ELSEWHERE))])
def test_every_field(field: str, facts: Facts) -> None:
    """As the docstring of the module says."""
    names = [name for name in field.split(".") if name != "[]"]
    after: list[str] | None = None
    message = ""
    try:
        after = outcome(changed(field), facts)
    except SampanError as error:
        message = error.message
    if after is None:
        assert any(name in message for name in names[-2:]), message
    else:
        assert after != outcome(DOCUMENT, facts)
