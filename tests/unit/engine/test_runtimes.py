"""Choosing the runtime of a container, and what is refused with another than ours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.engine import runtimes
from sampan.engine.config import EngineConfig, ExternalRuntime
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter, StartFailed, Unsupported
from sampan.wire.container import HostConfig

IMAGE = MountRecord(type="image", destination="/i", source="", name="busybox")


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., EngineConfig]:
    program = tmp_path / "other"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    registered = {
        "other": ExternalRuntime(path=str(program), args=("--debug",)),
        "gone": ExternalRuntime(path=str(tmp_path / "gone")),
        "plain": ExternalRuntime(path="sh"),
    }
    return lambda **changes: EngineConfig(runtimes=registered, **changes)


def test_commands(config: Callable[..., EngineConfig], tmp_path: Path) -> None:
    assert runtimes.command(config(), "") == runtimes.command(config(), "sampan") == ()
    assert runtimes.command(config(), "other") == (str(tmp_path / "other"), "--debug")
    assert runtimes.command(config(), "plain") in (("/usr/bin/sh",), ("/bin/sh",))
    with pytest.raises(StartFailed, match="runtime gone: there is no program"):
        runtimes.command(config(), "gone")
    with pytest.raises(InvalidParameter, match="unknown or invalid runtime name: kata"):
        runtimes.command(config(), "kata")
    assert set(runtimes.available(config())) >= {"other", "gone", "plain"}


@pytest.mark.parametrize(
    ("host", "changes", "mounts", "remapped", "what"),
    [
        ({"init": True}, {}, [], False, "init"),
        ({}, {"default_init": True}, [], False, "init"),
        ({"userns_mode": "auto"}, {}, [], False, "a user namespace"),
        ({}, {}, [], True, r"a user namespace \(userns-remap\)"),
        ({}, {"cgroup_driver": "systemd"}, [], False, "the cgroup driver systemd"),
        ({}, {}, [IMAGE], False, "a mount of a whole image"),
    ],
)
def test_what_only_ours_has(
    config: Callable[..., EngineConfig],
    host: dict[str, object],
    changes: dict[str, object],
    mounts: list[MountRecord],
    remapped: bool,
    what: str,
) -> None:
    chosen = config(**changes)
    runtimes.check(chosen, HostConfig(runtime="sampan", **host), mounts, remapped=remapped)
    with pytest.raises(Unsupported, match=f"runtime other: {what} can be had with"):
        runtimes.check(chosen, HostConfig(runtime="other", **host), mounts, remapped=remapped)


def test_what_any_has(config: Callable[..., EngineConfig]) -> None:
    host = HostConfig(runtime="other", userns_mode="host", init=False)
    bind = MountRecord(type="bind", destination="/b", source="/")
    runtimes.check(config(default_init=True), host, [bind], remapped=True)
    with pytest.raises(InvalidParameter, match="there is no program"):
        runtimes.check(config(), HostConfig(runtime="gone"), [], remapped=False)
