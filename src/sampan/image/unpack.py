"""Unpack images: apply their layers to snapshots named by chain id."""

from __future__ import annotations

import logging
import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from sampan.content import ContentStore
from sampan.errors import Conflict
from sampan.image.image import Image
from sampan.layer.apply import apply, settle
from sampan.layer.model import (
    DEFAULT_LIMITS,
    Applied,
    Destination,
    Limits,
    Readable,
    Whiteouts,
)
from sampan.layer.process import apply_apart
from sampan.model.descriptor import Descriptor
from sampan.model.digest import Digest
from sampan.snapshot import Snapshotter
from sampan.snapshot.rootfs import layer_destination, lower_directories


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerProgress:
    """How far a layer is: ``current`` of ``total`` compressed bytes; ``done`` at its end."""

    digest: Digest
    current: int
    total: int
    done: bool = False


Progress = Callable[[LayerProgress], None]

#: Compressed bytes of an image, and of one layer, from which processes repay their start (60 ms).
_WORTH_PROCESSES = 32 << 20
_WORTH_PROCESS = 8 << 20

log = logging.getLogger("sampan.image")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """One layer of an image: ``key`` is its snapshot's, ``parent`` that of the layer below."""

    layer: Descriptor
    diff_id: Digest
    key: str
    parent: str | None


def _steps(image: Image) -> list[_Step]:
    steps: list[_Step] = []
    layers = zip(image.manifest.layers, image.config.diff_ids, image.chain_ids, strict=True)
    for layer, diff_id, chain_id in layers:
        parent = steps[-1].key if steps else None
        steps.append(_Step(layer=layer, diff_id=diff_id, key=str(chain_id), parent=parent))
    return steps


def _done(step: _Step, progress: Progress | None) -> None:
    if progress is not None:
        layer = step.layer
        progress(
            LayerProgress(digest=layer.digest, current=layer.size, total=layer.size, done=True)
        )


class Unpacker:
    """Unpacks images of one content store into one snapshotter.

    Safe from many threads: a layer wanted by several at once is unpacked once, the others wait.
    At most ``processes`` (else as many as there are processors) unpack at the same time; when all
    are busy, a layer is unpacked by the thread that wants it.
    """

    def __init__(
        self,
        content: ContentStore,
        snapshotter: Snapshotter,
        *,
        limits: Limits = DEFAULT_LIMITS,
        processes: int | None = None,
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        self.content = content
        self.snapshotter = snapshotter
        self.limits = limits
        self.processes = processes or os.cpu_count() or 1
        self._committed = committed
        self._gates = _Gates()
        self._slots = threading.Semaphore(self.processes)

    def unpack(
        self, image: Image, *, progress: Progress | None = None, follow: float | None = None
    ) -> Digest | None:
        """Make the image's snapshots, bottom first; returns its chain id (None without layers).

        Idempotent: layers already there are left alone. With ``follow`` (seconds) layers may
        still be downloading (:meth:`ContentStore.follow`). Large layers unpack at once, each in
        a process of its own. Blocking. Raises NotFound (layer missing), DigestMismatch,
        ArchiveRefused, NoSpace; a failed layer leaves nothing.
        """
        steps = _steps(image)
        missing = [step for step in steps if not self.snapshotter.exists(step.key)]
        large = sum(step.layer.size for step in missing) >= _WORTH_PROCESSES
        if large and self.snapshotter.rebases:
            self._beside(steps, progress, follow)
        else:
            for step in steps:
                with self._gates.enter(step.key):
                    if not self.snapshotter.exists(step.key):
                        with self._open(step.layer, follow) as stream:
                            reading = _Reading(stream, step.layer, progress)
                            self.layer(reading, step.diff_id, step.key, step.parent)
                _done(step, progress)
        return image.chain_id

    def _beside(
        self, steps: Sequence[_Step], progress: Progress | None, follow: float | None
    ) -> None:
        """All of them at once; each is committed when its parent is."""
        first = _First()
        with ThreadPoolExecutor(self.processes, thread_name_prefix="sampan-unpack") as threads:
            futures = [
                threads.submit(self._extract, step, progress, follow, first) for step in steps
            ]
            for step, future in zip(steps, futures, strict=True):
                extracted = future.result()
                if extracted is None:
                    continue
                with extracted.gate:
                    try:
                        if first.error is None:
                            self._commit(step, extracted)
                            _done(step, progress)
                    except BaseException as error:
                        first.failed(error)
        if first.error is not None:
            raise first.error

    def _extract(
        self, step: _Step, progress: Progress | None, follow: float | None, first: _First
    ) -> _Extracted | None:
        """Apply a layer that may not have its parent yet; None when somebody else failed."""
        with ExitStack() as gate:
            try:
                gate.enter_context(self._gates.enter(step.key))
                if first.error is not None:
                    return None
                if self.snapshotter.exists(step.key):
                    return _Extracted(gate=gate.pop_all())
                key = f"unpack-{secrets.token_hex(8)}"
                destination = layer_destination(self.snapshotter.prepare(key))
                gate.callback(self._forget, key)
                if step.parent is not None:  # without one it looks like a lowest layer
                    destination = replace(destination, whiteouts=Whiteouts.OVERLAY)
                with self._open(step.layer, follow) as stream:
                    reading = _Reading(stream, step.layer, progress)
                    applied = self._apply(reading, destination, step, first)
                return _Extracted(
                    gate=gate.pop_all(),
                    key=key,
                    root=destination.root,
                    implicit=applied.implicit,
                )
            except BaseException as error:
                first.failed(error)
                return None

    def _commit(self, step: _Step, extracted: _Extracted) -> None:
        if not extracted.key:
            return
        if step.parent is not None and extracted.implicit:
            view = f"unpack-{secrets.token_hex(8)}"
            mounts = self.snapshotter.view(view, step.parent)
            try:
                settle(extracted.root, extracted.implicit, lower_directories(mounts))
            finally:
                self.snapshotter.remove(view)
        try:
            self.snapshotter.commit(step.key, extracted.key, parent=step.parent)
        except Conflict:
            if not self.snapshotter.exists(step.key):
                raise
        self._committed()

    def _forget(self, key: str) -> None:
        """Remove what was not committed."""
        if self.snapshotter.exists(key):
            self.snapshotter.remove(key)

    def _apply(
        self, stream: Readable, destination: Destination, step: _Step, first: _First
    ) -> Applied:
        if step.layer.size >= _WORTH_PROCESS and self._slots.acquire(blocking=False):
            try:
                return apply_apart(
                    stream,
                    destination,
                    diff_id=step.diff_id,
                    limits=self.limits,
                    wanted=lambda: first.error is None,
                )
            except ChildProcessError as error:  # none could be started: this one can do it, too
                log.warning("unpacking %s here: %s", step.layer.digest, error)
            finally:
                self._slots.release()
        return apply(stream, destination, diff_id=step.diff_id, limits=self.limits)

    def _open(self, layer: Descriptor, follow: float | None) -> BinaryIO:
        if follow is None:
            return self.content.open(layer.digest)
        return self.content.follow(layer.digest, timeout=follow)

    def layer(self, stream: Readable, diff_id: Digest, name: str, parent: str | None) -> None:
        """Apply one layer (compressed or not) on top of ``parent`` as committed ``name``.

        Errors as :meth:`unpack`; harmless when somebody else committed it meanwhile.
        """
        key = f"unpack-{secrets.token_hex(8)}"
        mounts = self.snapshotter.prepare(key, parent)
        try:
            destination = layer_destination(mounts)
            apply(stream, destination, diff_id=diff_id, limits=self.limits)
            self.snapshotter.commit(name, key)
            self._committed()
        except Conflict:
            self.snapshotter.remove(key)
            if not self.snapshotter.exists(name):
                raise
        except BaseException:
            self.snapshotter.remove(key)
            raise


class _Reading:
    """A layer's stream that reports how far it was read."""

    def __init__(self, stream: BinaryIO, layer: Descriptor, progress: Progress | None) -> None:
        self._stream = stream
        self._layer = layer
        self._progress = progress
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._count += len(data)
        if self._progress is not None:
            self._progress(
                LayerProgress(
                    digest=self._layer.digest, current=self._count, total=self._layer.size
                )
            )
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class _Extracted:
    """A layer in snapshot ``key`` ("": it was there before), its ``gate`` to be left at the end."""

    gate: ExitStack
    key: str = ""
    root: Path = Path()
    implicit: Sequence[bytes] = ()


class _First:
    """The first error of several threads; what the others fail with only follows from it."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self._lock = threading.Lock()

    def failed(self, error: BaseException) -> None:
        """Note ``error`` unless there is one."""
        with self._lock:
            if self.error is None:
                self.error = error


class _Gates:
    """One lock for each key in use, made and thrown away as needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._gates: dict[str, tuple[threading.Lock, int]] = {}

    @contextmanager
    def enter(self, key: str) -> Iterator[None]:
        """Hold the lock of ``key``."""
        with self._lock:
            gate, users = self._gates.get(key, (threading.Lock(), 0))
            self._gates[key] = (gate, users + 1)
        try:
            with gate:
                yield
        finally:
            with self._lock:
                gate, users = self._gates.pop(key)
                if users > 1:
                    self._gates[key] = (gate, users - 1)
