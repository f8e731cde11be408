"""Health checks: a probe run in the container at intervals, and what follows from its results."""

from __future__ import annotations

import asyncio
import signal as signals
import socket
from collections import deque
from dataclasses import dataclass

from sampan.engine import clock, execs, stopping
from sampan.engine.core import Core
from sampan.engine.lifecycle import Status
from sampan.engine.table import Container
from sampan.errors import SampanError
from sampan.wire.container import Health, HealthcheckResult, HealthConfig
from sampan.wire.exec import ExecCreateRequest

_OUTPUT_LIMIT = 4096
_LOG_LENGTH = 5
#: label with what to do when a container becomes unhealthy: none, kill, restart or stop
ON_FAILURE_LABEL = "sampan.health.on-failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When to probe; seconds."""

    interval: float = 30.0
    timeout: float = 30.0
    start_period: float = 0.0
    start_interval: float = 5.0
    retries: int = 3

    @classmethod
    def of(cls, check: HealthConfig) -> Schedule:
        """The schedule of a health check; what is unset (0) takes Docker's default."""
        default = cls()
        return cls(
            interval=(check.interval or 0) / 1e9 or default.interval,
            timeout=(check.timeout or 0) / 1e9 or default.timeout,
            start_period=(check.start_period or 0) / 1e9,
            start_interval=(check.start_interval or 0) / 1e9 or default.start_interval,
            retries=check.retries or default.retries,
        )


@dataclass(slots=True)
class Verdict:
    """The health of a container as the results of its probes add up (pure).

    Failures during the start period do not count; the first success ends the period.
    """

    schedule: Schedule
    status: str = "starting"
    failing_streak: int = 0

    def judge(self, exit_code: int, since_start: float) -> bool:
        """Take a probe's result in; whether the status changed."""
        before = self.status
        if exit_code == 0:
            self.failing_streak = 0
            self.status = "healthy"
        elif self.status != "starting" or since_start >= self.schedule.start_period:
            self.failing_streak += 1
            if self.failing_streak >= self.schedule.retries:
                self.status = "unhealthy"
        return self.status != before

    def next_interval(self, since_start: float) -> float:
        """Seconds until the next probe."""
        starting = self.status == "starting" and since_start < self.schedule.start_period
        return self.schedule.start_interval if starting else self.schedule.interval


class HealthMonitor:
    """Probes one container while it runs."""

    def __init__(self, core: Core, container: Container, command: list[str]) -> None:
        self._core = core
        self._container = container
        self._command = command
        check = container.record.config.healthcheck or HealthConfig()
        self.schedule = Schedule.of(check)
        self.verdict = Verdict(self.schedule)
        self.results: deque[HealthcheckResult] = deque(maxlen=_LOG_LENGTH)
        self._task: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, core: Core, container: Container) -> HealthMonitor | None:
        """The monitor of a container, None when it has no health check."""
        config = container.record.config
        test = (config.healthcheck.test if config.healthcheck else None) or []
        if not test or test[0] not in ("CMD", "CMD-SHELL"):
            return None
        if test[0] == "CMD-SHELL":
            shell = config.shell or ["/bin/sh", "-c"]
            return cls(core, container, [*shell, " ".join(test[1:])])
        return cls(core, container, list(test[1:]))

    def start(self) -> None:
        """Begin probing."""
        if self._task is None:
            self._task = self._core.tasks.spawn(self._run(), f"health of {self._container.id[:12]}")

    def stop(self) -> None:
        """Cease probing; the results stay."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def report(self) -> Health:
        """As inspect shows it."""
        return Health(
            status=self.verdict.status,
            failing_streak=self.verdict.failing_streak,
            log=list(self.results),
        )

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.verdict.next_interval(self._age()))
            if self._container.state.status != Status.RUNNING:
                continue
            started = clock.now()
            code, output = await self._probe()
            self._core.counts.health_checks += 1
            self._core.counts.health_checks_failed += code != 0
            self.results.append(
                HealthcheckResult(
                    start=clock.rfc3339(started),
                    end=clock.rfc3339(clock.now()),
                    exit_code=code,
                    output=output,
                )
            )
            if self.verdict.judge(code, self._age()):
                status = self.verdict.status
                self._core.publish(self._container, f"health_status: {status}")
                if status == "unhealthy":
                    self._act()

    def _age(self) -> float:
        return (clock.now() - self._container.state.started_at) / 1e9

    def _act(self) -> None:
        action = (self._container.record.config.labels or {}).get(ON_FAILURE_LABEL, "none")
        run = self._container.run
        if run is None or action == "none":
            return
        if action == "stop":
            self._core.state.submit(self._core.change(self._container, stopped_by_user=True))
        if action in ("kill", "restart", "stop"):
            self._container.restart_wanted = action == "restart"
            number = (
                int(signals.SIGKILL) if action == "kill" else stopping.stop_signal(self._container)
            )
            self._core.tasks.spawn(
                stopping.end(self._core, self._container, run, number, stopping.DEFAULT_TIMEOUT),
                f"{action} unhealthy {self._container.id[:12]}",
            )

    async def _probe(self) -> tuple[int, str]:
        """Exit code and output of one probe; -1 when it could not run or took too long."""
        body = ExecCreateRequest(cmd=self._command, attach_stdout=True, attach_stderr=True)
        made = execs.new_exec(self._core, self._container, body)
        made.started = True
        output = bytearray()
        try:
            stream = await execs.run(self._core, made, attached=True)
            async with asyncio.timeout(self.schedule.timeout):
                if stream is not None:
                    await _collect(stream, output)
                await self._ended(made)
        except TimeoutError:
            await self._kill(made)
            said = output.decode(errors="replace")
            limit = clock.go_duration(self.schedule.timeout)
            return -1, f"Health check exceeded timeout ({limit})" + (f": {said}" if said else "")
        except SampanError as error:
            return -1, error.message
        finally:
            self._core.execs.pop(made.id, None)
            self._container.execs.discard(made.id)
        return made.exit_code or 0, output.decode(errors="replace")

    async def _ended(self, made: execs.Exec) -> None:
        await execs.refresh(self._core, made)
        await made.ended.wait()

    async def _kill(self, made: execs.Exec) -> None:
        if self._container.run is not None:
            try:
                await self._core.threads.run(
                    self._container.run.monitor.signal, int(signals.SIGKILL), made.id
                )
            except SampanError:
                # It ended by itself between the timeout and the signal.
                return


async def _collect(stream: socket.socket, output: bytearray) -> None:
    """Read framed output to its end, keeping its beginning."""
    stream.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=stream)
    try:
        while header := await reader.read(8):
            header += await reader.readexactly(8 - len(header))
            data = await reader.readexactly(int.from_bytes(header[4:], "big"))
            output += data[: max(0, _OUTPUT_LIMIT - len(output))]
    except asyncio.IncompleteReadError:
        # The monitor closed in mid-frame: the container is ending, the exit code will tell.
        return
    finally:
        writer.close()
