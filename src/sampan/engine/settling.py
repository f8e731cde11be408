"""Layers onto the disk: after they were unpacked, so that no pull waits for it.

A layer counts as soon as it is committed. Until its tree is flushed its record says so, and after a
power failure it is none: what containers stand on is unpacked again from blobs, which are whole.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sampan.engine.core import Core, log
from sampan.errors import SampanError

#: Seconds that more layers may come in before those that are here are flushed all the same, and
#: until the next try when the disk refuses.
_LATEST = 60.0
_AGAIN = 60.0


async def keep(core: Core) -> None:
    """Flush what was unpacked whenever nothing comes in any more; until cancelled."""
    while True:
        await core.unsettled.wait()
        core.unsettled.clear()
        with suppress(TimeoutError):
            # not wait_for(): in Python 3.11 it loses a cancellation that comes with the result
            async with asyncio.timeout(_LATEST):
                await core.ingests.idle.wait()
        if not await settle(core):
            await asyncio.sleep(_AGAIN)
            core.unsettled.set()


async def settle(core: Core) -> bool:
    """Flush layers that are not on the disk yet, if there are; whether that went well."""
    try:
        await core.threads.run_long(core.snapshots.sync)
    except OSError as error:
        log.warning("layers cannot be flushed to the disk: %s", error.strerror)
        return False
    return True


def restore(core: Core) -> None:
    """Unpack layers again that something stands on and a power failure took. Blocks."""
    present = list(core.snapshots.walk())
    keys = {info.key for info in present}
    lost = {info.parent for info in present if info.parent is not None} - keys
    for entry in core.images if lost else ():
        try:
            for image in core.images.all_of(entry):
                if not lost.isdisjoint(map(str, image.chain_ids)):
                    core.unpacker.unpack(image)
        except SampanError as error:
            name = ", ".join(sorted(entry.names)) or entry.id.short
            log.warning("layers of %s were lost and cannot be restored: %s", name, error.message)
