"""Clients' sessions: connections on which the daemon calls services of the client.

A client opens ``POST /session`` with its id and the methods it offers, then asks for a build under
that id. Either may come first, so who needs a session waits for it a little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from google.protobuf.descriptor import MethodDescriptor

from sampan.buildkit.rpc import Channel
from sampan.errors import InvalidParameter, NotFound, Unsupported

#: how long a build waits for its session to be opened
WAIT_SECONDS = 5.0
_UUID = "X-Docker-Expose-Session-Uuid"
_NAME = "X-Docker-Expose-Session-Name"
_SHARED_KEY = "X-Docker-Expose-Session-Sharedkey"
METHOD_HEADER = "X-Docker-Expose-Session-Grpc-Method"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Session:
    """One client's services. ``methods`` are gRPC paths in lower case; ``shared_key`` names what
    is worth keeping for the client's next build."""

    id: str
    name: str
    shared_key: str
    methods: frozenset[str]
    channel: Channel

    def offers(self, method: MethodDescriptor) -> bool:
        """Whether the client answers a method."""
        return f"/{method.containing_service.full_name}/{method.name}".lower() in self.methods

    def require(self, method: MethodDescriptor, what: str) -> None:
        """Raise :class:`Unsupported` naming ``what`` unless the client answers a method."""
        if not self.offers(method):
            raise Unsupported(f"the client's session offers no {what}")

    @classmethod
    def from_headers(
        cls, single: Mapping[str, str], methods: tuple[str, ...], channel: Channel
    ) -> Session:
        """The session a request's headers describe; raises :class:`InvalidParameter`."""
        found = {name.lower(): value for name, value in single.items()}
        identity = found.get(_UUID.lower(), "")
        if not identity:
            raise InvalidParameter(f"a session needs the header {_UUID}")
        return cls(
            id=identity,
            name=found.get(_NAME.lower(), ""),
            shared_key=found.get(_SHARED_KEY.lower(), ""),
            methods=frozenset(method.lower() for method in methods),
            channel=channel,
        )


@dataclass(slots=True)
class Sessions:
    """The sessions that are open."""

    _open: dict[str, Session] = field(default_factory=dict)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def add(self, session: Session) -> None:
        """A session is open; one with the same id is replaced."""
        async with self._news:
            self._open[session.id] = session
            self._news.notify_all()

    def remove(self, session: Session) -> None:
        """A session is over."""
        if self._open.get(session.id) is session:
            del self._open[session.id]

    async def get(self, identity: str) -> Session:
        """The session with an id, waited for; NotFound. Without an id, one that offers nothing."""
        if not identity:
            nowhere = Channel.nowhere()
            return Session(id="", name="", shared_key="", methods=frozenset(), channel=nowhere)
        try:
            async with asyncio.timeout(WAIT_SECONDS), self._news:
                await self._news.wait_for(lambda: identity in self._open)
                return self._open[identity]
        except TimeoutError:
            raise NotFound(f"no active session for {identity}") from None
