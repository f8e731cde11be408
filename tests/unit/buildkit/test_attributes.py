"""The frontend's options: decoded, or refused by name."""

from __future__ import annotations

import pytest

from sampan.build.executor import Limits
from sampan.buildkit.attributes import parse
from sampan.errors import InvalidParameter, Unsupported
from sampan.model.platform import Platform


def test_what_buildx_sends() -> None:
    found = parse(
        {
            "filename": "dir/Containerfile",
            "target": "app",
            "platform": "linux/amd64,linux/arm64/v8,linux/amd64",
            "build-arg:A": "1",
            "label:l": "v",
            "context:base": "docker-image://busybox",
            "sharedkey:localdir:base": "k",
            "attest:provenance": "mode=min,inline-only=true",
            "no-cache": "one,two",
            "image-resolve-mode": "pull",
            "force-network-mode": "none",
            "add-hosts": "a=1.2.3.4,b=::1",
            "shm-size": "1024",
            "ulimit": "nofile=10:20,core=-1",
            "cgroup-parent": "/x",
            "memory": "1000",
            "cpusetcpus": "0-1",
            "vcs:revision": "abc",
            "frontend.caps": "moby.buildkit.frontend.contexts+forward",
            "source": "docker/dockerfile:1",
        }
    )
    assert found.platforms == (
        Platform.parse("linux/amd64"),
        Platform.parse("linux/arm64/v8"),
    )
    assert (found.filename, found.target, found.pull) == ("dir/Containerfile", "app", True)
    assert found.arguments == {"A": "1"}
    assert found.labels == {"l": "v"}
    assert found.contexts == {"base": "docker-image://busybox"}
    assert found.no_cache == frozenset(("one", "two"))
    assert found.hosts == ("a:1.2.3.4", "b:::1")
    assert found.limits == Limits(
        memory=1000,
        cpuset_cpus="0-1",
        shm_size=1024,
        cgroup_parent="/x",
        ulimits=(("nofile", 10, 20), ("core", -1, -1)),
    )


@pytest.mark.parametrize(
    ("key", "value", "kind", "message"),
    [
        ("nonsense", "", Unsupported, "frontend option 'nonsense' is not supported"),
        ("nonsense:x", "", Unsupported, "frontend option 'nonsense:x'"),
        ("source", "example.com/frontend", Unsupported, "only docker/dockerfile is built in"),
        ("build-arg:BUILDKIT_SYNTAX", "my/frontend", Unsupported, "'my/frontend' cannot be run"),
        ("platform", "a/b/c/d", InvalidParameter, "cannot parse platform specifier"),
        ("ulimit", "nofile", InvalidParameter, "invalid ulimit 'nofile'"),
        ("add-hosts", "a=b", InvalidParameter, "invalid host 'a=b'"),
        ("shm-size", "1k", InvalidParameter, "invalid shm-size"),
        ("multi-platform", "maybe", InvalidParameter, "invalid multi-platform"),
        ("force-network-mode", "mine", InvalidParameter, "invalid network mode"),
        ("image-resolve-mode", "x", InvalidParameter, "invalid image-resolve-mode"),
    ],
)
def test_what_is_refused(key: str, value: str, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        parse({key: value})


def test_order_does_not_matter() -> None:
    one = {"label:b": "1", "label:a": "2", "build-arg:z": "3", "build-arg:y": "4"}
    other = dict(reversed(one.items()))
    assert list(parse(one).labels.items()) == list(parse(other).labels.items())
    assert list(parse(one).arguments.items()) == list(parse(other).arguments.items())
