"""Source policies: what is allowed, denied, and taken instead."""

from __future__ import annotations

import pytest

from sampan.build.remote import GitSource
from sampan.build.sourcepolicy import Action, Asked, Rule, SourcePolicy
from sampan.errors import Forbidden, InvalidParameter, Unsupported

HUB = "docker-image://docker.io/library"


def rule(action: Action, pattern: str, replacement: str = "", **more: object) -> Rule:
    return Rule(action=action, pattern=pattern, replacement=replacement, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pattern", "replacement", "asked", "expected"),
    [
        (
            "docker-image://*/busybox:*",
            "docker-image://$1/alpine:${2}",
            "busybox:1.2",
            "alpine:1.2",
        ),
        (f"{HUB}/*", "docker-image://mirror.test/$1", "busybox", "mirror.test/busybox:latest"),
        ("docker-image://*a*a*", "docker-image://x/$3", "y/banana", "x/test"),
        (f"{HUB}/busybox:latest", f"{HUB}/busybox@sha256:{'0' * 64}", "busybox", "busybox"),
        (f"{HUB}/busy*x:9", f"{HUB}/other:1", "busybox", "busybox"),
    ],
)
def test_images_are_converted(pattern: str, replacement: str, asked: str, expected: str) -> None:
    found = SourcePolicy(rules=[rule(Action.CONVERT, pattern, replacement)]).image(asked)
    assert found.partition("@")[0].removeprefix("docker.io/library/") == expected
    assert ("@" in found) == ("@" in replacement)


def test_the_last_that_matches_counts() -> None:
    deny, allow = rule(Action.DENY, "*"), rule(Action.ALLOW, f"{HUB}/busybox:*")
    assert SourcePolicy(rules=[deny, allow]).image("busybox") == "busybox"
    for rules, name in (([deny, allow], "other"), ([allow, deny], "busybox")):
        with pytest.raises(Forbidden, match=f"{HUB}/{name}:latest' denied by policy"):
            SourcePolicy(rules=rules).image(name)
    exact = rule(Action.DENY, f"{HUB}/busy*", exact=True)
    assert SourcePolicy(rules=[exact]).image("busybox") == "busybox"
    to_denied = rule(Action.CONVERT, f"{HUB}/a:latest", f"{HUB}/b:latest")
    with pytest.raises(Forbidden, match="/b:latest"):
        SourcePolicy(rules=[to_denied, rule(Action.DENY, f"{HUB}/b:*")]).image("a")


def test_circles_and_other_kinds() -> None:
    there = rule(Action.CONVERT, f"{HUB}/a:latest", f"{HUB}/b:latest")
    back = rule(Action.CONVERT, f"{HUB}/b:latest", f"{HUB}/a:latest")
    with pytest.raises(InvalidParameter, match="too many mutations"):
        SourcePolicy(rules=[there, back]).image("a")
    with pytest.raises(Unsupported, match="cannot become"):
        SourcePolicy(rules=[rule(Action.CONVERT, f"{HUB}/*", "https://x/y")]).image("a")
    with pytest.raises(InvalidParameter, match="invalid wildcard"):
        rule(Action.DENY, "a**")


def test_addresses_and_repositories() -> None:
    pinned = rule(Action.CONVERT, "https://a/f", attributes={"http.checksum": "sha256:1"})
    moved = rule(Action.CONVERT, "https://b/*", "https://c/$1")
    policy = SourcePolicy(rules=[pinned, moved])
    assert policy.address("https://a/f") == ("https://a/f", "sha256:1")
    assert policy.address("https://b/x", "sha256:2") == ("https://c/x", "sha256:2")
    only = rule(Action.DENY, "https://*", unequal=[("http.checksum", "sha256:2")])
    assert SourcePolicy(rules=[only]).address("https://b", "sha256:2") == ("https://b", "sha256:2")
    with pytest.raises(Forbidden):
        SourcePolicy(rules=[only]).address("https://b")
    commit = rule(Action.CONVERT, "git://h/r.git#*", "", attributes={"git.checksum": "abc"})
    source = GitSource(repository="https://h/r.git", ref="main")
    assert SourcePolicy(rules=[commit]).repository(source).checksum == "abc"
    with pytest.raises(Forbidden, match=r"git://h/r\.git#main"):
        SourcePolicy(rules=[rule(Action.DENY, "git://*")]).repository(source)
    asked = Asked(identifier="git://h/r.git", attributes={"git.checksum": "x"})
    assert asked.checksum == "x"
