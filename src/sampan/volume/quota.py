"""Size limits of volumes that are directories: project quotas, where the file system has them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from sampan.errors import SampanError, Unsupported
from sampan.kernel import projectquota

#: ours begin here; people number theirs from 1
_FIRST = 1 << 20
_MISSING = "quota size requested but no quota support: "


def limit(directory: Path, size: int, others: Iterable[Path]) -> None:
    """Limit what ``directory`` and all that is made in it take to ``size`` bytes.

    ``others`` are directories that may have a limit of their own on that file system. Raises
    :class:`Unsupported` naming what is missing.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        taken = {_project(other) for other in others}
        chosen = projectquota.project(fd)
        if chosen < _FIRST or chosen in taken:
            chosen = max([_FIRST - 1, *taken]) + 1
        projectquota.set_limit(fd, chosen, size)
        projectquota.set_project(fd, chosen)
    except OSError as error:
        raise _explained(error, directory) from error
    finally:
        os.close(fd)


def forget(directory: Path) -> None:
    """Take the limit of a directory that is about to be deleted away."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if (held := projectquota.project(fd)) >= _FIRST:
            projectquota.set_limit(fd, held, 0)
    finally:
        os.close(fd)


def _project(directory: Path) -> int:
    try:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # removed meanwhile
        return 0
    try:
        return projectquota.project(fd)
    except OSError:  # something is mounted on it
        return 0
    finally:
        os.close(fd)


def _explained(error: OSError, directory: Path) -> SampanError:
    if error.errno in (errno.EOPNOTSUPP, errno.ENOTTY):
        why = f"the file system of {directory.parent.parent} has no project ids"
        return Unsupported(f"{_MISSING}{why} (ext4 with the feature project and XFS have)")
    if error.errno in (errno.ESRCH, errno.EINVAL):
        return Unsupported(f"{_MISSING}project quotas are not switched on (mount with prjquota)")
    if error.errno == errno.ENOSYS:
        return Unsupported(f"{_MISSING}this kernel has none")
    return SampanError(f"cannot limit {directory}: {error.strerror}")
