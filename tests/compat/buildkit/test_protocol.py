"""BuildKit's protocol by a client of our own: no tool is needed, and nothing is off limits."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.protocol import ops_pb2 as ops
from sampan.buildkit.protocol.stat_pb2 import Stat
from tests.compat.buildkit.client import Client, Source, connect, upgrade
from tests.compat.conftest import DockerCli, Eventually, Sampand

EXPORT = [control.Exporter(Type="image", Attrs={"name": "bk:protocol"})]
LINK = 1 << 27 | 0o777


@pytest.fixture
async def client(sampand: Sampand) -> AsyncIterator[Client]:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    async with connect(sampand.socket) as found:
        yield found


@pytest.fixture
def context(tmp_path: Path) -> Path:
    directory = tmp_path / "context"
    directory.mkdir()
    (directory / "Dockerfile").write_text("FROM busybox\nCOPY a b /\nRUN cat /a /b\n")
    for name in "abc":
        (directory / name).write_text(f"{name}\n")
    return directory


def of(context: Path, **fields: object) -> Source:
    return Source(directories={"context": context, "dockerfile": context}, **fields)  # type: ignore[arg-type]


async def test_what_the_daemon_is(client: Client, sampand: Sampand) -> None:
    workers = await client.call("ListWorkers", control.ListWorkersRequest())
    (worker,) = workers.record
    assert worker.Labels["org.mobyproject.buildkit.worker.executor"] == "sampan"
    assert [platform.OS for platform in worker.platforms] == ["linux"]
    info = await client.call("Info", control.InfoRequest())
    assert info.buildkitVersion.package == "sampan"
    with pytest.raises(GRPCError) as caught:
        await client.call("UpdateBuildHistory", control.UpdateBuildHistoryRequest(Ref="nobody"))
    assert caught.value.status is Status.NOT_FOUND
    for target in ("/grpc", "/session"):
        assert b"no upgrade proto" in await _body(sampand, target, [])
        assert b"protocol spdy not supported" in await _body(sampand, target, [("Upgrade", "spdy")])
    assert b"X-Docker-Expose-Session-Uuid" in await _body(sampand, "/session", [("Upgrade", "h2c")])


async def test_messages_are_bounded(client: Client) -> None:
    """As BuildKit bounds them: what is larger is refused by its head, before it is held."""
    whole = control.DiskUsageRequest(filter=["type==" + "x" * (15 << 20)])
    assert not (await client.call("DiskUsage", whole)).record
    with pytest.raises(GRPCError) as caught:
        await client.call("DiskUsage", control.DiskUsageRequest(filter=["x" * (16 << 20)]))
    assert caught.value.status is Status.RESOURCE_EXHAUSTED
    assert "larger than max" in (caught.value.message or "")
    assert (await client.call("Info", control.InfoRequest())).buildkitVersion.package == "sampan"


async def _body(sampand: Sampand, target: str, headers: list[tuple[str, str]]) -> bytes:
    head = await upgrade(sampand.socket, target, [*headers, ("Content-Length", "0")])
    assert head.startswith(b"HTTP/1.1 400"), head
    reader, writer = await asyncio.open_unix_connection(sampand.socket)
    lines = [f"POST {target} HTTP/1.1", "Host: x", "Content-Length: 0"]
    lines += [f"{name}: {value}" for name, value in headers]
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode())
    answer = await reader.read()
    writer.close()
    return answer


async def test_a_build_and_its_news(client: Client, docker: DockerCli, context: Path) -> None:
    source = of(context)
    outputs, news = await client.solve(source, Exporters=EXPORT, shared_key="news")
    assert outputs["image.name"] == "docker.io/library/bk:protocol"
    assert docker.out("inspect", "-f", "{{.Id}}", "bk:protocol") == outputs["containerimage.digest"]
    final = {vertex.name: vertex for vertex in news.vertexes}
    assert [name for name in final if not name.startswith("[internal]")] == [
        "[1/3] FROM busybox",
        "[2/3] COPY a b /",
        "[3/3] RUN cat /a /b",
        "exporting to image",
    ]
    assert all(one.HasField("completed") and not one.error for one in final.values())
    run = final["[3/3] RUN cat /a /b"]
    assert list(run.inputs) == [final["[2/3] COPY a b /"].digest]
    assert b"".join(entry.msg for entry in news.logs if entry.vertex == run.digest) == b"a\nb\n"
    wanted = [asked for name, asked in source.asked if "followpaths" in asked][-1]
    assert wanted["followpaths"] == ["a", "b"], "c is not used, and busybox has no triggers"
    again = of(context)
    _, news = await client.solve(again, Exporters=EXPORT, shared_key="news")
    assert again.fetched == [], "nothing has changed"
    assert sum(one.cached for one in {v.name: v for v in news.vertexes}.values()) == 2


async def test_two_builds_of_one_context_at_a_time(client: Client, context: Path) -> None:
    done = await asyncio.gather(
        *(client.solve(of(context), shared_key="together") for _ in range(3))
    )
    for _, news in done:
        assert not [vertex for vertex in news.vertexes if vertex.error]


async def test_failures_carry_their_place(client: Client, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN one \\\n  two\n")
    with pytest.raises(GRPCError) as caught:
        await client.solve(of(context))
    error = caught.value
    assert error.status is Status.UNKNOWN
    assert error.message == (
        'process "/bin/sh -c one   two" did not complete successfully: exit code: 127'
    )
    found = {detail.type_url: json.loads(detail.value) for detail in error.details}
    source = found["github.com/moby/buildkit/errdefs.Source+json"]
    assert source["ranges"] == [{"start": {"line": n}, "end": {"line": n}} for n in (2, 3)]
    assert source["info"]["filename"] == "Dockerfile"
    assert "github.com/moby/buildkit/errdefs.Vertex+json" in found


REFUSED = [
    ({"attributes": {"nonsense": "x"}}, "frontend option 'nonsense' is not supported"),
    ({"attributes": {"source": "x/y"}}, "frontend image 'x/y' cannot be run"),
    ({"attributes": {"target": "x"}}, 'target stage "x" could not be found'),
    ({"attributes": {"requestid": "frontend.x"}}, "unsupported request frontend.x"),
    ({"attributes": {"context:busybox": "oci-layout://x"}}, "oci-layout requires a digest"),
    ({"Exporters": [control.Exporter(Type="x")]}, "output type 'x' is not supported"),
    (
        {"Exporters": [control.Exporter(Type="image", Attrs={"x": "y"})]},
        "key 'x' of output type 'image' is not supported",
    ),
    ({"Entitlements": ["x"]}, "entitlement 'x' is not supported"),
    ({"ProxyNetwork": True}, "network proxy"),
    ({"Cache": control.CacheOptions(Exports=[control.CacheOptionsEntry(Type="x")])}, "type 'x'"),
    (
        {"Definition": ops.Definition(**{"def": [ops.Op().SerializeToString()]})},  # type: ignore[arg-type]
        "names no result",
    ),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED, ids=[text for _, text in REFUSED])
async def test_what_is_not_done_is_refused_by_name(
    client: Client, context: Path, fields: dict[str, object], message: str
) -> None:
    with pytest.raises(GRPCError) as caught:
        await client.solve(of(context), **fields)  # type: ignore[arg-type]
    assert message in (caught.value.message or "")


HOSTILE = {
    "outside": [Stat(path="../../../out", mode=0o644)],
    "through a link": [
        Stat(path="a", mode=LINK, linkname="../../../.."),
        Stat(path="a/out", mode=0o644),
    ],
    "twice": [Stat(path="a", mode=0o644), Stat(path="a", mode=LINK, linkname="/etc/shadow")],
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_context_stays_inside(
    client: Client, context: Path, sampand: Sampand, name: str
) -> None:
    source = of(context, listings={"context": HOSTILE[name]}, contents=lambda where, path: b"x")
    source.contents = lambda where, path: (
        (context / path).read_bytes() if where == "dockerfile" else b"hostile"
    )
    with pytest.raises(GRPCError, match="the client sent"):
        await client.solve(source, shared_key="hostile")
    assert not list((sampand.root / "data" / "build").rglob("out"))
    await client.solve(of(context), shared_key="hostile")


async def test_a_link_of_the_context_does_not_lead_to_the_host(
    client: Client, context: Path
) -> None:
    (context / "a").unlink()
    (context / "a").symlink_to("/etc/shadow")
    with pytest.raises(GRPCError, match="not found"):
        await client.solve(of(context))
    (context / "Dockerfile").unlink()
    (context / "Dockerfile").symlink_to("/etc/shadow")
    with pytest.raises(GRPCError, match="failed to read dockerfile"):
        await client.solve(of(context))


async def test_a_client_that_leaves_ends_its_build(
    client: Client, context: Path, sampand: Sampand, eventually: Eventually
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo begun; exec sleep 986\n")
    ref = os.urandom(8).hex()
    async with connect(sampand.socket) as other, other.session(of(context)) as session:
        request = control.SolveRequest(Ref=ref, Session=session, Frontend="dockerfile.v0")
        solving = asyncio.ensure_future(other.call("Solve", request))
        following = asyncio.ensure_future(client.status(ref))
        containers = sampand.root / "exec" / "containers"
        await asyncio.to_thread(eventually, lambda: bool(os.listdir(containers)))
        assert not solving.done()
    with pytest.raises(Exception):  # noqa: B017
        await solving
    news = await asyncio.wait_for(following, 30)
    assert news.vertexes[-1].error == "context canceled"
    await asyncio.to_thread(eventually, lambda: not os.listdir(containers))


async def test_ids_that_nobody_knows(client: Client, context: Path) -> None:
    with pytest.raises(GRPCError) as caught:
        await client.status("nobody")
    assert (caught.value.status, caught.value.message) == (Status.NOT_FOUND, "no such job nobody")


def test_the_older_command_line_builds_with_a_session(
    docker20: DockerCli, docker: DockerCli, context: Path, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("secret")
    (context / "Dockerfile").write_text(
        "FROM busybox\nCOPY c /c\n"
        "RUN --mount=type=secret,id=s cat /run/secrets/s >>/c\nCMD cat /c\n"
    )
    flags = ("--progress=plain", "-t", "bk:old", f"--secret=id=s,src={tmp_path / 's'}")
    shown = docker20("build", *flags, str(context)).stderr
    assert "[2/3] COPY c /c" in shown
    assert docker.out("run", "--rm", "bk:old") == "c\nsecret"
    text = "FROM busybox\nRUN exit 9\n"
    failed = docker20("build", "--progress=plain", "-", input=text, status=1).stderr
    assert "exit code: 9" in failed
