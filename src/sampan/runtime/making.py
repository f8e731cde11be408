"""A container being made, as its engine sees it: asked for, told the plan, answered. Blocking."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from sampan.runtime.channel import Message, send_frame
from sampan.runtime.dialogue import answer_of
from sampan.runtime.outline import Outline

_ANSWER_SECONDS = 5.0


class Making:
    """One of which nobody knows the plan yet."""

    def __init__(self, outline: Outline, connection: socket.socket) -> None:
        """Ask for it over a connection to the launcher, which is ours now; does not wait.

        Raises :class:`OSError` when nobody is there.
        """
        self.outline = outline
        self.connection = connection
        try:
            send_frame(connection, outline.message())
        except OSError:
            connection.close()
            raise

    def give_up(self) -> None:
        """There will be no plan, or nobody to start it; returns when all that was made is gone
        again. Idempotent."""
        with self.connection, contextlib.suppress(OSError):
            self.connection.settimeout(_ANSWER_SECONDS)
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(4096):
                pass

    def submit(
        self, plan: Message, blob: bytes, meanwhile: Callable[[int], None] | None
    ) -> Message:
        """Tell the plan; the answer. The connection is closed when there is none.

        ``meanwhile`` as for :meth:`sampan.runtime.client.Launcher.create`. Raises as
        :func:`sampan.runtime.dialogue.answer_of`.
        """
        try:
            send_frame(self.connection, plan, blob)
            waiting = int(answer_of(self.connection)["waiting"])
            if meanwhile is None or not waiting:
                return answer_of(self.connection)
        except BaseException:
            self.connection.close()
            raise
        try:
            meanwhile(waiting)
        except BaseException:
            self.give_up()
            raise
        try:
            return answer_of(self.connection)
        except BaseException:
            self.connection.close()
            raise
