"""``system dial-stdio``: standard input and output as a connection to the daemon (``ssh://``)."""

from __future__ import annotations

import os
import select

from sampan.cli.command import NONE, Command
from sampan.cli.streams import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session

_CHUNK = 64 * 1024


def _dial(session: Session, _arguments: Arguments) -> None:
    stream = session.client.dial()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(stream.fileno(), select.POLLIN)
    while True:
        ready = {descriptor for descriptor, _event in poll.poll()}
        if stream.fileno() in ready:
            data = stream.recv(_CHUNK)
            if not data:
                return
            write_all(1, data)
        if 0 in ready:
            data = os.read(0, _CHUNK)
            if data:
                stream.sendall(data)
            else:
                poll.unregister(0)
                stream.close_write()


DIAL_STDIO = Command("", (), NONE, _dial)
