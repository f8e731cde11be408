"""The local volume driver: directories under ``<data root>/volumes``.

``<root>/<name>/volume.json`` is written last and makes the volume exist; ``<root>/<name>/_data`` is
what containers get. Data is deleted by :meth:`LocalVolumes.remove` alone: a directory without
volume.json (a create that did not finish) is completed by the next create of that name, never
emptied. Removal renames first, so a volume is there whole or not at all; a snapshot is made beside
and renamed last.

A volume of a plugin has a volume.json that names its driver, and no ``_data``: so a name is one
volume's, whatever its driver.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

from sampan.content.atomic import atomic_write, fsync_directory
from sampan.errors import (
    Conflict,
    Corrupt,
    InvalidParameter,
    NoSpace,
    NotFound,
    SampanError,
    Unsupported,
)
from sampan.kernel import mount, mountinfo, openat
from sampan.runtime.copy_up import copy_tree
from sampan.snapshot import quota
from sampan.volume.model import Volume, check_name
from sampan.volume.mounting import perform
from sampan.volume.options import size_limit, volume_mount

_METADATA = "volume.json"
_DATA = "_data"
_REMOVED = ".removed-"
_UNFINISHED = ".unfinished-"
_AT_FDCWD = -100
_MNT_DETACH = 2
_BLOCK = 512  # st_blocks' unit, whatever the file system's block size is (stat(2))


class LocalVolumes:
    """All local volumes of one data root. Safe to use from several threads of one process."""

    def __init__(self, root: Path) -> None:
        """``root`` is made if missing; what an interrupted removal left is deleted."""
        self._root = root
        self._lock = threading.Lock()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        # A container's root leaves set-user-id programs in volumes: nobody else gets to them.
        root.chmod(0o700)
        for prefix in (_REMOVED, _UNFINISHED):
            for leftover in root.glob(f"{prefix}*"):
                shutil.rmtree(leftover, ignore_errors=True)

    # existence

    def create(
        self,
        name: str,
        *,
        created_at: str,
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> Volume:
        """Make the volume ``name``, or return the one that exists (as dockerd, whatever its
        options). Raises :class:`InvalidParameter` for a bad name or option."""
        check_name(name)
        volume_mount(options or {})
        size = size_limit(options or {})
        volume = Volume(
            name=name,
            mountpoint=self._root / name / _DATA,
            created_at=created_at,
            labels=dict(labels or {}),
            options=dict(options or {}),
        )
        with self._lock:
            with contextlib.suppress(NotFound):
                return self._read(name)
            with _translated(f"create {name}"):
                directory = self._root / name
                directory.mkdir(mode=0o701, exist_ok=True)
                new = not volume.mountpoint.exists()
                volume.mountpoint.mkdir(mode=0o755, exist_ok=True)
                try:
                    self._limit(volume.mountpoint, size)
                except SampanError:
                    if new:
                        volume.mountpoint.rmdir()
                        directory.rmdir()
                    raise
                fsync_directory(directory)
                atomic_write(directory / _METADATA, _encode(volume))
                fsync_directory(self._root)
        return volume

    def _limit(self, directory: Path, size: int) -> None:
        if size:
            quota.limit(
                [directory],
                size,
                self._root.glob(f"*/{_DATA}"),
                first=quota.VOLUMES,
                asked="quota size requested but no quota support",
            )

    def record(
        self,
        name: str,
        driver: str,
        *,
        created_at: str,
        options: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> Volume:
        """Remember a volume of the plugin ``driver``; undone by :meth:`forget`."""
        check_name(name)
        volume = Volume(
            name=name,
            mountpoint=Path(),
            created_at=created_at,
            driver=driver,
            labels=dict(labels),
            options=dict(options),
        )
        with self._lock, _translated(f"create {name}"):
            directory = self._root / name
            directory.mkdir(mode=0o701, exist_ok=True)
            atomic_write(directory / _METADATA, _encode(volume))
            fsync_directory(self._root)
        return volume

    def forget(self, name: str) -> None:
        """Forget a plugin's volume; deletes no data, whatever is there. Idempotent."""
        check_name(name)
        with self._lock, _translated(f"remove {name}"):
            (self._root / name / _METADATA).unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                (self._root / name).rmdir()

    def get(self, name: str) -> Volume:
        """The volume ``name``; raises :class:`NotFound` (``get x: no such volume``)."""
        return self._read(name)

    def list(self) -> tuple[Volume, ...]:
        """Every volume, by name."""
        found = []
        for entry in sorted(os.listdir(self._root)):
            if not entry.startswith("."):
                with contextlib.suppress(NotFound):
                    found.append(self._read(entry))
        return tuple(found)

    def remove(self, name: str) -> None:
        """Delete the volume and its data.

        Raises :class:`NotFound`, and :class:`Conflict` while something is mounted in it (call
        :meth:`unmount` first; references of containers are the engine's to check).
        """
        with self._lock:
            volume = self._local(name)
            if _mounts_in(volume.mountpoint):
                raise Conflict(f"remove {name}: volume is in use: something is mounted in it")
            doomed = self._root / f"{_REMOVED}{secrets.token_hex(8)}"
            with _translated(f"remove {name}"):
                os.rename(self._root / name, doomed)
                fsync_directory(self._root)
        with _translated(f"remove {name}"):
            if size_limit(volume.options):
                quota.forget(doomed / _DATA)
            shutil.rmtree(doomed)

    def rename(self, name: str, new: str) -> Volume:
        """Give a volume that is not mounted another name; its data stays where containers that
        have it see it. Raises :class:`NotFound`, :class:`Conflict`."""
        check_name(new)
        with self._lock:
            volume = self._local(name)
            if _mounts_in(volume.mountpoint):
                raise Conflict(f"rename {name}: volume is in use: something is mounted in it")
            self._check_free(new)
            with _translated(f"rename {name}"):
                os.rename(self._root / name, self._root / new)
                fsync_directory(self._root)
            return self._read(new)

    def snapshot(
        self, name: str, new: str, *, created_at: str, labels: Mapping[str, str] | None = None
    ) -> Volume:
        """A new volume ``new`` with what ``name`` holds now; whole or not at all.

        Files are copied one after the other (sharing blocks where the file system can), so a
        program writing meanwhile should be paused. Raises :class:`NotFound`, :class:`Conflict`.
        """
        check_name(new)
        source = self._local(name)
        made = Volume(
            name=new,
            mountpoint=self._root / new / _DATA,
            created_at=created_at,
            labels=dict(source.labels if labels is None else labels),
            options={key: value for key, value in source.options.items() if key == "size"},
        )
        work = self._root / f"{_UNFINISHED}{secrets.token_hex(8)}"
        with contextlib.ExitStack() as undo, _translated(f"snapshot {name}"):
            work.mkdir(mode=0o701)
            undo.callback(shutil.rmtree, work, ignore_errors=True)
            (work / _DATA).mkdir(mode=0o755)
            self._limit(work / _DATA, size_limit(made.options))
            copy_directory(source.mountpoint, work / _DATA)
            atomic_write(work / _METADATA, _encode(made))
            with self._lock:
                self._check_free(new)
                os.rename(work, self._root / new)
                fsync_directory(self._root)
        return made

    def _local(self, name: str) -> Volume:
        volume = self._read(name)
        if volume.driver != "local":
            raise Unsupported(f"volume {name} is of driver {volume.driver}, which cannot do this")
        return volume

    def _check_free(self, name: str) -> None:
        if os.path.lexists(self._root / name):
            raise Conflict(f"volume name {name} is in use")

    # use

    def mount(self, name: str) -> Path:
        """Make the volume usable and return the directory to bind. Idempotent.

        Only volumes with options have anything to do. Raises :class:`StartFailed` with the
        kernel's words when the mount fails.
        """
        volume = self._local(name)
        wanted = volume_mount(volume.options)
        if wanted is not None:
            with self._lock:
                if not _is_mounted(volume.mountpoint):
                    perform(wanted, name, volume.mountpoint)
        return volume.mountpoint

    def unmount(self, name: str) -> None:
        """Undo :meth:`mount`; call it when the last container using the volume has stopped.
        Idempotent; a plain volume has nothing to undo."""
        volume = self._local(name)
        if volume_mount(volume.options) is None:
            return
        with self._lock, _translated(f"unmount {name}"):
            while _is_mounted(volume.mountpoint):
                mount.umount2(str(volume.mountpoint), _MNT_DETACH)

    def copy_up(
        self,
        name: str,
        image_root_fd: int,
        path: str,
        at: Path | None = None,
        subpath: str = "",
    ) -> bool:
        """Fill an empty volume with what the image has at ``path``; whether anything was done.

        ``image_root_fd`` is the container's root; ``path`` is looked up inside it and nowhere
        else. ``at`` is where the volume is, if not here (a plugin's). With ``subpath``, that
        directory of the volume is filled. One that has anything in it is left alone.
        """
        directory = at if at is not None else self._read(name).mountpoint
        flags = os.O_RDONLY | os.O_DIRECTORY
        with _translated(f"copy image content to volume {name}"), ExitStack() as undo:
            root = os.open(directory, flags | os.O_CLOEXEC)
            undo.callback(os.close, root)
            try:
                target = openat.beneath(root, subpath or ".", flags)
                undo.callback(os.close, target)
                if os.listdir(target):
                    return False
                source = openat.in_root(image_root_fd, path, flags)
                undo.callback(os.close, source)
            except OSError as error:
                # What is wrong with a subpath is told when the container starts.
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EXDEV):
                    return False
                raise
            copy_tree(source, target)
        return True

    def subpath(self, name: str, subpath: str) -> int:
        """An O_PATH descriptor of ``subpath`` inside the volume: what a ``volume-subpath`` mount
        binds. Raises as :func:`subpath_of`.
        """
        return subpath_of(self._read(name).mountpoint, name, subpath)

    def pin_subpath(self, name: str, subpath: str, target: Path) -> None:
        """Mount ``subpath`` of the volume on ``target`` (made as needed), so that a path can be
        handed on that no container can exchange meanwhile. Undo with :func:`unpin`."""
        fd = self.subpath(name, subpath)
        try:
            pin(fd, target)
        finally:
            os.close(fd)

    def usage(self, name: str) -> int:
        """Bytes the volume's data takes on disk; other file systems mounted in it not counted."""
        volume = self._read(name)
        return disk_usage(volume.mountpoint)

    def _read(self, name: str) -> Volume:
        missing = NotFound(f"get {name}: no such volume")
        try:
            check_name(name)
            raw = (self._root / name / _METADATA).read_bytes()
        except (OSError, InvalidParameter):
            raise missing from None
        try:
            return _decode(name, self._root / name / _DATA, json.loads(raw))
        except (ValueError, TypeError, KeyError) as error:
            raise Corrupt(f"volume {name}: {_METADATA} is damaged: {error}") from error


def subpath_of(directory: Path, name: str, subpath: str) -> int:
    """An O_PATH descriptor of ``subpath`` inside ``directory``, which is volume ``name``'s; ""
    is the directory itself.

    Raises :class:`NotFound` when it is not there, :class:`InvalidParameter` when it, or a link in
    it, leads out of the directory.
    """
    try:
        root = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return openat.beneath(root, subpath or ".")
        finally:
            os.close(root)
    except OSError as error:
        if error.errno == errno.EXDEV:
            raise InvalidParameter(
                f"path concatenation escapes the base directory, subpath: {subpath}"
            ) from error
        # In Go's words: by them the docker command line chooses its exit status.
        why = os.strerror(error.errno or 0).lower()
        raise NotFound(f"cannot access path {subpath} in volume {name}: {why}") from error


def pin(fd: int, target: Path) -> None:
    """Mount what ``fd`` (O_PATH) is on ``target``, made as needed. Undo with :func:`unpin`."""
    with _translated(f"mount {target.name}"):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _is_directory(fd):
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        with mount.descriptor(mount.clone_tree(fd, "", recursive=True)) as tree:
            mount.move_mount(tree, _AT_FDCWD, str(target))


def unpin(target: Path) -> None:
    """Undo :func:`pin`; idempotent. Never deletes what is pinned: a mount point still in use is
    left, empty directory or file that it is."""
    with contextlib.suppress(OSError):
        while True:  # until EINVAL: nothing is mounted there any more
            mount.umount2(str(target), _MNT_DETACH)
    with contextlib.suppress(OSError):
        target.rmdir() if target.is_dir() else target.unlink()


def copy_directory(source: Path, target: Path) -> None:
    """Copy what is in ``source`` into the empty directory ``target``; raises :class:`OSError`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    inner = os.open(source, flags)
    try:
        outer = os.open(target, flags)
        try:
            copy_tree(inner, outer)
        finally:
            os.close(outer)
    finally:
        os.close(inner)


def disk_usage(directory: Path) -> int:
    """Bytes on disk below ``directory``, hard links once, its own file system only."""
    top = os.lstat(directory)
    seen: set[int] = set()
    total = 0
    stack = [os.fspath(directory)]
    while stack:
        try:
            entries = list(os.scandir(stack.pop()))
        except OSError:
            continue  # containers delete while we look
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if status.st_dev != top.st_dev or status.st_ino in seen:
                continue
            if status.st_nlink > 1:
                seen.add(status.st_ino)
            total += status.st_blocks * _BLOCK
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)
    return total


def _is_mounted(directory: Path) -> bool:
    """Whether something is mounted on ``directory``. Not os.path.ismount: it does not see bind
    mounts within one file system."""
    wanted = os.path.realpath(directory)
    return any(entry.point == wanted for entry in mountinfo.entries(mountinfo.own()))


def _mounts_in(directory: Path) -> bool:
    """Whether anything is mounted on or below ``directory``."""
    wanted = os.path.realpath(directory)
    points = [entry.point for entry in mountinfo.entries(mountinfo.own())]
    return any(point == wanted or point.startswith(f"{wanted}/") for point in points)


def _is_directory(fd: int) -> bool:
    return os.path.isdir(f"/proc/self/fd/{fd}")


def _encode(volume: Volume) -> bytes:
    document: dict[str, object] = {
        "created_at": volume.created_at,
        "labels": dict(volume.labels),
        "options": dict(volume.options),
    }
    if volume.driver != "local":
        document["driver"] = volume.driver
    return json.dumps(document, indent=1).encode()


def _decode(name: str, mountpoint: Path, document: Mapping[str, object]) -> Volume:
    labels, options = document["labels"], document["options"]
    if not isinstance(labels, dict) or not isinstance(options, dict):
        raise TypeError("labels and options must be objects")
    driver = str(document.get("driver", "local"))
    return Volume(
        name=name,
        mountpoint=mountpoint if driver == "local" else Path(),
        created_at=str(document["created_at"]),
        driver=driver,
        labels={str(key): str(value) for key, value in labels.items()},
        options={str(key): str(value) for key, value in options.items()},
    )


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"{what}: {error.strerror}: {error.filename or ''}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(message) from error
        raise SampanError(message) from error
