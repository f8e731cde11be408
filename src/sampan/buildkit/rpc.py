"""gRPC over a connection somebody else opened, as its server or as its client.

``POST /grpc`` makes us the server of a taken-over connection, ``POST /session`` its client; both
speak HTTP/2 with prior knowledge from then on (RFC 9113 section 3.3). Services are described by
their protobuf descriptors, so no method is registered under a name or type written twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from grpclib import client, server
from grpclib.const import Cardinality, Handler, Status
from grpclib.encoding.proto import ProtoCodec
from grpclib.exceptions import GRPCError, StreamTerminatedError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.utils import Wrapper
from h2.errors import ErrorCodes
from h2.events import StreamReset

from sampan.buildkit.errors import DetailsCodec, grpc_error
from sampan.errors import SampanError

log = logging.getLogger("sampan.buildkit")

#: Most bytes of one message, as BuildKit has it: a peer must not make us hold whatever it sends.
MESSAGE_LIMIT = 16 << 20
#: What a handler is given, and what a call in both directions is; grpclib types neither message.
ServerStream = server.Stream[Any, Any]
ClientStream = client.Stream[Any, Any]
Method = Callable[[ServerStream], Awaitable[None]]


def _cardinality(method: MethodDescriptor) -> Cardinality:
    if method.client_streaming:
        return Cardinality.STREAM_STREAM if method.server_streaming else Cardinality.STREAM_UNARY
    return Cardinality.UNARY_STREAM if method.server_streaming else Cardinality.UNARY_UNARY


def _path(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


class Service:
    """One gRPC service: its descriptor and the methods that are offered.

    What the descriptor has and ``methods`` lacks is answered UNIMPLEMENTED.
    """

    def __init__(self, descriptor: ServiceDescriptor, methods: Mapping[str, Method]) -> None:
        self._handlers = {
            _path(method): _handler(method, methods.get(method.name, _refuse))
            for method in descriptor.methods
        }

    def __mapping__(self) -> Mapping[str, Handler]:
        """What grpclib dispatches by."""
        return self._handlers


async def _refuse(stream: ServerStream) -> None:
    raise GRPCError(Status.UNIMPLEMENTED, "this daemon does not offer that")


def _handler(method: MethodDescriptor, function: Method) -> Handler:
    async def answer(stream: ServerStream) -> None:
        try:
            await function(stream)
        except (GRPCError, StreamTerminatedError):
            raise
        except SampanError as error:
            raise grpc_error(error) from None
        except Exception as error:
            log.error("unexpected error in %s", method.full_name, exc_info=error)
            text = f"internal error: {type(error).__name__}; the daemon's log says more"
            raise GRPCError(Status.INTERNAL, text) from None

    return Handler(
        answer,
        _cardinality(method),
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
    )


class Server:
    """Answers gRPC on connections given to it: one :meth:`protocol` each."""

    def __init__(self, services: tuple[Service, ...]) -> None:
        self._server = server.Server(services, codec=_Codec(), status_details_codec=DetailsCodec())

    def protocol(self) -> asyncio.Protocol:
        """The protocol of a new connection; calls on it are cancelled when it is lost."""
        made = self._server._protocol_factory()
        return _Protocol(made.handler, made.config, made.h2_config)


class Channel(client.Channel):
    """Calls services of the peer of one connection; it is never connected anew."""

    def __init__(self) -> None:
        super().__init__(
            host="localhost", port=0, codec=_Codec(), status_details_codec=DetailsCodec()
        )
        self.protocol = _Connected(_Protocol(client.Handler(), self._config, self._h2_config))

    @classmethod
    def nowhere(cls) -> Channel:
        """A channel to nobody: each call fails."""
        made = cls()
        made.protocol.lost = True
        made.protocol.opened.set()
        made.shut()
        return made

    async def _create_connection(self) -> H2Protocol:
        await self.protocol.opened.wait()
        if self.protocol.lost:
            raise ConnectionResetError("the client's session is gone")
        return self.protocol.inner

    def open(
        self,
        method: MethodDescriptor,
        metadata: Sequence[tuple[str, str]] = (),
        *,
        raw: bool = False,
    ) -> ClientStream:
        """Begin a call of any kind; used as an asynchronous context manager.

        With ``raw`` answers are the bytes of messages, not decoded.
        """
        kind = {
            Cardinality.UNARY_UNARY: client.UnaryUnaryMethod,
            Cardinality.UNARY_STREAM: client.UnaryStreamMethod,
            Cardinality.STREAM_UNARY: client.StreamUnaryMethod,
            Cardinality.STREAM_STREAM: client.StreamStreamMethod,
        }[_cardinality(method)]
        answers = bytes if raw else GetMessageClass(method.output_type)
        made: Any = kind(self, _path(method), GetMessageClass(method.input_type), answers)
        return cast(ClientStream, made.open(metadata=list(metadata)))

    def shut(self) -> None:
        """The connection is gone."""
        self._protocol = None  # or its destructor complains that nobody closed it

    async def call(self, method: MethodDescriptor, request: Message) -> Any:
        """A call of one message each way. Raises GRPCError, or OSError when the peer is gone."""
        async with self.open(method) as stream:
            await stream.send_message(request, end=True)
            return await stream.recv_message()


class _Events(EventsProcessor):
    """Events of a connection, with one more case of how a stream ends well.

    A server that has answered in full may reset the stream so that the client stops sending; the
    answer counts all the same (RFC 9113 section 8.1). grpc-go does so.
    """

    def process_stream_reset(self, event: StreamReset) -> None:
        """A stream was reset."""
        stream = self.streams.get(event.stream_id or 0)
        answered = stream is not None and stream.trailers is not None
        if not (answered and event.remote_reset and event.error_code == ErrorCodes.NO_ERROR):
            super().process_stream_reset(event)


class _Stream(Stream):
    """A stream none of whose messages is larger than :data:`MESSAGE_LIMIT`."""

    async def recv_data(self, size: int) -> bytes:
        """The next ``size`` bytes, which a message's head has announced."""
        if size > MESSAGE_LIMIT:
            text = f"received message larger than max ({size} vs. {MESSAGE_LIMIT})"
            raise GRPCError(Status.RESOURCE_EXHAUSTED, text)
        return await super().recv_data(size)


class _Connection(Connection):
    """A connection of such streams."""

    def create_stream(
        self, *, stream_id: int | None = None, wrapper: Wrapper | None = None
    ) -> Stream:
        """A stream of the peer's, or of ours when it has no id yet."""
        return _Stream(
            self, self._connection, self._transport, stream_id=stream_id, wrapper=wrapper
        )


class _Protocol(H2Protocol):
    """HTTP/2 of either side."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        super().connection_made(transport)
        made = self.connection
        if made._ping_handle is not None:
            made._ping_handle.cancel()
        self.connection = _Connection(made._connection, made._transport, config=self.config)
        self.connection.initialize()
        self.processor = _Events(self.handler, self.connection)


class _Connected(asyncio.Protocol):
    """A client's protocol that tells when it may be used, and when no longer."""

    def __init__(self, inner: H2Protocol) -> None:
        self.inner = inner
        self.opened = asyncio.Event()
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is ours."""
        self.inner.connection_made(transport)
        self.opened.set()

    def data_received(self, data: bytes) -> None:
        """Bytes of the peer."""
        self.inner.data_received(data)

    def pause_writing(self) -> None:
        """The peer does not keep up."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """The peer keeps up again."""
        self.inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self.lost = True
        self.opened.set()
        self.inner.connection_lost(exc)


class _Codec(ProtoCodec):
    """Messages of protobuf; ``bytes`` stands for any of them as it came."""

    def decode(self, data: bytes, message_type: Any) -> Any:
        """A message of a type."""
        return data if message_type is bytes else super().decode(data, message_type)

    def encode(self, message: Any, message_type: Any) -> bytes:
        """A message's bytes; FileSend's stream carries messages of two types."""
        data: bytes = message.SerializeToString()
        return data
