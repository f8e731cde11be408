"""A base image from a distribution's package archive, for machines without a registry.

mmdebstrap resolves and unpacks packages with the host's own apt: its sources, keys and proxies.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

from sampan.content import ContentStore
from sampan.errors import InvalidParameter, Unavailable, Unsupported
from sampan.image.create import append, store_layer
from sampan.image.image import Image
from sampan.layer.check import check
from sampan.model.platform import Platform
from sampan.model.reference import Reference
from sampan.wire.container import ImageConfig

#: Debian's names of Go's architectures, where they differ.
_ARCHITECTURES = {"386": "i386", "ppc64le": "ppc64el", "mips64le": "mips64el", "arm": "armhf"}
_VARIANTS = ("essential", "apt", "minbase", "buildd", "important", "standard")
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEPT_LINES = 20


def bootstrap(
    name: str,
    content: ContentStore,
    *,
    packages: Sequence[str] = (),
    variant: str = "minbase",
    platform: Platform | None = None,
    report: Callable[[str], None] | None = None,
    now: datetime,
) -> Image:
    """Build ``debian:SUITE`` or ``ubuntu:SUITE`` with mmdebstrap and the host's apt sources.

    ``report`` gets mmdebstrap's progress lines. Blocking (a minute or so). Raises
    InvalidParameter for a name that is neither, Unsupported when mmdebstrap is not installed,
    Unavailable when it fails; keeps nothing then.
    """
    platform = platform or Platform.host()
    command = plan(name, packages=packages, variant=variant, platform=platform)
    program = shutil.which(command[0])
    if program is None:
        raise Unsupported("image bootstrap needs the program mmdebstrap, which is not installed")
    with tempfile.TemporaryDirectory(prefix="sampan-bootstrap-") as directory:
        archive = Path(directory, "root.tar")
        _run([program, *command[1:-1], str(archive)], report or (lambda line: None))
        with archive.open("rb", buffering=0) as stream:
            check(stream)
            stream.seek(0)
            layer = store_layer(iter(lambda: stream.read(1 << 20), b""), content)
    return append(
        None,
        content,
        layer=layer,
        config=ImageConfig(env=[_PATH], cmd=["bash"]),
        created_by=" ".join(command[:-1]),
        message="sampan image bootstrap",
        platform=platform,
        now=now,
    )


def plan(
    name: str, *, packages: Sequence[str], variant: str, platform: Platform
) -> tuple[str, ...]:
    """The mmdebstrap command line for an image; its last word is the output. Pure."""
    reference = Reference.parse(name)
    distribution = reference.path.rpartition("/")[2]
    if distribution not in ("debian", "ubuntu") or not reference.tag or reference.digest:
        raise InvalidParameter(f"cannot bootstrap {name!r}: expected debian:SUITE or ubuntu:SUITE")
    if variant not in _VARIANTS:
        raise InvalidParameter(
            f"unknown variant {variant!r}: expected one of {', '.join(_VARIANTS)}"
        )
    for package in packages:
        if not package or package.startswith("-") or not package.isascii() or "," in package:
            raise InvalidParameter(f"invalid package name {package!r}")
    suite = reference.tag.removesuffix("-slim")
    architecture = _ARCHITECTURES.get(platform.architecture, platform.architecture)
    options = [
        f"--variant={variant}",
        f"--architectures={architecture}",
        "--format=tar",
        # A container's documentation is on its host; archives and lists would only grow stale.
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--aptopt=Apt::Install-Recommends "false"',
    ]
    if packages:
        options.append(f"--include={','.join(packages)}")
    return ("mmdebstrap", *options, suite, "-")


def _run(command: Sequence[str], report: Callable[[str], None]) -> None:
    """Run mmdebstrap; Unavailable with its last words when it fails."""
    last: deque[str] = deque(maxlen=_KEPT_LINES)

    def read(stream: IO[bytes]) -> None:
        for raw in stream:
            line = raw.decode("utf-8", "replace").rstrip()
            last.append(line)
            report(line)

    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as process:
        if process.stderr is None:
            raise Unavailable("mmdebstrap has no standard error")
        reader = threading.Thread(target=read, args=(process.stderr,), name="sampan-bootstrap")
        reader.start()
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
        finally:
            reader.join()
    if code != 0:
        errors = [line for line in last if line.startswith("E:")] or list(last)[-1:]
        raise Unavailable(f"mmdebstrap failed with status {code}: {' '.join(errors)[:500]}")
