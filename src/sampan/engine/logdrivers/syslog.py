"""The ``syslog`` driver: RFC 3164 and RFC 5424 messages to a local or a remote syslog.

Over streams messages end with a newline (RFC 6587 section 3.4.2), over TLS in RFC 5424's formats
they are preceded by their length (RFC 5425 section 4.3).
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sampan.engine.logdrivers.channel import Address, Channel, connect, parse_address
from sampan.engine.logdrivers.model import LogInfo, LogMessage, Retry
from sampan.errors import InvalidParameter

_FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "", "", "", ""),
    *(f"local{number}" for number in range(8)),
)
_ERROR, _INFO = 3, 6  # severities
_SCHEMES = frozenset({"udp", "tcp", "tcp+tls", "unix", "unixgram"})
_LOCAL = ("/dev/log", "/var/run/syslog", "/var/run/log")
_TLS = frozenset(
    {"syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify"}
)
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

Formatter = Callable[[int, LogMessage, LogInfo, int], str]


def _stamp(nanoseconds: int) -> str:
    """RFC 3164's: local time, the day padded with a space."""
    at = time.localtime(nanoseconds // 1_000_000_000)
    clock = f"{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
    return f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday:2} {clock}"


def _rfc3339(nanoseconds: int, *, micro: bool) -> str:
    at = datetime.fromtimestamp(nanoseconds // 1_000_000_000).astimezone()
    at += timedelta(microseconds=nanoseconds // 1000 % 1_000_000)
    text = at.isoformat(timespec="microseconds" if micro else "seconds")
    return f"{text[:-6]}Z" if text.endswith("+00:00") else text


def _local(priority: int, message: LogMessage, info: LogInfo, pid: int) -> str:
    return f"<{priority}>{_stamp(message.time)} {info.tag}[{pid}]: {message.line}"


def _rfc3164(priority: int, message: LogMessage, info: LogInfo, pid: int) -> str:
    stamp = _stamp(message.time)
    return f"<{priority}>{stamp} {info.hostname} {info.tag}[{pid}]: {message.line}"


def _rfc5424(priority: int, message: LogMessage, info: LogInfo, pid: int) -> str:
    return _structured(priority, message, info, pid, micro=False)


def _rfc5424micro(priority: int, message: LogMessage, info: LogInfo, pid: int) -> str:
    return _structured(priority, message, info, pid, micro=True)


def _structured(priority: int, message: LogMessage, info: LogInfo, pid: int, *, micro: bool) -> str:
    stamp = _rfc3339(message.time, micro=micro)
    head = f"<{priority}>1 {stamp} {info.hostname} {info.tag} {pid} {info.tag} -"
    return f"{head} {message.line}"


_FORMATS: Mapping[str, Formatter] = {
    "": _local,
    "rfc3164": _rfc3164,
    "rfc5424": _rfc5424,
    "rfc5424micro": _rfc5424micro,
}


@dataclass(slots=True, kw_only=True)
class _Sink:
    channel: Channel
    info: LogInfo
    formatter: Formatter
    facility: int
    counted: bool
    pid: int

    async def send(self, messages: Sequence[LogMessage]) -> None:
        """See :class:`LogSink`."""
        framed = []
        for message in messages:
            severity = _ERROR if message.error else _INFO
            text = self.formatter(self.facility * 8 + severity, message, self.info, self.pid)
            data = text.encode("utf-8", "replace")
            data = b"%d %s" % (len(data), data) if self.counted else data + b"\n"
            framed.append(data)
        if self.channel.stream:
            await self.channel.write(b"".join(framed))
            return
        for data in framed:
            await self.channel.write(data)

    async def aclose(self) -> None:
        """See :class:`LogSink`."""
        await self.channel.aclose()


class Syslog:
    """See :class:`LogDriver`."""

    options = frozenset({"syslog-address", "syslog-facility", "syslog-format"}) | _TLS

    def check(self, options: Mapping[str, str]) -> None:
        """See :class:`LogDriver`."""
        _address(options)
        _facility(options.get("syslog-facility", ""))
        if options.get("syslog-format", "") not in _FORMATS:
            raise InvalidParameter(f"syslog: invalid format: {options['syslog-format']}")

    def lazy(self, options: Mapping[str, str]) -> bool:
        """See :class:`LogDriver`."""
        return False

    def retry(self, options: Mapping[str, str]) -> Retry:
        """See :class:`LogDriver`."""
        return Retry()

    async def open(self, info: LogInfo) -> _Sink:
        """See :class:`LogDriver`."""
        options = info.options
        address = _address(options)
        form = options.get("syslog-format", "")
        secure = address is not None and address.scheme == "tcp+tls"
        return _Sink(
            channel=await _connect(address, options),
            info=info,
            formatter=_FORMATS[form],
            facility=_facility(options.get("syslog-facility", "")),
            counted=secure and form.startswith("rfc5424"),
            pid=os.getpid(),
        )


def _address(options: Mapping[str, str]) -> Address | None:
    """Where to send; None for the local syslog, wherever its socket is."""
    text = options.get("syslog-address", "")
    return parse_address(text, "syslog", _SCHEMES, 514) if text else None


def _facility(text: str) -> int:
    """A facility's number, by name or number; ``daemon`` without one."""
    name = text or "daemon"
    if name in _FACILITIES:
        return _FACILITIES.index(name)
    if name.isdecimal() and int(name) < len(_FACILITIES):
        return int(name)
    raise InvalidParameter(f"syslog: invalid syslog facility: {text}")


async def _connect(address: Address | None, options: Mapping[str, str]) -> Channel:
    if address is not None and address.scheme != "unix":
        tls = _context(options) if address.scheme == "tcp+tls" else None
        return await connect(address, tls)
    # Local daemons listen for datagrams or for streams; dockerd's "unix" means either.
    paths = (address.path,) if address is not None else _LOCAL
    failure: OSError | None = None
    for path in paths:
        for scheme in ("unixgram", "unix"):
            try:
                return await connect(Address(scheme=scheme, path=path))
            except OSError as error:
                failure = failure or error
    assert failure is not None
    raise failure


def _context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Raises :class:`OSError` for certificates that cannot be read."""
    context = ssl.create_default_context(cafile=options.get("syslog-tls-ca-cert") or None)
    if options.get("syslog-tls-skip-verify", "") not in ("", "0", "false"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate := options.get("syslog-tls-cert"):
        context.load_cert_chain(certificate, options.get("syslog-tls-key") or None)
    return context
