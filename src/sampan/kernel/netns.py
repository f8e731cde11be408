"""network_namespaces(7): doing something inside another one (setns(2)).

setns moves only the calling thread, and these functions move it back before they return, so
namespace work never leaks: keep what runs inside short, blocking-free, and start no thread in
it. Sockets opened inside keep their namespace and may be used from any thread afterwards; so do
descriptors of /proc/sys/net files.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import threading
from collections.abc import Iterator, Mapping

from sampan.kernel.libc import check, typed

CLONE_NEWNET = 0x40000000

_setns = typed("setns", ctypes.c_int, ctypes.c_int, restype=ctypes.c_int)
_unshare = typed("unshare", ctypes.c_int, restype=ctypes.c_int)


def setns(fd: int, nstype: int) -> None:
    """setns(2): move the calling thread into the namespace ``fd`` refers to."""
    check(_setns(fd, nstype), f"setns({fd})")


def current() -> int:
    """A descriptor of the calling thread's network namespace; the caller closes it."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def open_path(path: str | os.PathLike[str]) -> int:
    """A descriptor of the namespace at ``path`` (``/proc/PID/ns/net``, ``/run/netns/NAME``)."""
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@contextlib.contextmanager
def entered(netns_fd: int) -> Iterator[None]:
    """Run the body with the calling thread inside ``netns_fd``.

    Raises :class:`OSError` when that cannot be entered. Should the way back ever fail, the
    process ends: a thread left behind in a container's namespace would do the host's work there.
    """
    home = current()
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            try:
                setns(home, CLONE_NEWNET)
            except OSError:
                os.abort()
    finally:
        os.close(home)


def open_socket(netns_fd: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """A socket living in ``netns_fd``; kind gets SOCK_CLOEXEC."""
    with entered(netns_fd):
        return socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)


def sysctl_path(name: str) -> str:
    """The /proc/sys file of a sysctl written with dots; a ``/`` in ``name`` stands for a dot
    inside one component (an interface such as ``eth0.5``), as sysctl(8) has it.

    Raises :class:`ValueError` for names that would leave /proc/sys.
    """
    parts = [part.replace("/", ".") for part in name.split(".")]
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"invalid sysctl name: {name!r}")
    return "/proc/sys/" + "/".join(parts)


def write_sysctls(values: Mapping[str, str]) -> None:
    """Write sysctls of the calling thread's namespace; raises :class:`OSError` naming the file."""
    for name, value in values.items():
        path = sysctl_path(name)
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from error
        finally:
            os.close(fd)


def read_sysctl(name: str) -> str:
    """The value of a sysctl of the calling thread's namespace, stripped."""
    with open(sysctl_path(name), encoding="ascii") as file:
        return file.read().strip()


def create() -> int:
    """A descriptor of a new, empty network namespace, which lives as long as the descriptor (or
    what else refers to it) does. Made in a thread of its own, so that the caller stays put."""
    made: list[int | OSError] = []

    def unshare() -> None:
        try:
            check(_unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            made.append(current())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=unshare, name="sampan-netns")
    thread.start()
    thread.join()
    result = made[0]
    if isinstance(result, OSError):
        raise result
    return result
