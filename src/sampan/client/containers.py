"""Containers and execs of a remote engine, under the names of the embedded one."""

from __future__ import annotations

import builtins
import socket
from collections.abc import Iterable, Iterator, Sequence

from sampan.client.encoding import filters as encoded
from sampan.client.encoding import path_stat, seconds
from sampan.client.http import Stream
from sampan.client.transport import Transport
from sampan.wire.container import (
    ContainerCreateRequest,
    ContainerCreateResponse,
    ContainerInspectResponse,
    ContainersPruneReport,
    ContainerSummary,
    ContainerTopResponse,
    ContainerUpdateRequest,
    ContainerUpdateResponse,
    ContainerWaitResponse,
    FilesystemChange,
    IDResponse,
)
from sampan.wire.denial import SystemCallDenial
from sampan.wire.exec import ExecCreateRequest, ExecInspect, ExecStartRequest
from sampan.wire.options import AttachOptions, CommitOptions, Filters, LogsOptions, PathStat
from sampan.wire.stats import ContainerStatsResponse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.api import Query


class Connection:
    """A client's end of a container's standard streams."""

    def __init__(self, stream: Stream, *, tty: bool) -> None:
        self._stream = stream
        #: Whether the stream is raw (a terminal) or framed.
        self.tty = tty

    def open(self) -> socket.socket:
        """The blocking socket; ``shutdown(SHUT_WR)`` is the end of input."""
        return self._stream.socket

    def close(self) -> None:
        """Close it; idempotent."""
        self._stream.close()


class Containers:
    """Containers of a remote engine. All methods raise :class:`sampan.errors.SampanError`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, body: ContainerCreateRequest, name: str | None = None, platform: str | None = None
    ) -> ContainerCreateResponse:
        """Create a container from a local image; it does not pull."""
        query = {"name": name, "platform": platform}
        return self._transport.call(
            ContainerCreateResponse, "POST", "/containers/create", query, body
        )

    def list(
        self,
        *,
        all: bool = False,
        limit: int | None = None,
        size: bool = False,
        filters: Filters | None = None,
    ) -> builtins.list[ContainerSummary]:
        """Running containers (or ``all``), newest first; unknown filters raise InvalidParameter."""
        query: Query = {"all": all, "limit": limit, "size": size, "filters": encoded(filters)}
        return self._transport.call(
            builtins.list[ContainerSummary], "GET", "/containers/json", query
        )

    def inspect(self, ref: str, *, size: bool = False) -> ContainerInspectResponse:
        """Everything known about a container; ``size`` adds SizeRw and SizeRootFs (bytes)."""
        path = f"/containers/{ref}/json"
        return self._transport.call(ContainerInspectResponse, "GET", path, {"size": size})

    def init(self, ref: str) -> None:
        """Set up everything of a start but let the program wait until :meth:`start`."""
        self._transport.do("POST", f"/sampan/containers/{ref}/init")

    def start(self, ref: str) -> None:
        """Start; returns once the program's execve succeeded. Does nothing to a running one."""
        self._act(ref, "start")

    def stop(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        """Send the stop signal, then SIGKILL after ``timeout`` seconds (-1 waits for ever)."""
        self._act(ref, "stop", _stopping(signal, timeout))

    def restart(self, ref: str, signal: str | None = None, timeout: int | None = None) -> None:
        """Stop (if running) and start again."""
        self._act(ref, "restart", _stopping(signal, timeout))

    def kill(self, ref: str, signal: str = "KILL") -> None:
        """Send a signal by name or number; Conflict when the container is not running."""
        self._act(ref, "kill", {"signal": signal})

    def pause(self, ref: str) -> None:
        """Freeze all processes; Conflict when not running or already paused."""
        self._act(ref, "pause")

    def unpause(self, ref: str) -> None:
        """Thaw all processes; Conflict when not paused."""
        self._act(ref, "unpause")

    def rename(self, ref: str, name: str) -> None:
        """Give another name; Conflict when taken, InvalidParameter when malformed."""
        self._act(ref, "rename", {"name": name})

    def _act(self, ref: str, action: str, query: Query | None = None) -> None:
        self._transport.do("POST", f"/containers/{ref}/{action}", query)

    def update(self, ref: str, body: ContainerUpdateRequest) -> ContainerUpdateResponse:
        """Change resources and restart policy, live when running."""
        path = f"/containers/{ref}/update"
        return self._transport.call(ContainerUpdateResponse, "POST", path, None, body)

    def wait(self, ref: str, condition: str = "not-running") -> ContainerWaitResponse:
        """Wait for a container to end (``not-running``, ``next-exit``, ``removed``)."""
        path = f"/containers/{ref}/wait"
        return self._transport.call(ContainerWaitResponse, "POST", path, {"condition": condition})

    def begin_wait(
        self, ref: str, condition: str = "not-running"
    ) -> Iterator[ContainerWaitResponse]:
        """As :meth:`wait`, in two steps: the daemon knows of it when this returns; the iterator's
        only item is the answer.
        """
        path = f"/containers/{ref}/wait"
        query = {"condition": condition}
        return self._transport.objects(ContainerWaitResponse, "POST", path, query)

    def remove(
        self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False
    ) -> None:
        """Remove a container (``force`` kills it first), with its anonymous ``volumes``."""
        query = {"force": force, "v": volumes, "link": link}
        self._transport.do("DELETE", f"/containers/{ref}", query)

    def prune(self, filters: Filters | None = None) -> ContainersPruneReport:
        """Remove all stopped containers that match."""
        query: Query = {"filters": encoded(filters)}
        return self._transport.call(ContainersPruneReport, "POST", "/containers/prune", query)

    def denials(self, ref: str) -> Sequence[SystemCallDenial]:
        """System calls of its last run that its seccomp profile acted on."""
        path = f"/sampan/containers/{ref}/denials"
        return self._transport.call(builtins.list[SystemCallDenial], "GET", path)

    def top(self, ref: str, ps_args: str = "-ef") -> ContainerTopResponse:
        """The container's processes as the host's ps(1) prints them with ``ps_args``."""
        path = f"/containers/{ref}/top"
        return self._transport.call(ContainerTopResponse, "GET", path, {"ps_args": ps_args})

    def stats(
        self, ref: str, *, stream: bool = True, one_shot: bool = False
    ) -> Iterator[ContainerStatsResponse]:
        """Resource usage: one object a second, or a single one."""
        query: Query = {"stream": "1" if stream else "0", "one-shot": one_shot}
        path = f"/containers/{ref}/stats"
        return self._transport.objects(ContainerStatsResponse, "GET", path, query)

    def changes(self, ref: str) -> builtins.list[FilesystemChange]:
        """What differs from the image (0 modified, 1 added, 2 deleted)."""
        path = f"/containers/{ref}/changes"
        return self._transport.call(builtins.list[FilesystemChange], "GET", path)

    def export(self, ref: str) -> Iterator[bytes]:
        """The root file system as a tar stream."""
        return self._transport.pieces("GET", f"/containers/{ref}/export")

    def logs(self, ref: str, options: LogsOptions) -> Iterator[bytes]:
        """The log, framed as attach frames it; raw when the container has a terminal."""
        query: Query = {
            "stdout": options.stdout,
            "stderr": options.stderr,
            "since": seconds(options.since),
            "until": seconds(options.until),
            "timestamps": options.timestamps,
            "tail": "all" if options.tail is None else str(options.tail),
            "follow": options.follow,
            "details": options.details,
        }
        return self._transport.pieces("GET", f"/containers/{ref}/logs", query)

    def attach(self, ref: str, options: AttachOptions) -> Connection:
        """Attach to a container, running or not started yet."""
        query: Query = {
            "stdin": options.stdin,
            "stdout": options.stdout,
            "stderr": options.stderr,
            "logs": options.logs,
            "stream": options.stream,
            "detachKeys": options.detach_keys,
        }
        config = self.inspect(ref).config
        stream = self._transport.hijack(f"/containers/{ref}/attach", query)
        return Connection(stream, tty=bool(config and config.tty))

    def resize(self, ref: str, height: int, width: int) -> None:
        """Set the terminal's size in character cells."""
        self._act(ref, "resize", {"h": height, "w": width})

    def archive_stat(self, ref: str, path: str) -> PathStat:
        """What ``path`` in the container is; NotFound when missing."""
        query = {"path": path}
        with self._transport.opened("HEAD", f"/containers/{ref}/archive", query) as response:
            return path_stat(response.headers)

    def archive_get(self, ref: str, path: str) -> tuple[PathStat, Iterator[bytes]]:
        """A tar of ``path``, its entries named from the last component on."""
        stat = self.archive_stat(ref, path)
        query = {"path": path}
        return stat, self._transport.pieces("GET", f"/containers/{ref}/archive", query)

    def archive_put(
        self,
        ref: str,
        path: str,
        body: Iterable[bytes],
        *,
        no_overwrite_dir_non_dir: bool = False,
        copy_uid_gid: bool = False,
    ) -> None:
        """Extract a (compressed) tar into the directory ``path`` of the container."""
        query: Query = {
            "path": path,
            "noOverwriteDirNonDir": no_overwrite_dir_non_dir,
            "copyUIDGID": copy_uid_gid,
        }
        headers = {"Content-Type": "application/x-tar"}
        where = f"/containers/{ref}/archive"
        with self._transport.opened("PUT", where, query, body, headers) as response:
            response.read()

    def commit(self, ref: str, options: CommitOptions) -> IDResponse:
        """Make an image of the container's file system and configuration."""
        query: Query = {
            "container": ref,
            "repo": options.repo,
            "tag": options.tag,
            "comment": options.comment,
            "author": options.author,
            "pause": "1" if options.pause else "0",
            "changes": builtins.list(options.changes),
        }
        return self._transport.call(IDResponse, "POST", "/commit", query, options.config)


def _stopping(signal: str | None, timeout: int | None) -> Query:
    return {"signal": signal, "t": None if timeout is None else str(timeout)}


class Execs:
    """Exec instances of a remote engine; they live as long as their container runs."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(self, ref: str, body: ExecCreateRequest) -> str:
        """Prepare a program for container ``ref``; returns the exec's id."""
        path = f"/containers/{ref}/exec"
        return self._transport.call(IDResponse, "POST", path, None, body).id or ""

    def start(self, exec_id: str, body: ExecStartRequest) -> Connection | None:
        """Run it; None when detached."""
        path = f"/exec/{exec_id}/start"
        if body.detach:
            self._transport.do("POST", path, None, body)
            return None
        return Connection(self._transport.hijack(path, None, body), tty=bool(body.tty))

    def inspect(self, exec_id: str) -> ExecInspect:
        """State and configuration of an exec."""
        return self._transport.call(ExecInspect, "GET", f"/exec/{exec_id}/json")

    def resize(self, exec_id: str, height: int, width: int) -> None:
        """Set its terminal's size in character cells."""
        self._transport.do("POST", f"/exec/{exec_id}/resize", {"h": height, "w": width})
