"""One request on its way through a route: what it asked for, and how to answer it."""

from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from sampan.api import body, query
from sampan.errors import InvalidParameter

if TYPE_CHECKING:
    from sampan.api.access import Access
    from sampan.api.server import Daemon
    from sampan.api.version import ApiVersion
    from sampan.engine.engine import Engine
    from sampan.engine.options import RegistryAuth

_CREDENTIALS = struct.Struct("3i")

T = TypeVar("T", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A decoded request line with the daemon it was sent to.

    ``parts`` are the values of the route's ``{...}``, ``access`` what the socket it came through
    may do, ``taken`` the body when it has been read already.
    """

    request: web.BaseRequest
    daemon: Daemon
    version: ApiVersion
    access: Access
    parts: dict[str, str] = field(default_factory=dict)
    taken: bytes | None = None

    @property
    def engine(self) -> Engine:
        """The engine behind the daemon."""
        return self.daemon.engine

    @property
    def name(self) -> str:
        """The object the path names."""
        return self.parts["name"]

    @property
    def query(self) -> MultiMapping[str]:
        """The query parameters."""
        return self.request.query

    @property
    def client(self) -> tuple[int, int] | None:
        """User and group of the client of a Unix socket (SO_PEERCRED, unix(7))."""
        transport = self.request.transport
        sock = transport.get_extra_info("socket") if transport is not None else None
        if sock is None or sock.family != socket.AF_UNIX:
            return None
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _, uid, gid = _CREDENTIALS.unpack(credentials)
        return uid, gid

    def since(self, minor: int) -> bool:
        """Whether the client speaks API 1.``minor`` or newer."""
        return self.version >= (1, minor)

    def text(self, name: str, default: str = "") -> str:
        """A parameter as text."""
        return self.request.query.get(name, default)

    def texts(self, name: str) -> list[str]:
        """Every value of a repeated parameter."""
        return list(self.request.query.getall(name, []))

    def flag(self, name: str, default: bool = False) -> bool:
        """A parameter as a switch."""
        return query.flag(self.request.query.get(name), default)

    def integer(self, name: str, default: int = 0) -> int:
        """A parameter as a whole number; refuses anything else."""
        return query.integer(name, self.request.query.get(name), default)

    def optional_integer(self, name: str) -> int | None:
        """A parameter as a whole number, or None when absent."""
        text = self.request.query.get(name)
        return query.integer(name, text) if text else None

    def timestamp(self, name: str) -> float:
        """A parameter as Unix seconds; 0 when absent."""
        return query.timestamp(name, self.request.query.get(name))

    def filters(self, *known: str) -> dict[str, list[str]]:
        """The ``filters`` parameter, restricted to what this socket may see."""
        chosen = query.filters(self.request.query.get("filters"), known)
        return self.access.restrict_filters(chosen, known)

    def platform(self) -> str:
        """The ``platform`` parameter as ``os/arch/variant``; "" when absent."""
        return query.platform("platform", self.request.query.get("platform"))

    def platforms(self, name: str = "platform") -> list[str]:
        """All parameters ``name``, each as ``os/arch/variant``."""
        return [query.platform(name, text) for text in self.texts(name) if text]

    def registry_auth(self) -> RegistryAuth | None:
        """The credentials sent along, if any."""
        return query.registry_auth(self.request.headers.get("X-Registry-Auth"))

    async def body(self, kind: type[T]) -> T:
        """The JSON body as a wire struct; refused by field when malformed."""
        return body.decode(await self.raw_body(), kind)

    async def optional_body(self, kind: type[T]) -> T:
        """Like :meth:`body`, but no body at all is an empty object."""
        raw = await self.raw_body(required=False)
        return body.decode(raw, kind) if raw.strip() else kind()

    async def raw_body(self, *, required: bool = True) -> bytes:
        """The bytes of a JSON body, its media type checked and its size bounded."""
        request = self.request
        if self.taken is not None:
            return self.taken
        await self.accept_body()
        raw = await body.read(request.content)
        if raw and self.daemon.authorization is not None:
            raise InvalidParameter(
                "Content-Type must be 'application/json' where authorization plugins decide"
            )
        stated = request.headers.get("Content-Type", "")
        if raw or (required and stated):
            body.check_type(stated)
        return raw

    def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces, as they come."""
        return self.request.content.iter_any() if self.taken is None else _piece(self.taken)

    async def accept_body(self) -> None:
        """Tell a client that waits for it (``Expect: 100-continue``) to send its body."""
        expect = self.request.headers.get("Expect")
        if expect is None:
            return
        if expect.lower() != "100-continue":
            raise InvalidParameter(f"unsupported Expect header: {expect!r}")
        transport = self.request.transport
        if transport is not None:
            transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def require(self, known: Collection[str], name: str) -> str:
        """A parameter that must be one of ``known`` (or absent)."""
        value = self.text(name)
        if value and value not in known:
            raise InvalidParameter(f"invalid {name}: {value!r}")
        return value


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    yield data
