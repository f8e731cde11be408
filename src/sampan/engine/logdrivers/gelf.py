"""The ``gelf`` driver: Graylog Extended Log Format 1.1 over UDP (perhaps in chunks) and TCP.

UDP: compressed JSON; beyond 1420 bytes cut into at most 128 chunks, each with magic 1e 0f, an
eight-byte message id, its number and their count. TCP: JSON ended by a NUL byte.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampan.engine.clock import rfc3339
from sampan.engine.logdrivers.channel import Channel, connect, parse_address
from sampan.engine.logdrivers.model import LogInfo, LogMessage, Retry
from sampan.errors import InvalidParameter

_CHUNK = 1420
_HEADER = 12
_MOST = 128
_ERROR, _INFO = 3, 6
_WINDOW = {"gzip": 31, "zlib": 15}


def datagrams(data: bytes, identity: bytes) -> list[bytes]:
    """The datagrams of one message; none when it is longer than 128 chunks can hold."""
    if len(data) <= _CHUNK:
        return [data]
    room = _CHUNK - _HEADER
    count = -(-len(data) // room)
    if count > _MOST:
        return []
    return [
        b"\x1e\x0f%s%c%c%s" % (identity, number, count, data[number * room : (number + 1) * room])
        for number in range(count)
    ]


@dataclass(slots=True, kw_only=True)
class _Sink:
    channel: Channel
    constant: dict[str, str]
    hostname: str
    compression: str
    level: int

    async def send(self, messages: Sequence[LogMessage]) -> None:
        """See :class:`LogSink`."""
        # GELF has no message without text.
        texts = [self._text(message) for message in messages if message.line]
        if self.channel.stream:
            await self.channel.write(b"".join(text + b"\0" for text in texts))
            return
        for text in texts:
            for datagram in datagrams(self._packed(text), os.urandom(8)):
                await self.channel.write(datagram)

    def _text(self, message: LogMessage) -> bytes:
        document = {
            "version": "1.1",
            "host": self.hostname,
            "short_message": message.line,
            "timestamp": message.time // 1_000_000 / 1000,
            "level": _ERROR if message.error else _INFO,
            **self.constant,
        }
        if message.piece is not None:
            document["_partial_id"] = message.piece.of
            document["_partial_ordinal"] = message.piece.ordinal
            document["_partial_last"] = message.piece.last
        return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
            "utf-8", "replace"
        )

    def _packed(self, text: bytes) -> bytes:
        if self.compression == "none":
            return text
        packer = zlib.compressobj(self.level, wbits=_WINDOW[self.compression])
        return packer.compress(text) + packer.flush()

    async def aclose(self) -> None:
        """See :class:`LogSink`."""
        await self.channel.aclose()


class Gelf:
    """See :class:`LogDriver`."""

    options = frozenset(
        {
            "gelf-address",
            "gelf-compression-level",
            "gelf-compression-type",
            "gelf-tcp-max-reconnect",
            "gelf-tcp-reconnect-delay",
        }
    )

    def check(self, options: Mapping[str, str]) -> None:
        """See :class:`LogDriver`."""
        if not options.get("gelf-address"):
            raise InvalidParameter("gelf: gelf-address is a required parameter")
        scheme = parse_address(options["gelf-address"], "gelf", frozenset({"udp", "tcp"}), 0).scheme
        packing, reconnect = "gelf-compression-", "gelf-tcp-"
        for name, value in options.items():
            if name.startswith(packing) and scheme == "tcp":
                raise InvalidParameter(f"gelf: compression is only supported on UDP: {name}")
            if name.startswith(reconnect):
                if scheme == "udp":
                    raise InvalidParameter(f"gelf: {name} is only valid for TCP")
                if not value.isdecimal():
                    raise InvalidParameter(f"gelf: {name} must be a positive integer: {value}")
        kind = options.get("gelf-compression-type", "gzip")
        if kind not in ("gzip", "zlib", "none"):
            raise InvalidParameter(
                f"gelf: unknown compression type {kind!r}, valid types are gzip, zlib and none"
            )
        level = options.get("gelf-compression-level", "1")
        if level not in {str(number) for number in range(-1, 10)}:
            raise InvalidParameter(f"gelf: unknown compression level {level!r}, not in [-1, 9]")

    def lazy(self, options: Mapping[str, str]) -> bool:
        """See :class:`LogDriver`."""
        return False

    def retry(self, options: Mapping[str, str]) -> Retry:
        """See :class:`LogDriver`."""
        return Retry(
            delay=float(options.get("gelf-tcp-reconnect-delay", "1")),
            attempts=int(options.get("gelf-tcp-max-reconnect", "0")),
        )

    async def open(self, info: LogInfo) -> _Sink:
        """See :class:`LogDriver`."""
        options = info.options
        address = parse_address(options["gelf-address"], "gelf", frozenset({"udp", "tcp"}), 0)
        return _Sink(
            channel=await connect(address),
            constant={
                "_container_id": info.container_id,
                "_container_name": info.container_name,
                "_image_id": info.image_id,
                "_image_name": info.image_name,
                "_command": info.command,
                "_tag": info.tag,
                "_created": rfc3339(info.created),
                **{f"_{key}": value for key, value in info.extra.items()},
            },
            hostname=info.hostname,
            compression=options.get("gelf-compression-type", "gzip"),
            level=int(options.get("gelf-compression-level", "1")),
        )
