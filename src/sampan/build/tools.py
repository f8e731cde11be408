"""What a solver works with, and what a stage has come to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from sampan.build.cache import BuildCache, Layer, Record
from sampan.build.copying import ContentHashes
from sampan.build.executor import Executor
from sampan.build.imports import Imported
from sampan.build.mounts import CacheDirectories
from sampan.build.sourcepolicy import SourcePolicy
from sampan.build.workspace import Workspace
from sampan.dockerfile.config import Config
from sampan.errors import SampanError
from sampan.image.document import History
from sampan.model.digest import Digest
from sampan.model.platform import Platform

P = ParamSpec("P")
T = TypeVar("T")


class StepFailed(SampanError):
    """A RUN step ended with an exit code other than 0; the last lines it printed are told.

    ``hint`` is what may be missing, told with it.
    """

    http_status = 500

    def __init__(self, command: str, code: int, tail: str, line: int, hint: str = "") -> None:
        quoted = json.dumps(command, ensure_ascii=False)
        message = f"process {quoted} did not complete successfully: exit code: {code}"
        super().__init__(f"{message}: {hint}" if hint else message)
        self.code = code
        self.command = command
        self.tail = tail
        self.line = line


class InThread(Protocol):
    """Runs blocking work in the engine's limited worker threads."""

    async def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What a solver works with. ``scratch`` is a directory on a tmpfs, for secrets.

    ``whole`` tells that the steps of every stage are wanted (a cache of them all is exported), so
    that no stage is left out for what came of it before.
    """

    workspace: Workspace
    cache: BuildCache
    executor: Executor
    hashes: ContentHashes
    directories: CacheDirectories
    scratch: Path
    mount_directory: Path
    in_thread: InThread
    imports: tuple[Imported, ...] = ()
    whole: bool = False
    policy: SourcePolicy = field(default_factory=SourcePolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """A stage so far: its root, its configuration, and how they came about.

    ``created`` is when its last layer was made (RFC 3339, "" before any), so that an image all of
    whose steps were cached is the same image. The first ``inherited`` layers are the base image's;
    ``records`` are the steps done.
    """

    key: str
    platform: Platform
    layers: tuple[Layer, ...] = ()
    config: Config
    history: tuple[History, ...] = ()
    arguments: Mapping[str, str]
    author: str = ""
    created: str = ""
    inherited: int = 0
    records: tuple[Record, ...] = ()

    @property
    def chain(self) -> Digest | None:
        """The chain id of the root; None while it is empty."""
        return self.layers[-1].chain_id if self.layers else None
