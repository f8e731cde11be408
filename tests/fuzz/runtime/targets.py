"""What the runtime reads of strangers, as functions of bytes: Hypothesis and atheris call them.

A target returns when its input was taken or refused in a sentence; anything else is a finding.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from sampan.errors import SampanError
from sampan.kernel import cgroup
from sampan.kernel import facts as kernel_facts
from sampan.kernel.facts import Facts
from sampan.kernel.libseccomp import Library
from sampan.kernel.seccomp_compiler import Compiler
from sampan.model.mount import Mount
from sampan.runtime import identity, plan_codec, validate
from sampan.runtime.oci_create import known_only
from sampan.runtime.plan import PlanOptions, plan

_ID_LIMIT = 1 << 31
_facts: list[Facts] = []


def facts() -> Facts:
    """This kernel's, asked once."""
    if not _facts:
        _facts.append(kernel_facts.probe())
    return _facts[0]


def refused(error: SampanError) -> None:
    """A refusal is one line that says something."""
    assert error.message.strip()
    assert "\n" not in error.message


def config(data: bytes) -> None:
    """A config.json: checked, planned, its cgroups planned, its filter compiled."""
    try:
        spec, _ = validate.parse_config(data)
        spec = known_only(spec)
        profile = (spec.get("linux") or {}).get("seccomp")
        made = plan(
            spec,
            facts(),
            container_id="c",
            rootfs=(Mount(type="bind", source="/", options=("rbind",)),),
            options=PlanOptions(state={"id": "c"}),
            seccomp=Compiler(None).compile(profile) if profile and has_libseccomp() else None,
        )
        assert made.describe()
        value, blob = plan_codec.encode(made)
        again = plan_codec.decode(json.loads(json.dumps(value)), blob)
        assert plan_codec.encode(again) == (value, blob)
        for operation in cgroup.plan(facts().layout, made.cgroup, made.resources or {}):
            assert cgroup.describe(operation)
    except SampanError as error:
        refused(error)


def has_libseccomp() -> bool:
    try:
        Library.load()
    except SampanError:
        return False
    return True


def process(data: bytes) -> None:
    """A process.json of exec."""
    try:
        validate.parse_process(data)
    except SampanError as error:
        refused(error)


def resources(data: bytes) -> None:
    """The resources of update."""
    try:
        wanted = validate.parse_resources(data)
        for operation in cgroup.plan_update(facts().layout, "/c", wanted):
            assert cgroup.describe(operation)
    except SampanError as error:
        refused(error)


def passwd(data: bytes) -> None:
    """Two files of an image, and what it wants to be: user NUL passwd NUL group."""
    user, _, rest = data.partition(b"\0")
    users, _, groups = rest.partition(b"\0")
    name = user.decode("utf-8", "surrogateescape")
    for also in ((), ("wheel",), (name,)):
        try:
            found = identity.resolve(name, also, users, groups, (7,))
        except identity.UnknownName:
            continue
        assert 0 <= found.uid < _ID_LIMIT
        assert all(0 <= group < _ID_LIMIT for group in (found.gid, *found.groups))
        assert found.groups[0] == found.gid, "the primary group is a supplementary one too"
        assert len(set(found.groups)) == len(found.groups)
        assert found.home
        assert identity.home_of(found.uid, users)


def mountinfo(data: bytes) -> None:
    """mountinfo, /proc/cgroups and /proc/self/cgroup, NUL between them."""
    texts = [part.decode("utf-8", "surrogateescape") for part in data.split(b"\0")[:3]]
    texts += [""] * (3 - len(texts))
    try:
        layout = cgroup.detect(*texts)
    except SampanError as error:
        refused(error)
        return
    assert layout.legacy or layout.unified
    for hierarchy in layout.owning:
        assert hierarchy.directory("/sampan/c").endswith("/sampan/c")
    assert layout.directories("/sampan/c")


#: name -> (target, inputs to start from)
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[bytes, ...]]] = {
    "config": (config, (b'{"ociVersion": "1.2.0"}',)),
    "process": (process, (b'{"args": ["sh"], "cwd": "/", "user": {"uid": 0}}',)),
    "resources": (resources, (b'{"memory": {"limit": 1048576}, "cpu": {"cpus": "0-3"}}',)),
    "passwd": (passwd, (b"user:wheel\0user:x:1000:1000::/home:/bin/sh\n\0wheel:x:10:user\n",)),
    "mountinfo": (
        mountinfo,
        (
            b"31 24 0:27 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
            b"32 24 0:28 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\0"
            b"#name\npids\t4\t1\t1\n\x005:pids:/\n0::/\n",
        ),
    ),
}
