"""Layers: tar streams to changes of a file system and back."""

from sampan.layer.apply import apply
from sampan.layer.compression import Compression, compress, detect
from sampan.layer.copy import archive_get, archive_put, archive_stat
from sampan.layer.diff import changes_overlay, changes_trees, diff_overlay, diff_trees
from sampan.layer.model import (
    DEFAULT_LIMITS,
    Applied,
    Change,
    ChangeKind,
    Destination,
    Limits,
    PathStat,
    Readable,
    Whiteouts,
)

__all__ = [
    "DEFAULT_LIMITS",
    "Applied",
    "Change",
    "ChangeKind",
    "Compression",
    "Destination",
    "Limits",
    "PathStat",
    "Readable",
    "Whiteouts",
    "apply",
    "archive_get",
    "archive_put",
    "archive_stat",
    "changes_overlay",
    "changes_trees",
    "compress",
    "detect",
    "diff_overlay",
    "diff_trees",
]
