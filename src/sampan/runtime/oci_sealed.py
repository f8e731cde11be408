"""Running from a sealed copy of the interpreter, before a container's process is made.

A container whose program is ``#!/proc/self/exe``, or that opens /proc/<pid>/exe of a process that
enters it, gets hold of the binary that entered (CVE-2019-5736). Here that is a file in memory which
nobody can write any more. This module imports only ``os`` and ``sys``: it runs twice.
"""

from __future__ import annotations

import os
import sys

_NAME = "sampan-runtime"
_MFD_EXEC = 0x10
_F_ADD_SEALS = 1033
_F_SEALS = 0x1 | 0x2 | 0x4 | 0x8  # SEAL, SHRINK, GROW, WRITE

#: The package is entered without running sampan/__init__.py, which is for Python programs.
#: ``inspect`` (dataclasses imports it for docstrings that all our classes have) is left out.
_BOOT = f"""
import sys
root = sys.argv.pop(1)
sys.path.insert(0, root)
sys.argv[0] = "{_NAME}"
package = type(sys)("sampan")
package.__path__ = [root + "/sampan"]
sys.modules["sampan"] = package
if sys.version_info < (3, 13) and "inspect" not in sys.modules:
    sys.modules["inspect"] = type(sys)("inspect")
    import dataclasses
    del sys.modules["inspect"]
from sampan.runtime.oci_cli import main
sys.exit(main())
"""


def reexecute(arguments: list[str]) -> None:
    """Become the sealed copy, with the same command line; returns when we are it already.

    Raises OSError: without the copy no container is entered.
    """
    if os.readlink("/proc/self/exe").startswith(f"/memfd:{_NAME}"):
        return
    image = _sealed_copy(os.path.realpath(sys.executable))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    os.execve(image, [sys.executable, "-I", "-S", "-c", _BOOT, root, *arguments], dict(os.environ))


def _sealed_copy(path: str) -> int:
    import fcntl

    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        image = os.memfd_create(_NAME, flags | _MFD_EXEC)
    except OSError:
        image = os.memfd_create(_NAME, flags)  # before Linux 6.3
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    size = os.fstat(source).st_size
    done = 0
    while done < size:
        sent = os.sendfile(image, source, None, size - done)
        if not sent:
            raise OSError(5, "the interpreter became shorter while it was copied", path)
        done += sent
    os.close(source)
    os.fchmod(image, 0o500)
    fcntl.fcntl(image, _F_ADD_SEALS, _F_SEALS)
    return image
