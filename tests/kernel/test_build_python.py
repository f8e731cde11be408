"""``engine.build`` and recipes: builds in Python, with and without a Dockerfile."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import sampan
from sampan import from_
from sampan.build.gcpolicy import Policy, Settings
from sampan.build.tools import StepFailed
from sampan.dockerfile.parser import parse
from sampan.errors import InvalidParameter
from tests.pythonbuilds import base, configuration, embedded, made_context, remove_cgroups

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sampan.Engine]:
    with embedded(tmp_path) as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return made_context(tmp_path)


def test_a_recipe_becomes_an_image(engine: sampan.Engine, context: Path, tmp_path: Path) -> None:
    value = 'q"uote $HOME \\back'
    tool = base().run("echo one >/made\necho two >>/made", network="none")
    recipe = (
        base()
        .env(V=value, W="2")
        .copy("a b", "/dir with space/", chown="7:8", chmod="600")
        .copy("/made", "/made", from_=tool)
        .workdir("/w")
        .run(["/bin/busybox", "sh", "-c", 'printf %s "$V" >v'], network="none")
        .label({"l 1": "x"})
        .cmd("echo hi")
    )
    told: list[str] = []
    built = engine.build(
        recipe,
        context=context,
        tags=["recipe:1"],
        outputs=[
            "type=image",
            f"type=tar,dest={tmp_path}/out.tar",
            f"type=local,dest={tmp_path}/out",
        ],
        news=lambda name, _data: told.append(name),
    )
    assert (tmp_path / "out" / "w" / "v").read_text() == value
    assert (tmp_path / "out" / "made").read_text() == "one\ntwo\n"
    with tarfile.open(tmp_path / "out.tar") as tar:
        entry = tar.getmember("dir with space/a b")
        assert (entry.uid, entry.gid, entry.mode) == (7, 8, 0o600)
    inspected = engine.images.inspect("recipe:1")
    assert inspected.id == built.id
    assert inspected.config is not None
    assert inspected.config.cmd == ["/bin/sh", "-c", "echo hi"]
    assert any("RUN" in name for name in told)
    again = engine.build(recipe, context=context)
    assert again.id == built.id


def test_a_step_waits_for_no_disk(engine: sampan.Engine, context: Path, tmp_path: Path) -> None:
    busybox = "/bin/busybox"
    recipe = (
        base()
        .run(f"{busybox} grep ' / overlay ' /proc/mounts > /mounted", network="none")
        .run(f"{busybox} cat /mounted > /again", network="none")
    )
    engine.build(recipe, context=context, outputs=[f"type=local,dest={tmp_path}/out"])
    assert "volatile" in (tmp_path / "out" / "again").read_text()


def test_directories_and_failures(engine: sampan.Engine, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM scratch AS x\nCOPY bin /bin\nRUN --network=none exit 7\n"
    )
    with pytest.raises(StepFailed, match="exit code: 7") as failure:
        engine.build(context)
    assert failure.value.lines == (3, 3)
    assert engine.containers.list(all=True) == []
    with pytest.raises(InvalidParameter, match="nothing to build"):
        engine.build()
    with pytest.raises(InvalidParameter, match="is no directory"):
        engine.build(context / "none")


async def test_what_the_cache_drops_is_gone(context: Path, tmp_path: Path) -> None:
    engine = await sampan.AsyncEngine.open(configuration(tmp_path))
    try:
        recipe = base().run("echo kept > /cache/f", mounts=["type=cache,target=/cache,id=c"])
        built = await engine.build(recipe, context=context, network="none")
        kinds = [one.type for one in await engine.builds.usage()]
        assert sorted(str(kind) for kind in kinds) == ["exec.cachemount", "regular", "regular"]
        await engine.images.remove(built.id, force=True)
        assert list(engine.core.content.walk()) != []  # the cache needs its layers
        await engine.builds.held.collect(Settings(policies=(Policy(max_used=1),), enabled=False))
        assert len(await engine.builds.usage()) == 3
        await engine.builds.held.collect(Settings(policies=(Policy(max_used=1),)))
        assert await engine.builds.usage() == []
        assert list(engine.core.content.walk()) == []
        assert list(engine.core.snapshots.walk()) == []
        assert list((tmp_path / "data/build/caches").iterdir()) == []
    finally:
        await engine.close()
        remove_cgroups()


def test_recipes_are_dockerfiles() -> None:
    shared = from_("busybox", platform="linux/amd64").arg("A", "x y").user("me")
    one, two = shared.run(["true"]), shared.run("false")
    text = one.copy("/f", "/g", from_=two).healthcheck(None).volume("/a b").dockerfile()
    nodes = parse(text).nodes
    assert [node.keyword for node in nodes if node.keyword == "from"] == ["from"] * 2
    assert 'COPY --from=recipe-0 ["/f", "/g"]' in text
    for bad in ("a\nb", "a b", ""):
        with pytest.raises(InvalidParameter):
            from_(bad)
