"""Size limits of directories: project quotas, where the file system has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.errors import SampanError, Unsupported
from sampan.kernel import projectquota

#: Project ids are of a file system: whoever limits directories has a range of its own above
#: those people number their own by, which begin at 1.
VOLUMES = 1 << 20
CONTAINERS = 1 << 24


def limit(
    directories: Sequence[Path], size: int, others: Iterable[Path], *, first: int, asked: str
) -> None:
    """Limit what ``directories`` and all that is made in them take together to ``size`` bytes.

    ``others`` are directories that may have a limit of their own from the same range, which
    begins at ``first`` (:data:`VOLUMES`, :data:`CONTAINERS`). Raises :class:`Unsupported`, which
    names what was ``asked`` for and what is missing.
    """
    with ExitStack() as opened:
        try:
            found = [_open(directory) for directory in directories]
            for fd in found:
                opened.callback(os.close, fd)
            taken = {_project(other) for other in others}
            chosen = projectquota.project(found[0])
            if not first <= chosen < first << 4 or chosen in taken:
                chosen = max([first - 1, *(one for one in taken if first <= one < first << 4)]) + 1
            projectquota.set_limit(found[0], chosen, size)
            for fd in found:
                projectquota.set_project(fd, chosen)
        except OSError as error:
            raise _explained(error, directories[0], asked) from error


def forget(directory: Path) -> None:
    """Take the limit of a directory that is about to be deleted away."""
    fd = _open(directory)
    try:
        if (held := projectquota.project(fd)) >= VOLUMES:
            projectquota.set_limit(fd, held, 0)
    finally:
        os.close(fd)


def _open(directory: Path) -> int:
    return os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _project(directory: Path) -> int:
    try:
        fd = _open(directory)
    except OSError:  # removed meanwhile
        return 0
    try:
        return projectquota.project(fd)
    except OSError:  # something is mounted on it
        return 0
    finally:
        os.close(fd)


def _explained(error: OSError, directory: Path, asked: str) -> SampanError:
    if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
        why = f"the file system of {directory.parent.parent} has no project ids"
        return Unsupported(f"{asked}: {why} (ext4 with the feature project and XFS have)")
    if error.errno in (errno.ESRCH, errno.EINVAL):
        return Unsupported(f"{asked}: project quotas are not switched on (mount with prjquota)")
    if error.errno == errno.ENOSYS:
        return Unsupported(f"{asked}: this kernel has none")
    return SampanError(f"cannot limit {directory}: {error.strerror}")
