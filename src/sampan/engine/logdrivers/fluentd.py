"""The ``fluentd`` driver: Fluentd's forward protocol (specification v1, Forward mode).

A batch is one msgpack array ``[tag, [[time, record], ...], option]``; with acknowledgements the
option's ``chunk`` comes back as ``{"ack": chunk}`` once the batch is safe.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from sampan.engine.filters import parse_duration
from sampan.engine.logdrivers.channel import TIMEOUT, Address, Stream, connect, parse_address
from sampan.engine.logdrivers.model import LogInfo, LogMessage, Retry
from sampan.errors import InvalidParameter

_EVENT_TIME = 0  # msgpack extension type: seconds and nanoseconds, big-endian
_PORT = 24224
_SCHEMES = frozenset({"tcp", "tls", "unix"})
_BOOLEANS = ("fluentd-async", "fluentd-request-ack", "fluentd-sub-second-precision")
_DURATIONS = (
    "fluentd-async-reconnect-interval",
    "fluentd-read-timeout",
    "fluentd-retry-wait",
    "fluentd-write-timeout",
)


@dataclass(slots=True, kw_only=True)
class _Sink:
    driver: Fluentd
    info: LogInfo
    channel: Stream
    opened: float

    async def send(self, messages: Sequence[LogMessage]) -> None:
        """See :class:`LogSink`."""
        options = self.info.options
        interval = _duration(options, "fluentd-async-reconnect-interval")
        if interval and time.monotonic() - self.opened > interval:
            await self.channel.aclose()
            self.channel = await self.driver.connection(options)
            self.opened = time.monotonic()
        fine = _flag(options, "fluentd-sub-second-precision")
        entries = [[_time(message.time, fine), self._record(message)] for message in messages]
        option: dict[str, str | int] = {"size": len(entries)}
        acknowledged = _flag(options, "fluentd-request-ack")
        if acknowledged:
            option["chunk"] = base64.b64encode(os.urandom(16)).decode()
        batch = msgspec.msgpack.encode([self.info.tag, entries, option])
        async with asyncio.timeout(_duration(options, "fluentd-write-timeout") or None):
            await self.channel.write(batch)
        if acknowledged:
            await self._acknowledgement(str(option["chunk"]))

    def _record(self, message: LogMessage) -> dict[str, str]:
        record = {
            "container_id": self.info.container_id,
            "container_name": f"/{self.info.container_name}",
            "source": message.stream,
            "log": message.line,
            **self.info.extra,
        }
        if (piece := message.piece) is not None:
            record["partial_message"] = "true"
            record["partial_id"] = piece.of
            record["partial_ordinal"] = str(piece.ordinal)
            record["partial_last"] = "true" if piece.last else "false"
        return record

    async def _acknowledgement(self, chunk: str) -> None:
        patience = _duration(self.info.options, "fluentd-read-timeout") or TIMEOUT
        data = b""
        async with asyncio.timeout(patience):
            while True:
                part = await self.channel.reader.read(4096)
                if not part:
                    raise ConnectionResetError("fluentd closed the connection unacknowledged")
                data += part
                try:
                    answer = msgspec.msgpack.decode(data, type=dict[str, str])
                except msgspec.DecodeError:
                    if len(data) > 4096:
                        raise ConnectionResetError("fluentd's answer is no ack") from None
                    continue
                break
        if answer.get("ack") != chunk:
            raise ConnectionResetError("fluentd acknowledged something else")

    async def aclose(self) -> None:
        """See :class:`LogSink`."""
        await self.channel.aclose()


def _time(nanoseconds: int, fine: bool) -> int | msgspec.msgpack.Ext:
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return msgspec.msgpack.Ext(_EVENT_TIME, struct.pack(">II", seconds, rest)) if fine else seconds


def _flag(options: Mapping[str, str], name: str) -> bool:
    return options.get(name, "").lower() in ("1", "t", "true")


def _duration(options: Mapping[str, str], name: str) -> float:
    """Seconds; 0 when the option is not given."""
    text = options.get(name, "")
    return parse_duration(text) if text else 0.0


def _address(options: Mapping[str, str]) -> Address:
    text = options.get("fluentd-address", "") or f"127.0.0.1:{_PORT}"
    return parse_address(text if "://" in text else f"tcp://{text}", "fluentd", _SCHEMES, _PORT)


class Fluentd:
    """See :class:`LogDriver`."""

    options = frozenset(
        {*_BOOLEANS, *_DURATIONS, "fluentd-address", "fluentd-buffer-limit", "fluentd-max-retries"}
    )

    def check(self, options: Mapping[str, str]) -> None:
        """See :class:`LogDriver`. The cache is the buffer: its bound is ``cache-max-size``."""
        _address(options)
        for name in _BOOLEANS:
            if options.get(name, "false").lower() not in ("0", "1", "f", "t", "false", "true"):
                raise InvalidParameter(f"fluentd: invalid value for {name}: {options[name]}")
        for name in _DURATIONS:
            try:
                _duration(options, name)
            except InvalidParameter as error:
                raise InvalidParameter(f"fluentd: invalid value for {name}: {error}") from error
        interval = _duration(options, "fluentd-async-reconnect-interval")
        if interval and not 0.1 <= interval <= 10:
            raise InvalidParameter(
                "fluentd: fluentd-async-reconnect-interval must be between 100ms and 10s"
            )
        if not options.get("fluentd-max-retries", "0").isdecimal():
            value = options["fluentd-max-retries"]
            raise InvalidParameter(f"fluentd: invalid value for fluentd-max-retries: {value}")
        limit = options.get("fluentd-buffer-limit", "0")
        if re.fullmatch(r"\d+[bkmg]?b?", limit, re.IGNORECASE) is None:
            raise InvalidParameter(f"fluentd: invalid value for fluentd-buffer-limit: {limit}")

    def lazy(self, options: Mapping[str, str]) -> bool:
        """See :class:`LogDriver`."""
        return _flag(options, "fluentd-async")

    def retry(self, options: Mapping[str, str]) -> Retry:
        """See :class:`LogDriver`."""
        return Retry(
            delay=_duration(options, "fluentd-retry-wait") or 1.0,
            attempts=int(options.get("fluentd-max-retries", "0")),
        )

    async def open(self, info: LogInfo) -> _Sink:
        """See :class:`LogDriver`."""
        channel = await self.connection(info.options)
        return _Sink(driver=self, info=info, channel=channel, opened=time.monotonic())

    async def connection(self, options: Mapping[str, str]) -> Stream:
        """A new connection to where the options say. Raises :class:`OSError`."""
        address = _address(options)
        tls = ssl.create_default_context() if address.scheme == "tls" else None
        channel = await connect(address, tls)
        assert isinstance(channel, Stream)
        return channel
