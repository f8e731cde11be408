"""Work ahead: an iterator run by a thread of its own, a few items before its consumer.

Inflating and hashing release the interpreter's lock, so they go on beside the writing of files.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator

_AHEAD = 6


class Ahead:
    """The items of ``source``, in order, produced by a thread; a context manager.

    At most six items are held. What ``source`` raises is raised by ``next``. Leaving the context
    ends the thread, at the latest when ``source`` gives its next item.
    """

    def __init__(self, source: Iterator[bytes]) -> None:
        self._source = source
        self._items: queue.SimpleQueue[bytes | BaseException | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD)
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="sampan-layer", daemon=True)

    def _run(self) -> None:
        try:
            for item in self._source:
                self._room.acquire()
                if self._stop:
                    return
                self._items.put(item)
            self._items.put(None)
        except BaseException as error:  # belongs to the consumer
            self._items.put(error)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        item = self._items.get()
        self._room.release()
        if isinstance(item, bytes):
            return item
        self._items.put(item)  # the end stays the end
        if item is None:
            raise StopIteration
        raise item

    def __enter__(self) -> Ahead:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop = True
        self._room.release()
        self._thread.join()
