"""``engine.build`` in Python: the embedded engine and a daemon's do the same."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sampan
from sampan.build.arguments import BuildArguments
from sampan.build.executor import Limits
from sampan.errors import InvalidParameter, NotFound, SampanError
from tests.compat.build.test_door import agent  # noqa: F401
from tests.compat.conftest import Sampand
from tests.pythonbuilds import base, embedded, made_context

Engine = sampan.Engine | sampan.RemoteEngine


@pytest.fixture(params=["embedded", "remote"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    if request.param == "remote":
        daemon: Sampand = request.getfixturevalue("sampand")
        with sampan.connect(daemon.host) as remote:
            yield remote
        return
    with embedded(tmp_path) as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return made_context(tmp_path)


def test_a_recipe(engine: Engine, context: Path, tmp_path: Path) -> None:
    tool = base().run("echo one >/made; echo said", network="none")
    recipe = base().copy("a b", "/d/", chown="7:8", chmod="600").copy("/made", "/made", from_=tool)
    told: list[tuple[str, bytes]] = []
    built = engine.build(
        recipe,
        context=context,
        tags=["python:recipe"],
        labels={"l": "x"},
        outputs=[
            "type=image",
            f"type=tar,dest={tmp_path}/out.tar",
            str(tmp_path / "out"),
            f"type=oci,dest={tmp_path}/oci.tar",
        ],
        provenance="mode=max",
        news=lambda name, data: told.append((name, data)),
    )
    assert (tmp_path / "out" / "made").read_text() == "one\n"
    with tarfile.open(tmp_path / "out.tar") as tar:
        entry = tar.getmember("d/a b")
        assert (entry.uid, entry.gid, entry.mode) == (7, 8, 0o600)
    with tarfile.open(tmp_path / "oci.tar") as tar:
        assert "index.json" in tar.getnames()
    assert any("buildx.build.provenance" in key for key in built.metadata)
    assert any("RUN" in name and not data for name, data in told)
    assert b"said\n" in [data for _, data in told]
    plain = engine.build(recipe, context=context, tags=["python:plain"], labels={"l": "x"})
    inspected = engine.images.inspect("python:plain")
    assert inspected.id == plain.id
    assert inspected.config is not None
    assert inspected.config.labels == {"l": "x"}
    assert engine.build(recipe, context=context, labels={"l": "x"}).id == plain.id


def test_a_directory_with_everything(
    engine: Engine,
    context: Path,
    tmp_path: Path,
    agent: Path,  # noqa: F811
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "f").write_text("other\n")
    (context / "My.Dockerfile").write_text(
        "FROM scratch AS made\nARG WHAT=default\nCOPY bin /bin\nENV PATH=/bin\n"
        "RUN --mount=type=secret,id=s --mount=type=ssh echo ran;"
        " busybox wc -c </run/secrets/s >/size; busybox test -S $SSH_AUTH_SOCK &&"
        " echo $WHAT >/what; ulimit -n >/files\n"
        "COPY --from=extra f /f\nCOPY . /all\nFROM scratch AS other\n"
    )
    options: BuildArguments = {
        "file": "My.Dockerfile",
        "target": "made",
        "arguments": {"WHAT": "asked"},
        "secrets": {"s": b"12345"},
        "ssh": {"default": str(agent)},
        "contexts": {"extra": tmp_path / "other"},
        "network": "none",
        "limits": Limits(ulimits=(("nofile", 123, 456),)),
        "cache_to": [{"type": "local", "dest": str(tmp_path / "cache"), "mode": "max"}],
    }
    out = tmp_path / "out"
    engine.build(context, outputs=[f"type=local,dest={out}"], **options)
    found = {name: (out / name).read_text().strip() for name in ("size", "what", "files", "f")}
    assert found == {"size": "5", "what": "asked", "files": "123", "f": "other"}
    assert not (out / "all" / "hidden").exists()
    assert (out / "all" / "a b").read_text() == "spaced\n"
    assert (tmp_path / "cache" / "index.json").exists()
    told: list[bytes] = []
    del options["cache_to"]
    engine.build(
        context,
        no_cache_filter=["nothing"],
        cache_from=[{"type": "local", "src": str(tmp_path / "cache")}],
        news=lambda name, data: told.append(data if "RUN" in name else b""),
        **options,
    )
    assert not any(told), "no program has run"


def test_an_image_of_a_layout(engine: Engine, context: Path, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    based = base().run("echo based >/base", network="none")
    engine.build(based, context=context, outputs=[f"type=oci,dest={layout},tar=false"], tags=["a"])
    (layout / "more").write_text("nobody asked for it")
    text = "FROM base\nCOPY --from=base /base /again\nRUN --network=none echo more >>/again\n"
    options: BuildArguments = {"contexts": {"base": f"oci-layout://{layout}"}, "text": text}
    engine.build(outputs=[str(tmp_path / "out")], **options)
    assert (tmp_path / "out" / "again").read_text() == "based\nmore\n"
    for address in (f"{layout}:none", tmp_path / "none", f"{layout}@sha256:x"):
        options["contexts"] = {"base": f"oci-layout://{address}"}
        with pytest.raises(SampanError, match=r"no image 'none'|not an OCI layout|invalid digest"):
            engine.build(**options)
    options["contexts"] = {"base": f"oci-layout://{layout}@sha256:{'0' * 64}"}
    with pytest.raises(SampanError, match=f"the OCI layout has no blobs/sha256/{'0' * 64}"):
        engine.build(**options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine, _: engine.build(), "nothing to build"),
        (lambda engine, path: engine.build(path / "none"), "is no directory"),
        (lambda engine, path: engine.build(path, outputs=["type=tar"]), "dest"),
        (lambda engine, path: engine.build(path, outputs=["type=x"]), "'x' is not supported"),
        (lambda engine, path: engine.build(path, allow=["x"], text="FROM scratch"), "'x'"),
    ],
)
def test_what_is_wrong_from_the_start(
    engine: Engine, context: Path, call: Callable[[Engine, Path], object], message: str
) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nCOPY bin /bin\n")
    with pytest.raises(SampanError, match=message):
        call(engine, context)


def test_failures(engine: Engine, context: Path) -> None:
    with pytest.raises(NotFound, match="Cannot locate specified Dockerfile"):
        engine.build(context)
    (context / "Dockerfile").write_text(
        "FROM scratch\nCOPY bin /bin\nRUN --network=none echo why; exit 7\n"
    )
    with pytest.raises(SampanError, match="exit code: 7"):
        engine.build(context)
    assert engine.containers.list(all=True) == []
    with pytest.raises(InvalidParameter, match="without the text"):
        engine.build(base(), text="FROM scratch")


def test_by_an_asynchronous_caller(sampand: Sampand, context: Path, tmp_path: Path) -> None:
    async def build() -> str:
        async with sampan.connect_async(sampand.host) as engine:
            built = await engine.build(base(), context=context, outputs=[str(tmp_path / "out")])
            return built.id

    assert asyncio.run(build()).startswith("sha256:")
    assert (tmp_path / "out" / "bin" / "busybox").exists()
