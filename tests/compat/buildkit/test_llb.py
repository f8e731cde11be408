"""Graphs of LLB: sources, programs, file actions, merges, differences; errors; both doors to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.exceptions import GRPCError

from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.rpc import Channel
from tests.compat.buildkit.client import Client, Source, connect, method
from tests.compat.buildkit.graphs import Writer, copied, directory, made, removed
from tests.compat.conftest import DockerCli, Eventually, Sampand

BUSYBOX = "docker-image://docker.io/library/busybox:latest"
EXPORT = [control.Exporter(Type="image", Attrs={"name": "bk:graph"})]
SECONDS = 60


@pytest.fixture
async def client(sampand: Sampand) -> AsyncIterator[Client]:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    async with connect(sampand.socket) as found:
        yield found


async def solved(
    client: Client, definition: ops.Definition, source: Source | None = None, **fields: object
) -> control.StatusResponse:
    """Solve a graph into the image ``bk:graph``; the news of it."""
    ref = os.urandom(12).hex()
    async with client.session(source or Source()) as session:
        request = control.SolveRequest(
            Ref=ref,
            Session=session,
            Definition=definition,
            Exporters=EXPORT,
            **fields,  # type: ignore[arg-type]
        )
        following = asyncio.ensure_future(client.status(ref))
        try:
            async with asyncio.timeout(SECONDS):
                await client.call("Solve", request)
                return await following
        finally:
            following.cancel()
            await asyncio.wait([following])


def shown(docker: DockerCli, script: str) -> str:
    return docker.out("run", "--rm", "--network=none", "bk:graph", "sh", "-c", script)


async def test_a_program_with_all_it_may_be_given(
    client: Client, docker: DockerCli, tmp_path: Path
) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir" / "file").write_text("from the client\n")
    graph = Writer()
    local = graph.source("local://context")
    script = (
        "cat /in/file /run/secrets/tok > /out/all; echo $WORD >> /out/all; echo kept > /cache/x;"
        "mount | grep -c 'on /quick type tmpfs' >> /out/all; ! touch /in/new"
    )
    made_by = graph.run(
        graph.source(BUSYBOX),
        script,
        ops.Mount(dest="/in", input=1, selector="dir", output=-1, readonly=True),
        ops.Mount(dest="/out", input=-1, output=1),
        ops.Mount(dest="/cache", input=-1, output=-1, mountType=ops.CACHE),
        ops.Mount(dest="/quick", input=-1, output=-1, mountType=ops.TMPFS),
        ops.Mount(
            dest="/run/secrets/tok",
            input=-1,
            output=0,  # as clients leave it
            mountType=ops.SECRET,
            secretOpt=ops.SecretOpt(ID="tok", mode=0o400),
        ),
        inputs=[local],
        name="all of it",
        secretenv=[ops.SecretEnv(ID="tok", name="WORD")],
    )
    output = ops.Input(digest=made_by.digest, index=1)
    action = copied("/all", "/all")
    action.input = 0
    action.output = 0
    final = graph.add(ops.Op(file=ops.FileOp(actions=[action])), graph.source(BUSYBOX), output)
    source = Source(directories={"context": tmp_path}, secrets={"tok": b"hush"})
    news = await solved(client, graph.definition(final), source)
    assert shown(docker, "cat /all") == "from the client\nhushhush\n1"
    vertexes = {one.name: one for one in news.vertexes}
    assert vertexes["all of it"].digest == made_by.digest
    assert local.digest in vertexes["all of it"].inputs
    news = await solved(client, graph.definition(final), source)
    final_news = {one.name: one for one in news.vertexes}
    assert final_news["all of it"].cached
    assert final_news["copy /all /all"].cached


async def test_files_made_copied_and_removed(client: Client, docker: DockerCli) -> None:
    graph = Writer()
    other = graph.files(
        directory("/a/b/c"),
        made("/a/b/one", "1"),
        made("/a/two", "2"),
        made("/a/b/c/three", "3"),
        made("/a/gone", ""),
        removed("/a/go*", wildcard=True),
    )
    base = graph.source(BUSYBOX)
    picked = copied("/a", "/some/where/", include_patterns=["b/c/*", "two"])
    picked.input, picked.output = 0, -1
    owned = copied("/a/b/*", "/owned/", exclude_patterns=["**/three"])
    owned.copy.owner.user.byID = 7
    owned.copy.owner.group.byID = 8
    owned.copy.mode = 0o750
    owned.input, owned.output = 2, 0
    both = graph.add(ops.Op(file=ops.FileOp(actions=[picked, owned])), base, other)
    await solved(client, graph.definition(both))
    assert shown(docker, "cd /some/where; find . | sort").split() == [
        ".", "./b", "./b/c", "./b/c/three", "./two",
    ]  # fmt: skip
    assert shown(docker, "stat -c '%n %u:%g %a' /owned /owned/*").splitlines() == [
        "/owned 7:8 750",
        "/owned/one 7:8 750",
    ]


async def test_merges_and_differences(client: Client, docker: DockerCli) -> None:
    graph = Writer()
    base = graph.source(BUSYBOX)
    first = graph.run(base, "echo 1 > /one; echo x > /both")
    second = graph.run(first, "echo 2 > /two; rm /both")
    changes = graph.diff(first, second)
    third = graph.run(base, "echo 3 > /both; echo 3 > /three")
    await solved(client, graph.definition(graph.merge(third, changes)))
    assert shown(docker, "cat /two /three; ls /one /both 2>&1 | wc -l").split() == ["2", "3", "2"]
    layers = docker.out("inspect", "-f", "{{len .RootFS.Layers}}", "bk:graph")
    assert layers == "3", "the base, what the third did, and the second's changes"
    unrelated = graph.diff(third, second)
    await solved(client, graph.definition(graph.merge(base, unrelated)))
    assert shown(docker, "cat /one /two; ls /three /both 2>&1 | wc -l").split() == ["1", "2", "2"]


async def test_what_fails_is_told_with_its_place(client: Client) -> None:
    graph = Writer()
    failing = graph.run(graph.source(BUSYBOX), "exit 7")
    definition = graph.definition(failing)
    definition.Source.infos.add(filename="my.build", data=b"first\nrun exit 7\n", language="mine")
    place = definition.Source.locations[failing.digest].locations.add(sourceIndex=0)
    place.ranges.add(start=ops.Position(line=2), end=ops.Position(line=2))
    with pytest.raises(GRPCError) as caught:
        await solved(client, definition)
    assert "did not complete successfully: exit code: 7" in (caught.value.message or "")
    kinds = [one.type_url.rpartition("/")[2] for one in caught.value.details]
    assert kinds == ["errdefs.Source+json", "errdefs.Vertex+json"]
    assert b"my.build" in caught.value.details[0].value
    assert failing.digest.encode() in caught.value.details[1].value


def _no_end(graph: Writer) -> ops.Definition:
    found = ops.Definition()
    getattr(found, "def").extend(graph.written)
    return found


async def test_what_is_no_graph_is_refused(client: Client) -> None:
    graph = Writer()
    image = graph.source(BUSYBOX)
    nowhere = ops.Input(digest="sha256:" + "0" * 64)
    build = graph.add(ops.Op(build=ops.BuildOp(builder=-1)), image)
    refused = (
        (_no_end(graph), "names no result"),
        (graph.definition(nowhere), "invalid missing input digest"),
        (graph.definition(graph.run(nowhere, "true")), "invalid missing input digest"),
        (graph.definition(graph.source("floppy://a")), "source 'floppy' of a graph"),
        (graph.definition(graph.source(BUSYBOX, image_x="1")), "attribute 'image.x'"),
        (graph.definition(ops.Input(digest=image.digest, index=3)), "has no output 3"),
        (graph.definition(build), "build ops"),
        (graph.definition(graph.run(image, "true", network=ops.HOST)), "network.host is not"),
        (graph.definition(graph.files(removed("/nothing"), inputs=(image,))), "rm /nothing"),
    )
    for definition, words in refused:
        with pytest.raises(GRPCError) as caught:
            await solved(client, definition)
        assert words in (caught.value.message or "")


async def test_http2_without_asking_first(sampand: Sampand) -> None:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    channel = Channel()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_unix_connection(lambda: channel.protocol, str(sampand.socket))
    try:
        info = await channel.call(method("Info"), control.InfoRequest())
        assert info.buildkitVersion.package == "sampan"
    finally:
        transport.close()
        channel.shut()
        await asyncio.sleep(0)


async def test_a_graph_that_is_given_up_leaves_nothing(
    client: Client, sampand: Sampand, eventually: Eventually, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("x")
    graph = Writer()
    naps = graph.run(
        graph.source(BUSYBOX),
        "exec sleep 4217",
        ops.Mount(dest="/in", input=1, output=-1, readonly=True),
        inputs=[graph.source("local://context")],
    )
    source = Source(directories={"context": tmp_path})
    task = asyncio.ensure_future(solved(client, graph.definition(naps), source))
    containers = sampand.root / "exec" / "containers"
    await asyncio.to_thread(eventually, lambda: list(containers.iterdir()))
    task.cancel()
    await asyncio.wait([task])
    await asyncio.to_thread(eventually, lambda: not list(containers.iterdir()))
    for place in ("contexts", "mounts"):
        left = sampand.root / "data" / "build" / place
        await asyncio.to_thread(eventually, lambda left=left: not list(left.iterdir()))  # type: ignore[misc]
