"""``docker buildx history``: what is recorded of builds, kept, told and removed."""

from __future__ import annotations

import asyncio
import gzip
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from sampan.buildkit.protocol import content_pb2 as content
from sampan.buildkit.protocol import control_pb2 as control
from tests.compat.buildkit.client import Client, Source, connect, method
from tests.compat.buildkit.conftest import Buildx
from tests.compat.conftest import Sampand

SECRET = "a-secret-nobody-may-keep"
DOCKERFILE = """\
FROM busybox
ARG COLOUR=red
COPY file /
RUN --mount=type=secret,id=token cat /run/secrets/token >/dev/null && echo told-$COLOUR
"""


@pytest.fixture
def files(context: Path) -> Path:
    """A context whose build tells something."""
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "file").write_text("x\n")
    (context / "Dockerfile.bad").write_text("FROM busybox\nRUN echo so-far && false\n")
    (context.parent / "token").write_text(SECRET)
    return context


def history(buildx: Buildx, *words: str) -> str:
    return buildx("buildx", "history", *words).stdout


def refs(buildx: Buildx, *words: str) -> list[str]:
    """Ids of the builds that are listed, newest first."""
    lines = history(buildx, "ls", "--format=json", *words).splitlines()
    return [json.loads(line)["ref"].rpartition("/")[2] for line in lines]


def test_a_build_can_be_looked_at_again(
    buildx: Buildx, sampand: Sampand, files: Path, tmp_path: Path
) -> None:
    secret = f"--secret=id=token,src={tmp_path / 'token'}"
    arguments = (secret, "-t", "past:one", "--build-arg=COLOUR=blue", "--label=l=v")
    meta = f"--metadata-file={tmp_path / 'meta'}"
    buildx.build(files, *arguments, meta)
    buildx.build(files, "-f", str(files / "Dockerfile.bad"), status=1)
    bad, good = refs(buildx)[:2]

    told = json.loads((tmp_path / "meta").read_text())
    assert told["buildx.build.ref"].endswith(good)
    assert "dockerfile.v0" in json.dumps(told["buildx.build.provenance"])

    shown = json.loads(history(buildx, "inspect", good, "--format=json"))
    assert shown["Status"] == "completed"
    assert shown["BuildArgs"] == [{"Name": "COLOUR", "Value": "blue"}]
    assert shown["Labels"] == [{"Name": "l", "Value": "v"}]
    assert shown["NumTotalSteps"] == shown["NumCompletedSteps"] > 3
    assert shown["Materials"][0]["URI"].startswith("pkg:docker/busybox")
    kinds = {one["Type"]: one["Digest"] for one in shown["Attachments"]}
    assert "https://slsa.dev/provenance/v1" in kinds
    manifest = next(kinds[name] for name in kinds if "manifest" in name)
    document = json.loads(history(buildx, "inspect", "attachment", good, manifest))
    assert document["config"]["digest"] == told["containerimage.digest"]
    provenance = history(buildx, "inspect", "attachment", good, "--type=provenance")
    assert json.loads(provenance)["buildDefinition"]

    assert "told-blue" in buildx("buildx", "history", "logs", good).stderr
    failed = json.loads(history(buildx, "inspect", bad, "--format=json"))
    assert failed["Status"] == "failed"
    assert failed["Error"]["Logs"] == ["so-far"]
    assert "exit code: 1" in failed["Error"]["Message"]
    assert "RUN echo so-far" in history(buildx, "inspect", bad)

    trace = json.loads(history(buildx, "trace", good))["data"][0]
    names = {span["operationName"] for span in trace["spans"]}
    assert {"build", "exporting to image"} <= names
    assert any(name.endswith("COPY file /") for name in names), names

    bundle = tmp_path / "bundle"
    history(buildx, "export", "-o", str(bundle), "--all")
    with tarfile.open(fileobj=gzip.open(bundle)) as archive:  # type: ignore[arg-type]
        assert len([one for one in archive if one.name.startswith("blobs/sha256/")]) > 6

    kept = sampand.root / "data" / "build" / "records"
    everything = b"".join(path.read_bytes() for path in kept.rglob("*") if path.is_file())
    assert b"COLOUR" in everything
    assert SECRET.encode() not in everything


def test_records_are_filtered_kept_over_restarts_and_removed(
    buildx: Buildx, sampand: Sampand, files: Path
) -> None:
    history(buildx, "rm", "--all")
    for number in range(3):
        buildx.build(files, f"--build-arg=COLOUR={number}", "--target=", status=None)
    before = refs(buildx)[:3]
    assert len(before) == 3
    assert refs(buildx, "--filter=status=completed") == []
    assert refs(buildx, f"--filter=ref={before[1]}") == [before[1]]
    assert refs(buildx, "--filter=duration>1h") == []
    sampand.restart()
    assert refs(buildx)[:3] == before
    history(buildx, "rm", before[0])
    assert before[0] not in refs(buildx)
    again = buildx("buildx", "history", "rm", before[0], status=1)
    assert f"no build record {before[0]}" in again.stderr
    history(buildx, "rm", "--all")
    assert refs(buildx) == []
    assert list((sampand.root / "data" / "build" / "records").iterdir()) == []


@pytest.fixture
async def client(sampand: Sampand) -> AsyncIterator[Client]:
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    async with connect(sampand.socket) as found:
        yield found


async def test_followers_hear_of_builds(client: Client, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM scratch\nLABEL a=b\n")
    source = Source({"context": context, "dockerfile": context})
    events: list[tuple[int, str]] = []
    begun = asyncio.Event()

    async def follow() -> None:
        async with client.channel.open(method("ListenBuildHistory")) as stream:
            await stream.send_message(control.BuildHistoryRequest(), end=True)
            await stream.recv_initial_metadata()
            begun.set()
            async for event in stream:
                if event.record.Ref in ("heard", "quiet"):
                    events.append((event.type, event.record.Ref))
                if event.type == control.DELETED:
                    break
            await stream.cancel()

    task = asyncio.create_task(follow())
    await begun.wait()
    await client.solve(source, ref="heard")
    pinned = control.UpdateBuildHistoryRequest(Ref="heard", Pinned=True)
    await client.channel.call(method("UpdateBuildHistory"), pinned)
    await client.solve(source, ref="quiet", Internal=True)
    gone = control.UpdateBuildHistoryRequest(Ref="heard", Delete=True)
    await client.channel.call(method("UpdateBuildHistory"), gone)
    await asyncio.wait_for(task, 30)
    assert events == [
        (control.STARTED, "heard"),
        (control.COMPLETE, "heard"),
        (control.COMPLETE, "heard"),
        (control.DELETED, "heard"),
    ]


async def test_an_end_before_the_end_is_recorded(
    client: Client, sampand: Sampand, context: Path
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN sleep 600\n")
    source = Source({"context": context, "dockerfile": context})
    address = "https://user:pass-word@example.test/repository.git"
    build = asyncio.create_task(
        client.solve(source, ref="cut", attributes={"build-arg:FROM_WHERE": address})
    )
    record = None
    async for event in client.listen(Ref="cut"):
        if event.type == control.STARTED:
            build.cancel()
        record = event.record
        if event.type != control.STARTED:
            break
    await asyncio.gather(build, return_exceptions=True)
    assert record is not None
    assert record.error.message == "context canceled"
    assert record.FrontendAttrs["build-arg:FROM_WHERE"] == "https://example.test/repository.git"


async def test_documents_are_read_in_pieces(client: Client) -> None:
    info = content.DESCRIPTOR.services_by_name["Content"].methods_by_name
    unknown = f"sha256:{'0' * 64}"
    with pytest.raises(GRPCError) as failed:
        await client.channel.call(info["Info"], content.InfoRequest(digest=unknown))
    assert failed.value.status is Status.NOT_FOUND
    with pytest.raises(GRPCError) as failed:
        await client.channel.call(info["Info"], content.InfoRequest(digest="../../etc/passwd"))
    assert failed.value.status is Status.INVALID_ARGUMENT
