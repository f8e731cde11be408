"""Apply a layer in a process of its own, so that layers unpack beside each other.

Inflating, hashing and system calls release the interpreter's lock, but what is done for each
member of an archive does not: threads of one process take turns at it.

The process is this module run as a program: its argument says what to do (JSON), its standard
input is the layer, its last act is one line of JSON. It ends with whoever started it: the kernel
kills it (PR_SET_PDEATHSIG), and a layer that breaks off is refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from sampan import errors
from sampan.errors import SampanError, Unavailable, storage_error
from sampan.kernel.prctl import set_parent_death_signal
from sampan.layer.model import Applied, Destination, Limits, Readable, Whiteouts
from sampan.model.digest import Digest

_PIECE = 1 << 20
#: What a worker may report by name; anything else is a plain SampanError.
_KINDS: dict[str, type[SampanError]] = {
    kind.__name__: kind
    for kind in (
        errors.ArchiveRefused,
        errors.DigestMismatch,
        errors.NoSpace,
        errors.InvalidParameter,
        errors.SampanError,
    )
}


def apply_apart(
    stream: Readable,
    destination: Destination,
    *,
    diff_id: Digest,
    limits: Limits,
    wanted: Callable[[], bool],
) -> Applied:
    """As :func:`sampan.layer.apply.apply`, in a process of its own.

    ``wanted`` is asked between pieces: once it says no, the process is ended and Unavailable
    raised. Raises ChildProcessError when no process could be started: nothing was read then. The
    calling thread must live as long as the call (the process dies with it).
    """
    request = {
        "parent": os.getpid(),
        "root": os.fspath(destination.root),
        "lowers": [os.fspath(lower) for lower in destination.lowers],
        "whiteouts": destination.whiteouts.value,
        "diff_id": str(diff_id),
        "limits": asdict(limits),
    }
    command = [sys.executable, "-I", "-m", __name__, json.dumps(request)]
    # Without preexec_fn and with close_fds off (our descriptors are close-on-exec) subprocess
    # starts it by vfork(2): the engine, large and threaded, is not copied.
    try:
        started = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            close_fds=False,
        )
    except OSError as error:
        raise ChildProcessError(error.errno, error.strerror) from error
    with started as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin as feed, contextlib.suppress(BrokenPipeError):
                while wanted() and (piece := stream.read(_PIECE)):
                    _write(feed.fileno(), piece)
            if not wanted():
                raise Unavailable("unpacking was given up")
            answer = process.stdout.read()
        except BaseException:
            process.kill()
            raise
    return _result(answer, process.returncode)


def _write(fd: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _result(answer: bytes, code: int) -> Applied:
    if not answer:
        raise Unavailable(f"the process that unpacked a layer ended with {code}")
    said = json.loads(answer)
    if "error" in said:
        raise _KINDS.get(said["error"], SampanError)(said["message"])
    return Applied(
        digest=None,
        compressed_size=said["compressed_size"],
        diff_id=Digest.parse(said["diff_id"]),
        size=said["size"],
        entries=said["entries"],
        implicit=tuple(map(os.fsencode, said["implicit"])),
    )


def _work(request: str) -> dict[str, object]:
    # Here, not above: the engine's side of this module needs none of it.
    from sampan.layer.apply import apply

    asked = json.loads(request)
    set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != asked["parent"]:  # it ended before we said that we want to know
        raise Unavailable("the engine has ended")
    destination = Destination(
        root=Path(asked["root"]),
        whiteouts=Whiteouts(asked["whiteouts"]),
        lowers=tuple(map(Path, asked["lowers"])),
    )
    with open(0, "rb", buffering=0, closefd=False) as stream:
        applied = apply(
            stream,
            destination,
            diff_id=Digest.parse(asked["diff_id"]),
            limits=Limits(**asked["limits"]),
        )
    return {
        "compressed_size": applied.compressed_size,
        "diff_id": str(applied.diff_id),
        "size": applied.size,
        "entries": applied.entries,
        "implicit": [os.fsdecode(path) for path in applied.implicit],
    }


def main() -> int:
    """Do what the argument asks; 0 also when the layer was refused, which the answer says."""
    answer: dict[str, object]
    try:
        answer = _work(sys.argv[1])
    except SampanError as error:
        answer = {"error": type(error).__name__, "message": error.message}
    except OSError as error:
        failed = storage_error(error, "unpacking a layer")
        answer = {"error": type(failed).__name__, "message": failed.message}
    sys.stdout.write(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
