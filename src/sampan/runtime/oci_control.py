"""The commands that look at or act on existing containers (all but create, run, start, exec)."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable

from sampan.errors import Conflict, InvalidParameter, NotFound, SampanError
from sampan.kernel import cgroup, mount, namespaces
from sampan.model.oci import Resources
from sampan.runtime import oci_state
from sampan.runtime.oci_arguments import Parsed
from sampan.runtime.oci_log import Log
from sampan.runtime.oci_state import Record, Store
from sampan.runtime.requests import DEFAULT_PARENT

_FORCE_SECONDS = 10.0
_ROOTLESS = {
    **dict.fromkeys(("auto", ""), None),
    **dict.fromkeys(("true", "1", "t", "T", "TRUE", "True"), True),
    **dict.fromkeys(("false", "0", "f", "F", "FALSE", "False"), False),
}


class Runtime:
    """What every command works with: the store, the log, the host's cgroup layout."""

    def __init__(
        self, store: Store, log: Log, *, systemd: bool = False, rootless: str = "auto"
    ) -> None:
        """``log`` takes warnings. ``systemd`` makes the cgroups of new containers. ``rootless``:
        "true", "false" or "auto". Raises InvalidParameter."""
        if rootless not in _ROOTLESS:
            raise InvalidParameter(f"--rootless: {rootless!r} is not true, false or auto")
        self.systemd = systemd
        self._rootless = _ROOTLESS[rootless]
        self.store = store
        self.log = log
        self._layout: cgroup.Layout | None = None

    @property
    def layout(self) -> cgroup.Layout:
        """Probed when first asked for."""
        if self._layout is None:
            self._layout = cgroup.probe()
        return self._layout

    @property
    def rootless(self) -> bool:
        """Whether containers may do without cgroups that we have no right to make."""
        if self._rootless is not None:
            return self._rootless
        return os.geteuid() != 0 or not namespaces.in_initial_user()

    def status(self, record: Record) -> str:
        """created, running, paused or stopped."""
        if not oci_state.alive(record):
            return "stopped"
        with contextlib.suppress(OSError):
            if record["cgroup"] and cgroup.frozen(self.layout, record["cgroup"]):
                return "paused"
        return "created" if oci_state.waiting(self.store, record) else "running"


def own_cgroup(record: Record) -> str:
    """The container's cgroup. Raises Conflict: without one it is in its maker's, with others."""
    if not record["cgroup"]:
        raise Conflict("container has no cgroup")
    return record["cgroup"]


def state(runtime: Runtime, parsed: Parsed) -> int:
    """runtime.md "Query State"."""
    record = runtime.store.load(parsed.arguments[0])
    document = oci_state.document(runtime.store, record, runtime.status(record))
    print(json.dumps(document, indent=2))
    return 0


def list_containers(runtime: Runtime, parsed: Parsed) -> int:
    """All containers, as a table, as JSON, or their ids."""
    form = parsed.string("format")
    if form not in ("table", "json"):
        raise InvalidParameter(f"invalid format option {form!r}")
    documents = []
    for container_id in runtime.store.ids():
        # One that is deleted meanwhile is left out.
        with contextlib.suppress(NotFound):
            record = runtime.store.load(container_id)
            documents.append(oci_state.document(runtime.store, record, runtime.status(record)))
    if parsed.switch("quiet"):
        for document in documents:
            print(document["id"])
    elif form == "json":
        print(json.dumps(documents or None))
    else:
        _table(documents)
    return 0


def _table(documents: list[dict[str, object]]) -> None:
    keys = ("id", "pid", "status", "bundle", "created", "owner")
    rows = [tuple(key.upper() for key in keys)]
    rows += [tuple(str(document[key]) for key in keys) for document in documents]
    widths = [max(12, *(len(row[column]) + 3 for row in rows)) for column in range(len(keys))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        print("".join(cells) + row[-1])


def kill(runtime: Runtime, parsed: Parsed) -> int:
    """Send a signal to the first process, or to all."""
    record = runtime.store.load(parsed.arguments[0])
    number = parse_signal(parsed.arguments[1] if len(parsed.arguments) > 1 else "TERM")
    status = runtime.status(record)
    everybody = parsed.switch("all") or (record["shares_pids"] and number == signal.SIGKILL)
    if everybody and record["cgroup"]:
        with contextlib.suppress(FileNotFoundError):
            if number == signal.SIGKILL:
                cgroup.kill(runtime.layout, record["cgroup"])
            else:
                cgroup.signal_all(runtime.layout, record["cgroup"], number)
        return 0
    if status == "stopped":
        raise NotFound("container not running")
    send_signal(record, number)
    if status == "paused" and number == signal.SIGKILL:
        # A frozen v1 task acts on it only once it is thawed.
        cgroup.thaw(runtime.layout, record["cgroup"])
    return 0


def send_signal(record: Record, number: int) -> None:
    """To the first process and no other that got its pid. Raises NotFound when it is gone."""
    try:
        pidfd = os.pidfd_open(record["pid"])
    except ProcessLookupError:
        raise NotFound("container not running") from None
    try:
        if not oci_state.alive(record):
            raise NotFound("container not running")
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        raise NotFound("container not running") from None
    finally:
        os.close(pidfd)


def parse_signal(text: str) -> int:
    """9, KILL, SIGKILL, sigkill or RTMIN+3. Raises InvalidParameter."""
    if text.isdecimal():
        number = int(text)
    else:
        name, plus, offset = text.upper().removeprefix("SIG").partition("+")
        found = getattr(signal, f"SIG{name}", None)
        if not isinstance(found, signal.Signals) or (plus and not offset.isdecimal()):
            raise InvalidParameter(f"unknown signal {text!r}")
        number = found + int(offset or 0)
    if not 0 < number <= signal.SIGRTMAX:
        raise InvalidParameter(f"unknown signal {text!r}")
    return number


def delete(runtime: Runtime, parsed: Parsed) -> int:
    """Release what a stopped (with --force: any) container holds."""
    container_id, force = parsed.arguments[0], parsed.switch("force")
    try:
        record = runtime.store.load(container_id)
    except NotFound:
        if not force:
            raise
        # A creation that was interrupted leaves a directory without a record.
        runtime.store.release(container_id)
        return 0
    status = runtime.status(record)
    if status != "stopped":
        if not force and status != "created":
            raise Conflict(f"cannot delete container {container_id} that is not stopped: {status}")
        end(runtime, record)
    destroy(runtime, record)
    return 0


def end(runtime: Runtime, record: Record) -> None:
    """SIGKILL the first process and wait until it is gone. Raises Conflict when it stays."""
    with contextlib.suppress(NotFound):
        send_signal(record, signal.SIGKILL)
    if record["cgroup"]:
        # Also thaws, and ends what is left without a pid namespace of its own.
        with contextlib.suppress(TimeoutError):
            cgroup.kill(runtime.layout, record["cgroup"], timeout=_FORCE_SECONDS)
    deadline = time.monotonic() + _FORCE_SECONDS
    while oci_state.alive(record):
        if time.monotonic() > deadline:
            raise Conflict("container init still running")
        time.sleep(0.002)


def destroy(runtime: Runtime, record: Record) -> None:
    """Remove cgroups, run poststop hooks, forget the container."""
    if record["cgroup"]:
        cgroup.destroy(runtime.layout, record["cgroup"], record["scope"])
        if os.path.dirname(record["cgroup"]) == DEFAULT_PARENT:
            cgroup.remove_empty(runtime.layout, DEFAULT_PARENT)
    if made := record.get("resctrl_made"):
        from sampan.runtime import rdt

        rdt.release(made)
    with contextlib.suppress(OSError):  # the bundle, or what was mounted there, is gone
        if record.get("shared_root") and mount.mount_id(record["rootfs"]) == record["shared_root"]:
            mount.umount2(record["rootfs"], mount.MNT_DETACH)
    try:
        spec = runtime.store.load_spec(record["id"])
    except FileNotFoundError:
        spec = {}
    document = {**oci_state.document(runtime.store, record, "stopped"), "pid": 0}
    runtime.store.release(record["id"])
    hooks = (spec.get("hooks") or {}).get("poststop") or ()
    if hooks:
        from sampan.runtime import oci_hooks

        oci_hooks.run_tolerant(hooks, document, runtime.log)


def pause(runtime: Runtime, parsed: Parsed) -> int:
    """Freeze all processes."""
    record = runtime.store.load(parsed.arguments[0])
    if runtime.status(record) not in ("running", "created"):
        raise Conflict("container not running or created: " + runtime.status(record))
    cgroup.freeze(runtime.layout, own_cgroup(record))
    return 0


def resume(runtime: Runtime, parsed: Parsed) -> int:
    """Thaw all processes."""
    record = runtime.store.load(parsed.arguments[0])
    if runtime.status(record) != "paused":
        raise Conflict("container not paused")
    cgroup.thaw(runtime.layout, record["cgroup"])
    return 0


def ps(runtime: Runtime, parsed: Parsed) -> int:
    """Processes of a container: their pids as JSON, or the host's ps cut down to them."""
    record = runtime.store.load(parsed.arguments[0])
    form = parsed.string("format")
    try:
        pids = cgroup.procs(runtime.layout, own_cgroup(record))
    except FileNotFoundError:
        pids = []
    if form == "json":
        print(json.dumps(pids or None))
        return 0
    if form != "table":
        raise InvalidParameter("invalid format option")
    import subprocess

    options = parsed.arguments[1:] or ["-ef"]
    result = subprocess.run(["ps", *options], capture_output=True, text=True, check=False)
    if result.returncode:
        raise SampanError(f"ps: {result.stderr.strip()}")
    header, *lines = result.stdout.splitlines()
    if "PID" not in header.split():
        raise SampanError("couldn't find PID field in ps output")
    column = header.split().index("PID")
    print(header)
    for line in lines:
        if int(line.split()[column]) in pids:
            print(line)
    return 0


def update(runtime: Runtime, parsed: Parsed) -> int:
    """Change limits: from a document, or from flags."""
    record = runtime.store.load(parsed.arguments[0])
    source = parsed.string("resources")
    if source:
        if source == "-":
            text = sys.stdin.buffer.read()
        else:
            with open(source, "rb") as file:
                text = file.read()
        from sampan.runtime import validate

        resources = validate.parse_resources(text)
    else:
        resources = _resources(parsed)
        _change_resctrl(record, parsed)
    # Refused values first: systemd is told of what the kernel has taken.
    cgroup.apply(cgroup.plan_update(runtime.layout, own_cgroup(record), resources))
    if record["scope"]:
        from sampan.kernel.cgroup import systemd

        systemd.change(record["scope"], systemd.properties(runtime.layout, resources))
    return 0


def _change_resctrl(record: Record, parsed: Parsed) -> None:
    """--l3-cache-schema and --mem-bw-schema."""
    lines = [parsed.string(name) for name in ("l3-cache-schema", "mem-bw-schema")]
    if not any(lines):
        return
    if not record.get("resctrl"):
        raise InvalidParameter("Intel RDT: intelRdt is not enabled")
    from sampan.runtime import rdt

    rdt.change(record["resctrl"][0], [line for line in lines if line])


def _resources(parsed: Parsed) -> Resources:
    """The flags of ``update`` that were given."""

    def numbers(table: dict[str, str], read: Callable[[str], int]) -> dict[str, int]:
        return {key: read(flag) for flag, key in table.items() if flag in parsed.given}

    cpu: dict[str, object] = {
        **numbers(
            {
                "cpu-period": "period",
                "cpu-quota": "quota",
                "cpu-burst": "burst",
                "cpu-share": "shares",
                "cpu-rt-period": "realtimePeriod",
                "cpu-rt-runtime": "realtimeRuntime",
                "cpu-idle": "idle",
            },
            parsed.number,
        )
    }
    for name in ("cpus", "mems"):
        if f"cpuset-{name}" in parsed.given:
            cpu[name] = parsed.string(f"cpuset-{name}")
    memory = numbers(
        {"memory": "limit", "memory-reservation": "reservation", "memory-swap": "swap"},
        lambda flag: parse_bytes(parsed.string(flag)),
    )
    memory |= numbers({"kernel-memory-tcp": "kernelTCP"}, parsed.number)
    document: dict[str, object] = {"cpu": cpu, "memory": memory}
    document["pids"] = numbers({"pids-limit": "limit"}, parsed.number)
    document["blockIO"] = numbers({"blkio-weight": "weight"}, parsed.number)
    from sampan.runtime import validate

    return validate.parse_resources(
        json.dumps({key: value for key, value in document.items() if value}).encode()
    )


def parse_bytes(text: str) -> int:
    """ "64m" -> 67108864, "-1" -> -1. Raises InvalidParameter."""
    if text == "-1":
        return -1
    number = text.lower().removesuffix("b").removesuffix("i")
    factor = 1
    if number and number[-1] in "kmgtp":
        factor = 1 << (10 * ("kmgtp".index(number[-1]) + 1))
        number = number[:-1]
    try:
        return int(float(number) * factor) if "." in number else int(number) * factor
    except ValueError:
        raise InvalidParameter(f"invalid size: {text!r}") from None
