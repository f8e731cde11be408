"""Starting the launcher: a sealed copy of the interpreter, detached from whoever starts it."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import NotFound, Unavailable
from sampan.runtime import records, version

SOCKET = "launcher.sock"
_LOG = "launcher.log"
_START_SECONDS = 20.0
_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_F_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE

#: The package is entered without running sampan/__init__.py, which imports the whole engine. So is
#: dataclasses without ``inspect``, a sixth of the memory, for docstrings that all our classes have.
_BOOT = """
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
package = type(sys)("sampan")
package.__path__ = [root + "/sampan"]
sys.modules["sampan"] = package
if sys.version_info < (3, 13):
    sys.modules["inspect"] = type(sys)("inspect")
    import dataclasses
    del sys.modules["inspect"]
from sampan.runtime import launcher
launcher.main()
"""


@dataclass(frozen=True, slots=True)
class Started:
    """A launcher of ours: a child to be reaped, and the pipe whose closing ends it."""

    child: subprocess.Popen[bytes]
    owner: int

    def end(self) -> None:
        """End it; containers go on."""
        os.close(self.owner)
        self.child.wait()

    def kill(self) -> None:
        """End one that does not answer."""
        self.child.kill()
        self.end()


def start(exec_root: Path, python: str | None = None) -> Started:
    """Start a launcher listening below ``exec_root``. It ends when we do.

    Raises :class:`Unavailable`.
    """
    interpreter = python or sys.executable
    with contextlib.ExitStack() as stack:
        try:
            listener = stack.enter_context(_listen(exec_root))
            image = _sealed_copy(os.path.realpath(interpreter))
            stack.callback(os.close, image)
            ready, told = os.pipe()
            stack.callback(os.close, ready)
            theirs, owner = os.pipe()
            stack.callback(os.close, theirs)
            log = stack.enter_context(open(exec_root / _LOG, "ab"))
            child = subprocess.Popen(
                [
                    interpreter,
                    *("-I", "-S", "-c", _BOOT, version.source_root()),
                    *(str(listener.fileno()), str(told), str(theirs)),
                ],
                executable=f"/proc/self/fd/{image}",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                pass_fds=(image, listener.fileno(), told, theirs),
                start_new_session=True,
                cwd="/",
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            )
            os.close(told)
        except OSError as error:
            raise Unavailable(f"the launcher cannot be started: {error}") from error
        try:
            _await_ready(ready, child, exec_root)
        except BaseException:
            os.close(owner)
            raise
    return Started(child, owner)


def _await_ready(ready: int, child: subprocess.Popen[bytes], exec_root: Path) -> None:
    poller = select.poll()
    poller.register(ready, select.POLLIN)
    if poller.poll(_START_SECONDS * 1000) and os.read(ready, 4096):
        return
    child.kill()
    child.wait()
    raise Unavailable(f"the launcher did not start; see {exec_root / _LOG}")


def _listen(exec_root: Path) -> socket.socket:
    path = exec_root / SOCKET
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with directory(exec_root) as fd:
            listener.bind(f"/proc/self/fd/{fd}/{SOCKET}")
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def directory(path: Path) -> Iterator[int]:
    """A descriptor of a directory: below /proc/self/fd its sockets have short enough names."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def connect(path: Path, name: str) -> socket.socket:
    """Connect to a Unix socket in directory ``path``. Raises :class:`OSError`."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with directory(path) as fd:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
    except OSError:
        sock.close()
        raise
    return sock


def connect_monitor(directory: Path) -> socket.socket:
    """A connection to the monitor serving ``directory``. Raises :class:`NotFound`."""
    try:
        return connect(directory, records.SOCKET)
    except OSError as error:
        raise NotFound(f"no monitor serves {directory}: {error.strerror}") from error


def _sealed_copy(path: str) -> int:
    """A memfd with the bytes of ``path`` that nobody can change any more."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create("sampan-launcher", flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        fd = os.memfd_create("sampan-launcher", flags)  # before Linux 6.3
    try:
        with open(path, "rb") as source, open(fd, "wb", closefd=False) as target:
            shutil.copyfileobj(source, target, 1 << 20)
        os.fchmod(fd, 0o500)
        fcntl.fcntl(fd, _F_ADD_SEALS, _F_SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd
