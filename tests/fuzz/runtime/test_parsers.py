"""The runtime's parsers against strangers' input; ``make fuzz`` looks longer and guided."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.runtime import schema, targets

MORE = int(os.environ.get("SAMPAN_FUZZ", "1"))
#: The same examples every time, unless one looks for new ones.
short = settings(max_examples=80 * MORE, derandomize=MORE == 1)

LINES = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from(["root", "user", "wheel", "x", "0", "10", "1000", "-1", "²", "٣"]),
            st.sampled_from(["4294967295", "99999999999", "/home", "a,user,,root", ""]),
            st.text(max_size=5),
        ),
        max_size=8,
    ).map(":".join),
    max_size=6,
).map("\n".join)


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@short
@given(schema.mutated("sh"))
def test_config(document: dict[str, Any]) -> None:
    targets.config(json.dumps(document).encode())


@short
@given(schema.values({"$ref": "Mount"}), schema.values({"$ref": "Syscall"}))
def test_config_of_mounts_and_filters(mount: dict[str, Any], rule: dict[str, Any]) -> None:
    document = schema.base("sh")
    document["mounts"].append(mount)
    document["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    targets.config(json.dumps(document).encode())


@short
@given(schema.values(schema.PLACES[[p for p, _ in schema.PLACES].index(("process",))][1]))
def test_process(document: Any) -> None:
    targets.process(json.dumps(document).encode())


@short
@given(schema.values(dict(schema.PLACES)[("linux", "resources")]))
def test_resources(document: Any) -> None:
    targets.resources(json.dumps(document).encode())


@short
@given(st.one_of(LINES, st.text(max_size=8)), LINES, LINES)
def test_passwd(user: str, users: str, groups: str) -> None:
    targets.passwd(b"\0".join(map(encoded, (user.replace("\n", ":"), users, groups))))


MOUNTS = st.lists(
    st.lists(
        st.one_of(
            st.sampled_from(["31", "0:27", "/", "/sys/fs/cgroup", "/sys/fs/cgroup/a\\040b", "-"]),
            st.sampled_from(["rw,pids", "name=systemd", "cgroup", "cgroup2", "rw", "\\777", ""]),
            st.text(max_size=4),
        ),
        max_size=12,
    ).map(" ".join),
    max_size=5,
).map("\n".join)


@short
@given(MOUNTS, st.sampled_from(["", "pids 1 1 1\n", "#x\n\npids"]), LINES)
def test_mountinfo(mounts: str, cgroups: str, own: str) -> None:
    targets.mountinfo(b"\0".join(map(encoded, (mounts, cgroups, own))))


@pytest.mark.parametrize("name", targets.TARGETS)
@short
@given(data=st.binary(max_size=200))
def test_bytes(name: str, data: bytes) -> None:
    target, seeds = targets.TARGETS[name]
    target(data)
    for seed in seeds:
        target(seed)
        target(seed[: len(data) % len(seed)] + data)
