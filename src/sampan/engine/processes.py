"""``docker top``: the container's processes as the host's ps(1) prints them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence

from sampan.errors import InvalidParameter, SampanError, Unsupported
from sampan.wire.container import ContainerTopResponse

_FORBIDDEN = re.compile(r"\s*[a-zA-Z,]*pid[a-zA-Z,]*\s*=")


def check_arguments(text: str) -> list[str]:
    """The words of ``ps_args``; a renamed PID column could not be found again and is refused."""
    words = text.split() or ["-ef"]
    for word in words:
        if _FORBIDDEN.match(word):
            raise InvalidParameter(f'specifying "{word}" is not allowed')
    return words


def run_ps(arguments: Sequence[str], pids: Collection[int]) -> str:
    """Output of ``ps arguments`` with only the lines of ``pids``. Blocks.

    subprocess starts ps by posix_spawn(3) (no ``preexec_fn``, ``close_fds`` off: our descriptors
    are close-on-exec), so the engine is not forked.
    """
    program = shutil.which("ps")
    if program is None:
        raise Unsupported("top needs the ps program (package procps) on the host")
    listed = ",".join(str(pid) for pid in pids)
    for words in ([*arguments, f"-q{listed}"], list(arguments)):
        done = subprocess.run(
            [program, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            close_fds=False,
            timeout=30,
            env={"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            check=False,
        )
        if done.returncode == 0:
            return done.stdout.decode(errors="replace")
    message = done.stderr.decode(errors="replace").strip().partition("\n")[0]
    raise SampanError(f"ps: {message}")


def parse(output: str, pids: Collection[int]) -> ContainerTopResponse:
    """The table in ``output``, reduced to ``pids``; raises SampanError without a PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise SampanError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    processes = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdecimal() and int(fields[column]) in pids:
            processes.append(fields)
    return ContainerTopResponse(titles=titles, processes=processes)
