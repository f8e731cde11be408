"""Attachments of clients that leave at the worst moment."""

from __future__ import annotations

import asyncio
import socket

import pytest

from sampan.engine.attaching import ClientAttachment, PendingAttachment, connected
from sampan.engine.options import AttachOptions
from sampan.errors import InvalidParameter

OPTIONS = AttachOptions(stdin=True, stdout=True, stderr=True)


def attachment(
    pending: PendingAttachment, options: AttachOptions = OPTIONS, *, tty: bool = False
) -> ClientAttachment:
    return ClientAttachment(
        tty=tty, options=options, stdin=True, backlog=None, pending=pending,
        on_detach=lambda: None,
    )  # fmt: skip


async def test_a_stream_nobody_took_is_closed() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        await attachment(connected(ours, OPTIONS)).aclose()
        assert ours.fileno() == -1
        assert theirs.recv(1) == b""


async def test_a_stream_plugged_after_the_client_left_is_closed() -> None:
    ours, theirs = socket.socketpair()
    pending = PendingAttachment(OPTIONS)
    found = attachment(pending)
    opening = asyncio.create_task(found.open())
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    await found.aclose()
    with theirs:
        pending.resolve(ours)
        assert theirs.recv(1) == b""


async def test_a_stream_that_was_taken_belongs_to_its_taker() -> None:
    ours, theirs = socket.socketpair()
    found = attachment(connected(ours, OPTIONS))
    with theirs, ours:
        assert await found.open() is ours
        await found.aclose()
        theirs.send(b"x")
        assert ours.recv(1) == b"x"


@pytest.mark.parametrize("tty", [False, True])
async def test_wrong_detach_keys_are_refused(tty: bool) -> None:
    options = AttachOptions(stdin=True, stdout=True, stderr=True, detach_keys="foo")
    with pytest.raises(InvalidParameter, match=r"Invalid detach keys \(foo\) provided"):
        attachment(PendingAttachment(options), options, tty=tty)
