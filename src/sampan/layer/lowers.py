"""The merged view of an overlay's lower directories, read without mounting them.

Overlay's own rules (Documentation/filesystems/overlayfs.rst): directories of one path merge, the
topmost first; a whiteout or anything but a directory hides what is below, an opaque directory too.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

OPAQUE_XATTR = "trusted.overlay.opaque"


def is_whiteout(status: os.stat_result) -> bool:
    """Whether a file is overlay's mark for "nothing here"."""
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(parent: int, name: bytes) -> bool:
    """Whether directory ``name`` of ``parent`` hides the directories below it."""
    path = b"/proc/self/fd/%d/%b" % (parent, name)
    try:
        return os.getxattr(path, OPAQUE_XATTR, follow_symlinks=False) == b"y"
    except OSError:  # no such attribute, or attributes not supported: not opaque
        return False


class Lowers:
    """Lower directories ``roots``, topmost first. They must not change meanwhile."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self._roots: list[int] = []
        self._merging: dict[bytes, tuple[int, ...]] = {}
        try:
            for root in roots:
                self._roots.append(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        except BaseException:
            self.close()
            raise
        self._merging[b""] = tuple(self._roots)

    def __bool__(self) -> bool:
        return bool(self._roots)

    def root_status(self) -> os.stat_result | None:
        """The status of the topmost lower directory itself, or None if there is none."""
        return os.stat(self._roots[0]) if self._roots else None

    def lookup(self, path: bytes) -> tuple[int, os.stat_result] | None:
        """(descriptor of the layer, status) of what is at ``path``, or None."""
        for root in self._layers(path.rpartition(b"/")[0]):
            status = _lstat(root, path)
            if status is not None:
                return None if is_whiteout(status) else (root, status)
        return None

    def directory(self, path: bytes) -> os.stat_result | None:
        """The status of the directory at ``path``, or None if there is none."""
        found = self.lookup(path)
        return found[1] if found and stat.S_ISDIR(found[1].st_mode) else None

    def names(self, path: bytes) -> Iterator[bytes]:
        """The names in the merged directory ``path``, sorted; none if there is no directory."""
        decided: set[bytes] = set()
        present: list[bytes] = []
        for root in self._layers(path):
            fd = os.open(path or b".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=root)
            try:
                for name in map(os.fsencode, os.listdir(fd)):
                    if name not in decided:
                        decided.add(name)
                        if not is_whiteout(os.lstat(name, dir_fd=fd)):
                            present.append(name)
            finally:
                os.close(fd)
        return iter(sorted(present))

    def _layers(self, directory: bytes) -> tuple[int, ...]:
        """The layers whose directories merge at ``directory``, topmost first."""
        known = self._merging.get(directory)
        if known is not None:
            return known
        path = b""
        layers = self._merging[b""]
        for part in directory.split(b"/"):
            path = path + b"/" + part if path else part
            deeper = self._merging.get(path)
            if deeper is None:
                deeper = self._merging[path] = _merge(layers, path)
            layers = deeper
        return layers

    def close(self) -> None:
        """Close the descriptors."""
        while self._roots:
            os.close(self._roots.pop())
        self._merging.clear()

    def __enter__(self) -> Lowers:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _merge(parents: tuple[int, ...], path: bytes) -> tuple[int, ...]:
    merging: list[int] = []
    for root in parents:
        status = _lstat(root, path)
        if status is None:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        merging.append(root)
        if is_opaque(root, path):
            break
    return tuple(merging)


def _lstat(root: int, path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return None
