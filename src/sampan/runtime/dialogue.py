"""Asking a worker or a maker something, and hearing its answer or its error."""

from __future__ import annotations

import socket

from sampan import errors
from sampan.errors import NotFound, StartFailed
from sampan.runtime.channel import Message, receive_frame, send_frame


def ask(connection: socket.socket, message: Message) -> Message:
    """Send a request and wait for its answer; raises the error it was answered with.

    Raises :class:`NotFound` when nobody is there any more.
    """
    tell(connection, message)
    return hear(connection)


def tell(connection: socket.socket, message: Message) -> None:
    """Send a request; :func:`hear` gets its answer. Raises :class:`NotFound`."""
    try:
        send_frame(connection, message)
    except OSError as error:
        raise _gone(error) from error


def hear(connection: socket.socket) -> Message:
    """Wait for the answer to what was sent. Raises as :func:`ask`."""
    try:
        return answer_of(connection)
    except OSError as error:
        raise _gone(error) from error


def _gone(error: OSError) -> NotFound:
    return NotFound(f"the monitor is gone: {error.strerror}")


def answer_of(connection: socket.socket) -> Message:
    """The answer to what was sent. Raises as :func:`ask`, but :class:`OSError` as it is."""
    answer, _, _ = receive_frame(connection)
    if answer is None:
        raise NotFound("the monitor is gone")
    name = answer.get("error")
    if name is not None:
        kind = getattr(errors, str(name), StartFailed)
        raise kind(answer["message"])
    return answer
