"""Project quotas: a limit for a directory and what is made below it (quotactl(2), xfs_quota(8)).

ext4 has them with the feature ``project`` and the mount option ``prjquota``, XFS with ``pquota``.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct

from sampan.kernel.libc import check, number, syscall

_FS_IOC_FSGETXATTR = 0x801C581F
_FS_IOC_FSSETXATTR = 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=IIIII8x")
_PRJQUOTA = 2
_Q_SETQUOTA = 0x800008
_QIF_BLIMITS = 1
#: struct if_dqblk: hard and soft limit of blocks, six more numbers, which of them count
_DQBLK = struct.Struct("=8QI4x")
#: the unit of block limits, whatever the file system's blocks are
_BLOCK = 1024


def project(fd: int) -> int:
    """The project id of a directory; raises :class:`OSError` where there are none."""
    attributes = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, attributes)
    return int(_FSXATTR.unpack(attributes)[3])


def set_project(fd: int, project_id: int) -> None:
    """Put a directory, and what is made in it from now on, into a project."""
    attributes = bytearray(_FSXATTR.size)
    fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, attributes)
    flags, extent, extents, _, cow = _FSXATTR.unpack(attributes)
    flags |= _FS_XFLAG_PROJINHERIT
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags, extent, extents, project_id, cow))


def set_limit(fd: int, project_id: int, size: int) -> None:
    """Let a project take at most ``size`` bytes of the file system of ``fd``; 0 for no limit.

    Raises :class:`OSError`: ESRCH where quotas are not switched on, ENOSYS where the kernel has
    none (quotactl_fd(2) is of Linux 5.14).
    """
    blocks = -(-size // _BLOCK)
    limits = ctypes.create_string_buffer(
        _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS), _DQBLK.size
    )
    command = _Q_SETQUOTA << 8 | _PRJQUOTA
    check(syscall(number("quotactl_fd"), fd, command, project_id, ctypes.addressof(limits)))
