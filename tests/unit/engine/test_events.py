"""Which events a subscription tells."""

from __future__ import annotations

import asyncio

from sampan.engine.events import Events


async def test_the_last_moment_is_told() -> None:
    """What waits when the time is up was in time, what happened later was not."""
    now = 10_000_000_000
    events = Events(16, lambda: now)
    stream = await events.subscribe(until=11.0)
    for moment in (10_500_000_000, 11_000_000_000, 11_000_001_000):
        now = moment
        events.publish("container", "start", str(moment))
    async with asyncio.timeout(5):
        told = [message.actor.id async for message in stream if message.actor]
    assert told == ["10500000000", "11000000000"]
    assert events.listeners == 0


async def test_all_there_was_until_now() -> None:
    now = 1_795_566_439_442_170_106
    events = Events(16, lambda: now)
    events.publish("image", "tag", "before")
    now += 1000
    stream = await events.subscribe(until=now / 1e9)
    assert [message.actor.id async for message in stream if message.actor] == ["before"]
