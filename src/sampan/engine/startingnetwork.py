"""The network of a container that starts: plugged while it is made, where that can be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from sampan.engine.core import Core
from sampan.engine.fabric import Plug
from sampan.engine.naming import NameFiles
from sampan.engine.table import Container
from sampan.errors import StartFailed
from sampan.runtime.client import Monitor


@contextmanager
def present(monitor: Monitor) -> Iterator[None]:
    """For what looks at the first process; one that has failed and gone raises what it failed for.

    Its network namespace has gone with it.
    """
    try:
        yield
    except (ProcessLookupError, FileNotFoundError) as error:
        monitor.start()  # the monitor knows why
        raise StartFailed("the container's first process is gone") from error


def as_failure(error: OSError) -> StartFailed:
    """What a failed call means for whoever wants the container started."""
    what = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return StartFailed(f"cannot start the container: {what}{error.strerror}")


class StartingNetwork:
    """What one start plugs; ``plugs`` are the endpoints as they became.

    The process that waits to be a container's first has the network namespace of that: it is
    plugged while the plan is under way. Should the container get another one after all, what was
    done is undone, and done there.
    """

    def __init__(
        self,
        core: Core,
        container: Container,
        wanted: Sequence[Plug],
        files: NameFiles | None,
        undo: ExitStack,
        *,
        own: bool,
    ) -> None:
        """``wanted``: the endpoints as planned; ``files``: what names are served by; ``own``: the
        container has a network namespace of its own. ``undo`` undoes all."""
        self._core = core
        self._container = container
        self._wanted = wanted
        self._files = files
        self._own = own
        self._undo = undo.enter_context(ExitStack())
        self._namespace = -1
        undo.callback(self._forget)
        self.plugs: Sequence[Plug] = ()

    def plug(self, pid: int) -> None:
        """Plug the network namespace of ``pid``, unless that has gone. Raises SampanError."""
        self._undo.close()
        self._forget()
        try:
            # Kept open, so that no other namespace gets its number.
            self._namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            self._serve(pid)
        except (ProcessLookupError, FileNotFoundError):
            self._undo.close()
            self._forget()
        except OSError as error:
            raise as_failure(error) from error

    def finish(self, monitor: Monitor) -> None:
        """See to it that the network of the container that was made is plugged."""
        with present(monitor):
            found = os.stat(f"/proc/{monitor.pid}/ns/net")
            if self._namespace >= 0 and os.path.samestat(found, os.fstat(self._namespace)):
                self._forget()
                return
            self._undo.close()
            self._forget()
            self._serve(monitor.pid)

    def _forget(self) -> None:
        if self._namespace >= 0:
            os.close(self._namespace)
            self._namespace = -1

    def _serve(self, pid: int) -> None:
        """Plug, and serve names there."""
        fabric = self._core.fabric
        self.plugs = fabric.attach(self._wanted, pid, self._undo, self._container.record)
        if self._own and not self.plugs:
            fabric.isolate(pid)
        if self._files is not None and self._files.resolver is not None:
            fabric.resolve_for(self._container.id, pid, self._files.resolver)
            self._undo.callback(fabric.resolver.unplug, self._container.id)
