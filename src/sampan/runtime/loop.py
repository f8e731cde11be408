"""The monitor's event loop: epoll, one callback a descriptor, and deadlines."""

from __future__ import annotations

import select
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
PRIORITY = select.EPOLLPRI
HANGUP = select.EPOLLHUP | select.EPOLLERR

Callback = Callable[[int], None]


class Loop:
    """Calls back with ready events. Descriptors must be removed before they are closed."""

    def __init__(self) -> None:
        self._epoll = select.epoll(flags=select.EPOLL_CLOEXEC)
        self._callbacks: dict[int, Callback] = {}
        self._deadlines: dict[object, tuple[float, Callable[[], None]]] = {}
        self._running = True
        self._quiet: tuple[float, Callable[[], None]] | None = None

    def add(self, fd: int, events: int, callback: Callback) -> None:
        """Call ``callback(events)`` when ``fd`` is ready (level-triggered)."""
        self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def change(self, fd: int, events: int) -> None:
        """Wait for other events of ``fd``; 0 for hang-ups only."""
        self._epoll.modify(fd, events)

    def remove(self, fd: int) -> None:
        """Forget ``fd``; unknown ones are fine."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def deadline(self, key: object, seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` once after ``seconds`` unless cancelled or set again."""
        self._deadlines[key] = (time.monotonic() + seconds, callback)

    def cancel(self, key: object) -> None:
        """Forget a deadline; unknown ones are fine."""
        self._deadlines.pop(key, None)

    def when_quiet(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` each time no descriptor was ready for ``seconds``."""
        self._quiet = (seconds, callback)

    def stop(self) -> None:
        """Return from :meth:`run` after the present callbacks."""
        self._running = False

    def run(self) -> None:
        """Until :meth:`stop`."""
        active = time.monotonic()
        while self._running:
            self._expire()
            ready = self._epoll.poll(self._timeout(active))
            if ready:
                active = time.monotonic()
            elif self._quiet is not None and time.monotonic() - active >= self._quiet[0]:
                active = time.monotonic()
                self._quiet[1]()
            for fd, events in ready:
                callback = self._callbacks.get(fd)
                if callback is not None:
                    callback(events)

    def _timeout(self, active: float) -> float:
        if not self._running:
            return 0
        times = [when for when, _ in self._deadlines.values()]
        if self._quiet is not None:
            times.append(active + self._quiet[0])
        return max(min(times) - time.monotonic(), 0) if times else -1

    def _expire(self) -> None:
        if not self._deadlines:
            return
        now = time.monotonic()
        for key, (when, callback) in list(self._deadlines.items()):
            if when <= now and self._deadlines.get(key, (0, None))[1] is callback:
                del self._deadlines[key]
                callback()


class Guarded(Loop):
    """A part of another loop: what its callbacks raise is told to ``failed`` and ends nothing else.

    It is run by the other one and does not know quiet times.
    """

    def __init__(self, loop: Loop, failed: Callable[[Exception], None]) -> None:
        self._loop = loop
        self._failed = failed

    def add(self, fd: int, events: int, callback: Callback) -> None:
        """As the whole loop's."""

        def guarded(ready: int) -> None:
            try:
                callback(ready)
            except Exception as error:  # whatever it is, others go on
                self._failed(error)

        self._loop.add(fd, events, guarded)

    def change(self, fd: int, events: int) -> None:
        """As the whole loop's."""
        self._loop.change(fd, events)

    def remove(self, fd: int) -> None:
        """As the whole loop's."""
        self._loop.remove(fd)

    def deadline(self, key: object, seconds: float, callback: Callable[[], None]) -> None:
        """As the whole loop's."""

        def guarded() -> None:
            try:
                callback()
            except Exception as error:
                self._failed(error)

        self._loop.deadline(key, seconds, guarded)

    def cancel(self, key: object) -> None:
        """As the whole loop's."""
        self._loop.cancel(key)
