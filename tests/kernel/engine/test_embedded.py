"""``sampan.Engine``: the engine in ordinary Python, as the README shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import sampan
from sampan.engine.options import ImportOptions
from sampan.errors import CommandNotFound, NotFound
from sampan.wire.volume import VolumeCreateRequest
from tests.engines import World, busybox_tar


@pytest.fixture
def embedded(world: World) -> Iterator[sampan.Engine]:
    with sampan.Engine(world.config) as engine:
        list(engine.images.import_([busybox_tar()], ImportOptions(repo="busybox")))
        yield engine


def test_run(embedded: sampan.Engine) -> None:
    assert embedded.run("busybox", ["echo", "hi"]).stdout == "hi\n"
    done = embedded.run(
        "busybox",
        "sh -c 'cat; echo $A >&2; exit 3'",
        stdin=b"in",
        env={"A": "b"},
        memory=64 << 20,
        network="none",
    )
    assert (done.stdout_bytes, done.stderr, done.exit_code) == (b"in", "b\n", 3)
    with pytest.raises(sampan.RunFailed, match="exit code 4: why"):
        embedded.run("busybox", ["sh", "-c", "echo why >&2; exit 4"], check=True)
    with pytest.raises(CommandNotFound):
        embedded.run("busybox", ["nosuch"])
    with pytest.raises(TimeoutError):
        embedded.run("busybox", ["sleep", "100"], timeout=0.2)
    with pytest.raises(NotFound, match="No such image: nosuch:latest"):
        embedded.run("nosuch", ["true"], pull=False)
    assert embedded.containers.list(all=True) == []


def test_services(embedded: sampan.Engine) -> None:
    events = embedded.events.subscribe(filters={"type": ["volume"]})
    embedded.volumes.create(VolumeCreateRequest(name="mine"))
    assert next(events).action == "create"
    events.close()  # type: ignore[attr-defined]
    archive = b"".join(embedded.images.save(["busybox"]))
    assert [p["stream"] for p in embedded.images.load([archive])] == [
        "Loaded image: busybox:latest\n"
    ]


def test_one_engine_to_a_data_root(embedded: sampan.Engine) -> None:
    with pytest.raises(sampan.SampanError, match="another engine has"):
        sampan.Engine(embedded.config)
    embedded.close()
    with sampan.Engine(embedded.config) as again:
        assert again.images.list()
