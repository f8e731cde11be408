"""The systemd driver: a container's cgroup is a transient scope unit that systemd makes.

    place = scope(layout, "system.slice:docker:abc", resources)   # pure
    start(place, pid)       # systemd makes place.path and moves the process there
    ...                     # everything else is written to the files, as without systemd
    change(unit, properties(layout, resources))                   # so that it remembers updates
    stop(unit)

systemd owns the files of the unit's own cgroup and writes them again when it reloads, so limits it
has a property for are given as properties too (systemd.resource-control(5)); what is below the
unit it leaves alone (Delegate=). On v1 it knows some controllers only: the directories of the
others are made like without it. org.freedesktop.systemd1(5), "Manager Object".
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sampan.errors import InvalidParameter, Unavailable, Unsupported
from sampan.kernel import dbus
from sampan.kernel.cgroup import gvariant
from sampan.kernel.cgroup.convert import swap_max, weight_from_shares
from sampan.kernel.cgroup.devices import DEFAULT_DEVICES, WILDCARD, policy
from sampan.kernel.cgroup.layout import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.model.oci import CPUResources, DeviceRule, MemoryResources, Resources

#: (name, D-Bus signature, value)
Property = tuple[str, str, dbus.Value]

BOOTED = "/run/systemd/system"  # sd_booted(3)
DEFAULT_SLICE = "system.slice"
_BUS = "/run/dbus/system_bus_socket"
_PRIVATE = "/run/systemd/private"
_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1")
_INTERFACE = "org.freedesktop.systemd1.Manager"
_UNIT_NAME = re.compile(r"[A-Za-z0-9:_.\\@-]+")
_ANNOTATION = "org.systemd.property."
_PROPERTY_NAME = re.compile("[A-Za-z]{3,}")
_SECONDS = re.compile("[a-z]Sec$")
#: Where the container is, and that it is ours to divide.
_OURS = frozenset({"Slice", "Delegate", "PIDs"})
_INFINITY = (1 << 64) - 1
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_GONE = "org.freedesktop.systemd1.NoSuchUnit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A scope to be made: its unit's name, the slice it is in, its cgroup's path, its properties.

    Without PIDs, which are known when it is made.
    """

    unit: str
    slice: str
    path: str
    properties: tuple[Property, ...] = ()


def scope(
    layout: Layout,
    wanted: str,
    container_id: str,
    resources: Resources,
    annotations: Mapping[str, str] | None = None,
) -> Scope:
    """The scope ``wanted`` (``linux.cgroupsPath``, "slice:prefix:name") stands for.

    Parts left empty are system.slice, "sampan" and the container's id. ``annotations``: of the
    container, see :func:`annotated`. Raises InvalidParameter.
    """
    slice_name, unit = place(wanted, container_id)
    made: list[Property] = [
        ("Description", "s", f"sampan container {container_id}"),
        ("Slice", "s", slice_name),
        ("Delegate", "b", True),
        ("DefaultDependencies", "b", False),
        # A failed unit (out of memory) would stay, and its name be taken.
        ("CollectMode", "s", "inactive-or-failed"),
        *((f"{kind}Accounting", "b", True) for kind in _accounted(layout)),
        # Else DefaultTasksMax= counts.
        ("TasksMax", "t", _INFINITY),
        *properties(layout, resources),
        *annotated(annotations or {}),
    ]
    return Scope(
        unit=unit,
        slice=slice_name,
        path=f"{slice_path(slice_name)}/{unit}",
        properties=tuple({name: (name, kind, value) for name, kind, value in made}.values()),
    )


def annotated(annotations: Mapping[str, str]) -> Iterator[Property]:
    """Properties that annotations name: ``org.systemd.property.TimeoutStopUSec: uint64 123``.

    As other runtimes do: the value is in GVariant's text format, and ``...Sec``, which systemctl
    takes and D-Bus does not know, stands for ``...USec`` in microseconds. Raises InvalidParameter.
    """
    for key, text in annotations.items():
        if not key.startswith(_ANNOTATION):
            continue
        name = key.removeprefix(_ANNOTATION)
        if not _PROPERTY_NAME.fullmatch(name) or name in _OURS:
            why = "is made by the runtime" if name in _OURS else "is no name of a property"
            raise InvalidParameter(f"annotations: {key}: {name!r} {why}")
        try:
            kind, value = gvariant.parse(text)
        except ValueError as error:
            raise InvalidParameter(f"annotations: {key}: {error}") from None
        if _SECONDS.search(name):
            if kind not in "nqiuxtd" or not 0 <= value * 1_000_000 < _INFINITY:
                raise InvalidParameter(f"annotations: {key}: {text!r} is no time in seconds")
            name, kind, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        yield name, kind, value


def place(wanted: str, container_id: str) -> tuple[str, str]:
    """(slice, unit) of ``linux.cgroupsPath``. Raises as :func:`scope`."""
    parts = wanted.split(":") if wanted else ["", "", ""]
    if len(parts) != 3:
        raise InvalidParameter(
            "linux.cgroupsPath: for systemd it has to be of the form slice:prefix:name, "
            f"not {wanted!r}"
        )
    prefix = parts[1] if wanted else "sampan"
    name = parts[2] or container_id
    if name.endswith(".slice"):
        raise Unsupported("linux.cgroupsPath: a container cannot be a slice of its own")
    unit = f"{prefix}-{name}.scope".removeprefix("-")
    if not _UNIT_NAME.fullmatch(unit) or len(unit) > 255:
        raise InvalidParameter(f"linux.cgroupsPath: {unit!r} is no name of a systemd unit")
    return parts[0] or DEFAULT_SLICE, unit


def _accounted(layout: Layout) -> tuple[str, ...]:
    return ("Memory", "CPU", "Tasks", "IO" if layout.mode == "v2" else "BlockIO")


def slice_path(name: str) -> str:
    """The cgroup of a slice: ``a-b.slice`` is in ``a.slice``. Raises InvalidParameter.

    systemd.slice(5).
    """
    stem = name.removesuffix(".slice")
    if name == "-.slice":
        return ""
    words = stem.split("-")
    if stem == name or not all(words) or not _UNIT_NAME.fullmatch(name):
        raise InvalidParameter(f"{name!r} is no name of a systemd slice (xxx.slice)")
    return "".join(f"/{'-'.join(words[: count + 1])}.slice" for count in range(len(words)))


def properties(layout: Layout, resources: Resources) -> tuple[Property, ...]:
    """What of ``resources`` systemd has properties for. Raises as the plans for the files do."""
    unified = layout.mode == "v2"
    made: list[Property] = []
    if cpu := resources.get("cpu"):
        made += _cpu(cpu, unified)
    if memory := resources.get("memory"):
        made += _memory(memory, unified)
    limit = resources.get("pids", {}).get("limit")
    if limit is not None:
        made.append(("TasksMax", "t", limit if limit > 0 else _INFINITY))
    weight = resources.get("blockIO", {}).get("weight")
    if weight and not unified:
        made.append(("BlockIOWeight", "t", weight))
    rules = resources.get("devices")
    if rules is not None and not unified:
        made += _devices(rules)
    return tuple(made)


def _cpu(cpu: CPUResources, unified: bool) -> list[Property]:
    made: list[Property] = []
    shares = cpu.get("shares")
    if shares and cpu.get("idle") != 1:
        if unified:
            made.append(("CPUWeight", "t", weight_from_shares(shares)))
        else:
            made.append(("CPUShares", "t", shares))
    quota, period = cpu.get("quota"), cpu.get("period")
    if period and unified:
        made.append(("CPUQuotaPeriodUSec", "t", period))
    if quota:
        # systemd counts in steps of 10 ms a second; never below what was asked for.
        second = -(-quota * 1_000_000 // (period or 100_000))
        made.append(
            ("CPUQuotaPerSecUSec", "t", -(-second // 10_000) * 10_000 if quota > 0 else _INFINITY)
        )
    if unified:
        for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            if text := cpu.get(key):
                mask = bit_mask(str(text), f"linux.resources.cpu.{key}")
                made.append((name, "ay", list(mask)))
    return made


def _memory(memory: MemoryResources, unified: bool) -> list[Property]:
    def bytes_or_infinity(value: int) -> int:
        return value if value >= 0 else _INFINITY

    made: list[Property] = []
    limit = memory.get("limit") or None
    if limit is not None:
        made.append(("MemoryMax" if unified else "MemoryLimit", "t", bytes_or_infinity(limit)))
    if not unified:
        return made
    if reservation := memory.get("reservation"):
        made.append(("MemoryLow", "t", bytes_or_infinity(reservation)))
    swap = swap_max(limit, memory.get("swap") or 0)
    if swap is not None:
        made.append(("MemorySwapMax", "t", bytes_or_infinity(swap)))
    return made


def _devices(rules: list[DeviceRule]) -> list[Property]:
    """systemd allows everything again when it reloads, unless it was told what is allowed."""
    wanted = policy([*rules, *DEFAULT_DEVICES])
    if wanted.allow_by_default:
        return [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]
    kinds = {"c": "char", "b": "block"}
    allowed = []
    for exception in wanted.exceptions:
        kind = kinds[exception.kind]
        if exception.major == WILDCARD:
            allowed.append((f"{kind}-*", exception.access))
        elif exception.minor == WILDCARD:
            allowed.append((f"{kind}-{exception.major}", exception.access))
        else:
            path = f"/dev/{kind}/{exception.major}:{exception.minor}"
            allowed.append((path, exception.access))
    return [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", allowed)]


def bit_mask(text: str, field: str) -> bytes:
    """ "0-2,8" as systemd's bit mask, the first byte for 0 to 7. Raises InvalidParameter."""
    mask = 0
    try:
        for part in text.split(","):
            first, _, last = part.strip().partition("-")
            low, high = int(first), int(last or first)
            if not 0 <= low <= high < 1 << 16:
                raise ValueError(part)
            mask |= ((1 << (high - low + 1)) - 1) << low
    except ValueError:
        raise InvalidParameter(f"{field}: invalid list {text!r}") from None
    return mask.to_bytes(mask.bit_length() // 8 + 1, "little")


def start(place: Scope, pid: int) -> None:
    """Make the scope with the process ``pid`` in it; returns when it is there.

    Raises Unavailable, when systemd does not answer or refuses.
    """
    values = [(name, (kind, value)) for name, kind, value in place.properties]
    values.append(("PIDs", ("au", [pid])))
    with _talking(f"make {place.unit}"), _connect() as connection:
        _subscribe(connection)
        arguments: tuple[dbus.Value, ...] = (place.unit, "replace", values, [])
        try:
            (job,) = _ask(connection, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments)
        except dbus.DBusError as error:
            if error.name != _EXISTS:
                raise
            # What is left of one that failed: it has no process, or it could not be reset away.
            _ask(connection, "ResetFailedUnit", "s", place.unit)
            (job,) = _ask(connection, "StartTransientUnit", "ssa(sv)a(sa(sv))", *arguments)
        result = _finished(connection, job)
    if result != "done":
        raise Unavailable(f"systemd cannot make {place.unit}: {result}")


def stop(unit: str) -> None:
    """Stop the scope and forget it; returns when it is gone. One that is gone is fine.

    Raises Unavailable.
    """
    with _talking(f"stop {unit}"), _connect() as connection:
        _subscribe(connection)
        try:
            (job,) = _ask(connection, "StopUnit", "ss", unit, "replace")
        except dbus.DBusError as error:
            if error.name != _GONE:
                raise
            return
        _finished(connection, job)
        with contextlib.suppress(dbus.DBusError):  # it is not loaded any more: it had not failed
            _ask(connection, "ResetFailedUnit", "s", unit)


def change(unit: str, wanted: tuple[Property, ...]) -> None:
    """Set properties of a running unit, until it ends. Raises Unavailable."""
    if not wanted:
        return
    values = [(name, (kind, value)) for name, kind, value in wanted]
    with _talking(f"change {unit}"), _connect() as connection:
        _ask(connection, "SetUnitProperties", "sba(sv)", unit, True, values)


@contextlib.contextmanager
def _talking(what: str) -> Iterator[None]:
    try:
        yield
    except dbus.DBusError as error:
        raise Unavailable(f"systemd cannot {what}: {error.message}") from error
    except (OSError, ValueError) as error:
        raise Unavailable(f"systemd cannot be asked to {what}: {error}") from error


def _connect() -> dbus.Connection:
    """By the system bus; where there is none, to systemd itself, as systemctl does."""
    if not os.path.isdir(BOOTED):
        raise OSError(errno.EOPNOTSUPP, "this machine is not run by systemd")
    try:
        return dbus.Connection(_BUS)
    except (FileNotFoundError, ConnectionRefusedError):
        return dbus.Connection(_PRIVATE, bus=False)


def _ask(
    connection: dbus.Connection, method: str, signature: str, *values: dbus.Value
) -> tuple[dbus.Value, ...]:
    return connection.call(_MANAGER, method, signature, *values, interface=_INTERFACE)


def _subscribe(connection: dbus.Connection) -> None:
    """Be told of jobs that end, before there is one."""
    rule = f"type='signal',interface='{_INTERFACE}',member='JobRemoved'"
    if connection.bus:
        connection.subscribe(rule)
    _ask(connection, "Subscribe", "")


def _finished(connection: dbus.Connection, job: str) -> str:
    """The result of a job, once it has ended: "done", "failed", "canceled", ..."""
    _, _, values = connection.wait_signal(
        lambda signal: signal[1] == "JobRemoved" and signal[2][1] == job
    )
    return str(values[3])
