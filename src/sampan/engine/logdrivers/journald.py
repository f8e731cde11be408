"""The ``journald`` driver: systemd's native journal protocol (systemd, NATIVE JOURNAL PROTOCOL).

One datagram an entry, fields as ``NAME=value`` lines; a value that holds a newline follows its
name and a 64-bit little-endian length instead.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampan.engine.clock import rfc3339
from sampan.engine.logdrivers.channel import Address, Datagrams, connect
from sampan.engine.logdrivers.model import LogInfo, LogMessage, Retry

SOCKET = "/run/systemd/journal/socket"
_ERROR, _INFO = 3, 6  # priorities


def field(name: str, value: str) -> bytes:
    """One field of an entry."""
    data = value.encode("utf-8", "replace")
    if b"\n" in data:
        return b"%s\n%s%s\n" % (name.encode(), struct.pack("<Q", len(data)), data)
    return b"%s=%s\n" % (name.encode(), data)


def field_name(text: str) -> str:
    """A label or variable as the journal allows names: capitals, digits, underscores."""
    return re.sub(r"[^A-Z0-9]", "_", text.upper()).lstrip("_")


@dataclass(slots=True, kw_only=True)
class _Sink:
    channel: Datagrams
    constant: bytes
    ordinal: int = 0

    async def send(self, messages: Sequence[LogMessage]) -> None:
        """See :class:`LogSink`."""
        for message in messages:
            self.ordinal += 1
            parts = [
                field("MESSAGE", message.line),
                field("PRIORITY", str(_ERROR if message.error else _INFO)),
                field("SYSLOG_TIMESTAMP", rfc3339(message.time)),
                field("CONTAINER_LOG_ORDINAL", str(self.ordinal)),
                self.constant,
            ]
            if (piece := message.piece) is not None:
                if not piece.last:
                    parts.append(field("CONTAINER_PARTIAL_MESSAGE", "true"))
                parts += [
                    field("CONTAINER_PARTIAL_ID", piece.of),
                    field("CONTAINER_PARTIAL_ORDINAL", str(piece.ordinal)),
                    field("CONTAINER_PARTIAL_LAST", "true" if piece.last else "false"),
                ]
            await self.channel.write(b"".join(parts))

    async def aclose(self) -> None:
        """See :class:`LogSink`."""
        await self.channel.aclose()


class Journald:
    """See :class:`LogDriver`. ``path`` is the journal's socket."""

    options: frozenset[str] = frozenset()

    def __init__(self, path: str = SOCKET) -> None:
        self._path = path

    def check(self, options: Mapping[str, str]) -> None:
        """See :class:`LogDriver`: there is nothing that could be wrong."""

    def lazy(self, options: Mapping[str, str]) -> bool:
        """See :class:`LogDriver`."""
        return False

    def retry(self, options: Mapping[str, str]) -> Retry:
        """See :class:`LogDriver`."""
        return Retry()

    async def open(self, info: LogInfo) -> _Sink:
        """See :class:`LogDriver`."""
        channel = await connect(Address(scheme="unixgram", path=self._path))
        assert isinstance(channel, Datagrams)
        fields = {
            "CONTAINER_ID": info.container_id[:12],
            "CONTAINER_ID_FULL": info.container_id,
            "CONTAINER_NAME": info.container_name,
            "CONTAINER_TAG": info.tag,
            "IMAGE_NAME": info.image_name,
            "SYSLOG_IDENTIFIER": info.tag,
        }
        extra = {name: value for key, value in info.extra.items() if (name := field_name(key))}
        constant = b"".join(field(*pair) for pair in {**extra, **fields}.items())
        return _Sink(channel=channel, constant=constant)
