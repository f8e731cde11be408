"""What a build tells: everything from the beginning, in order, within bounds."""

from __future__ import annotations

import asyncio

import pytest

from sampan.build.progress import Vertex
from sampan.buildkit import status as module
from sampan.buildkit.protocol import control_pb2 as control
from sampan.buildkit.status import LOG_LIMIT, Status

RUN = Vertex(id="0/2", name="[2/2] RUN make", stage="stage-0", line=4)
FROM = Vertex(id="0/1", name="[1/2] FROM x", stage="stage-0", line=1)


async def told(status: Status) -> control.StatusResponse:
    everything = control.StatusResponse()
    async for response in status:
        everything.MergeFrom(response)
    return everything


async def test_a_late_follower_hears_all_and_a_live_one_waits() -> None:
    status = Status("ref")
    early = asyncio.ensure_future(told(status))
    await asyncio.sleep(0)
    status.started(FROM)
    status.completed(FROM, cached=True)
    status.started(RUN)
    status.log(RUN, 2, b"output")
    await asyncio.sleep(0)
    status.completed(RUN, error="it failed")
    status.close()
    heard = await early
    assert heard == await told(status)
    names = [vertex.name for vertex in heard.vertexes]
    assert names == [FROM.name, FROM.name, RUN.name, RUN.name]
    assert heard.vertexes[1].cached
    assert heard.vertexes[3].error == "it failed"
    assert list(heard.vertexes[3].inputs) == [heard.vertexes[0].digest]
    assert (heard.logs[0].msg, heard.logs[0].stream) == (b"output", 2)
    assert (status.failed, status.failed_line) == (heard.vertexes[3].digest, 4)


async def test_settings_are_not_shown_but_their_failure_is_placed() -> None:
    status = Status("ref")
    setting = Vertex(id="0/3", name="ENV", metadata=True, line=7)
    status.started(setting)
    status.completed(setting, error="bad")
    status.close()
    assert await told(status) == control.StatusResponse()
    assert status.failed_line == 7


async def test_a_stopped_step_is_cancelled_and_not_what_failed() -> None:
    status = Status("ref")
    status.started(RUN)
    status.completed(RUN, error="CancelledError")
    with pytest.raises(asyncio.CancelledError), status.step("[internal] load"):
        raise asyncio.CancelledError
    status.close()
    heard = await told(status)
    assert [vertex.error for vertex in heard.vertexes if vertex.error] == ["context canceled"] * 2
    assert status.failed_line == 0


async def test_output_is_clipped() -> None:
    status = Status("ref")
    for _ in range(LOG_LIMIT // 100_000 + 10):
        status.log(RUN, 1, b"x" * 100_000)
    status.close()
    text = b"".join(entry.msg for entry in (await told(status)).logs)
    assert text.endswith(b"[output clipped, log limit 2MiB reached]\n")
    assert text.count(b"x") == LOG_LIMIT


async def test_transfers_tell_a_few_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 0.0
    monkeypatch.setattr(module.time, "monotonic", lambda: moment)
    status = Status("ref")
    with status.step("[internal] load build context") as step:
        for size in range(1000):
            moment = size / 1000
            step.report("transferring context:", size)
        step.report("transferring context:", 1000, done=True)
    status.close()
    statuses = (await told(status)).statuses
    assert 5 < len(statuses) < 12
    assert statuses[-1].current == 1000
    assert statuses[-1].HasField("completed")
