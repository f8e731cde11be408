"""Mounts as values: the lingua franca between snapshots, volumes, images and the runtime.

Whoever makes one never performs it; :mod:`sampan.runtime` (inside a container) and
:mod:`sampan.kernel` (for the engine's own reading) do.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """One mount, with the meaning and option words of mount(8) and the OCI runtime spec.

    ``type`` is a file system type, or ``bind``; ``source`` a path or device; ``destination`` is
    relative to the root being built ("" for the root itself); ``options`` are single words or
    ``key=value``. An overlay's layers are options ``lowerdir=A:B`` (topmost first), ``upperdir=``,
    ``workdir=``; paths hold no ``:`` or ``,`` because the engine chooses them.
    """

    type: str
    source: str
    destination: str = ""
    options: tuple[str, ...] = ()
