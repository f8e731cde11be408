"""Asking upstream DNS servers: over UDP with many questions in flight, over TCP one by one.

Runs on the resolver's event loop. Answers are passed on as they came; only their id is changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from sampan.kernel import netns
from sampan.network import dns

#: Seconds one server gets, as in Docker's resolver.
SERVER_TIMEOUT = 4.0
#: Questions in flight of one container; beyond, the newest is refused.
IN_FLIGHT = 1024
#: Questions asked from one source port before the next one is chosen: an off-path forger has to
#: guess both the port and the id (RFC 5452).
_QUESTIONS_PER_PORT = 128
_PORT = 53
_SERVFAIL, _REFUSED = 2, 5
#: answers that say nothing about the name: another server may know
_FAILURES = (_SERVFAIL, _REFUSED)
_MAX_MESSAGE = 65535

SocketAddress = tuple[str, int] | tuple[str, int, int, int]


@dataclass(eq=False, slots=True)
class _Question:
    """One query on its way: whom to tell, which servers are left, when to give up on one."""

    query: bytes
    deliver: Callable[[bytes], None]
    servers: list[str]
    timer: asyncio.TimerHandle | None = None


@dataclass(eq=False, slots=True)
class _Port:
    """A socket connected to one server, and the questions asked through it by their id."""

    sock: socket.socket
    asked: int = 0
    waiting: dict[int, _Question] = field(default_factory=dict)


class Upstream:
    """The upstream servers of one container, asked from one network namespace."""

    def __init__(self, servers: Sequence[str], netns_fd: int | None) -> None:
        """``netns_fd`` is taken over (closed by :meth:`close`); ``None`` asks from this thread's
        own namespace, the host's."""
        self._servers = tuple(servers)
        self._netns = netns_fd
        self._ports: dict[str, _Port] = {}
        self._all: set[_Port] = set()
        self._in_flight = 0

    def close(self) -> None:
        """Forget every question and close every socket."""
        for port in list(self._all):
            for question in list(port.waiting.values()):
                if question.timer is not None:
                    question.timer.cancel()
            port.waiting.clear()
            self._drop(port)
        self._ports.clear()
        self._servers = ()  # a connection still being served must not ask from elsewhere
        if self._netns is not None:
            os.close(self._netns)
            self._netns = None

    def ask(self, query: bytes, deliver: Callable[[bytes], None]) -> None:
        """Have ``deliver`` called once with the answer: an upstream server's, or SERVFAIL when
        there is none that answers in time and does not refuse."""
        if not self._servers:
            deliver(dns.refusal(query, _SERVFAIL))
        elif not dns.question_end(query):
            deliver(dns.refusal(query, 1))
        elif self._in_flight >= IN_FLIGHT:
            deliver(dns.refusal(query, _REFUSED))
        else:
            self._in_flight += 1
            self._next(_Question(query, deliver, list(self._servers)))

    def _next(self, question: _Question) -> None:
        """Put the question to its next server."""
        while question.servers:
            server = question.servers.pop(0)
            try:
                port = self._port(server)
                identifier = _free_id(port.waiting)
                port.sock.send(identifier.to_bytes(2, "big") + question.query[2:])
            except OSError:
                continue  # unreachable: the next one
            port.waiting[identifier] = question
            question.timer = asyncio.get_running_loop().call_later(
                SERVER_TIMEOUT, self._timed_out, port, identifier
            )
            return
        self._finish(question, dns.refusal(question.query, _SERVFAIL))

    def _finish(self, question: _Question, answer: bytes) -> None:
        self._in_flight -= 1
        question.deliver(question.query[:2] + answer[2:])

    def _timed_out(self, port: _Port, identifier: int) -> None:
        question = port.waiting.pop(identifier, None)
        self._retire(port)
        if question is not None:
            self._next(question)

    def _port(self, server: str) -> _Port:
        port = self._ports.get(server)
        if port is None or port.asked >= _QUESTIONS_PER_PORT:
            sock = self._connected(server, socket.SOCK_DGRAM)
            old, port = port, _Port(sock)
            self._ports[server] = port
            self._all.add(port)
            asyncio.get_running_loop().add_reader(sock.fileno(), self._receive, port)
            if old is not None:
                self._retire(old)
        port.asked += 1
        return port

    def _connected(self, server: str, kind: int) -> socket.socket:
        family, address = _address(server)
        sock = self._open(family, kind)
        try:
            sock.setblocking(False)
            if kind == socket.SOCK_DGRAM:
                sock.connect(address)
        except BaseException:
            sock.close()
            raise
        return sock

    def _open(self, family: int, kind: int) -> socket.socket:
        if self._netns is None:
            return socket.socket(family, kind | socket.SOCK_CLOEXEC)
        return netns.open_socket(self._netns, family, kind)

    def _receive(self, port: _Port) -> None:
        while True:
            try:
                answer = port.sock.recv(_MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                # ICMP says nobody listens there: whoever asked goes on to the next server.
                for identifier in list(port.waiting):
                    self._fail(port, identifier)
                return
            identifier = int.from_bytes(answer[:2], "big")
            question = port.waiting.get(identifier)
            if question is None or not dns.same_question(question.query, answer):
                continue
            if dns.response_code(answer) in _FAILURES:
                self._fail(port, identifier)
                continue
            self._take(port, identifier)
            self._finish(question, answer)

    def _take(self, port: _Port, identifier: int) -> _Question:
        question = port.waiting.pop(identifier)
        if question.timer is not None:
            question.timer.cancel()
        self._retire(port)
        return question

    def _fail(self, port: _Port, identifier: int) -> None:
        self._next(self._take(port, identifier))

    def _retire(self, port: _Port) -> None:
        """Close a port that is neither the current one of its server nor waited on."""
        if not port.waiting and port not in self._ports.values():
            self._drop(port)

    def _drop(self, port: _Port) -> None:
        if port in self._all:
            self._all.discard(port)
            asyncio.get_running_loop().remove_reader(port.sock.fileno())
            port.sock.close()

    async def ask_stream(self, query: bytes) -> bytes:
        """The answer to a query over TCP (RFC 7766), as :meth:`ask`."""
        if not self._servers:
            return dns.refusal(query, _SERVFAIL)
        if not dns.question_end(query):
            return dns.refusal(query, 1)
        for server in self._servers:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(SERVER_TIMEOUT):
                    answer = await self._exchange(server, query)
                if dns.same_question(query, answer) and dns.response_code(answer) not in _FAILURES:
                    return query[:2] + answer[2:]
        return dns.refusal(query, _SERVFAIL)

    async def _exchange(self, server: str, query: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        sock = self._connected(server, socket.SOCK_STREAM)
        try:
            await loop.sock_connect(sock, _address(server)[1])
            reader, writer = await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            await writer.drain()
            length = int.from_bytes(await reader.readexactly(2), "big")
            return await reader.readexactly(length)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _address(server: str) -> tuple[int, SocketAddress]:
    """The family and address of a server written as an address, with its zone if it has one."""
    text, _, scope = server.partition("%")
    if ip_address(text).version == 4:
        return socket.AF_INET, (text, _PORT)
    index = (int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)) if scope else 0
    return socket.AF_INET6, (text, _PORT, 0, index)


def _free_id(taken: dict[int, _Question]) -> int:
    while (identifier := secrets.randbelow(1 << 16)) in taken:
        pass
    return identifier
