"""firewalld(1) and our bridges: they are in a zone of ours, which forwards and lets in.

firewalld's chains accept by policy and end in a rule that rejects, so nothing appended there would
be met; the way it offers is a zone. Ours is called ``sampan``, has the target ACCEPT, and a policy
lets packets of any zone into it: our own table decides what may pass. Both are made, permanently,
where they are missing, which takes one reload (whatever was not permanent goes with it, as where
Docker makes its zone); one that exists stays as it is, and both stay when we end. Bridges are bound
to the zone until firewalld reloads, and then again.

A thread looks after this. Where nobody owns firewalld's name on the bus, or he who does lives in
another network namespace than we do, nothing is done and nobody waits.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import select
import socket
import threading
from collections.abc import Iterable

from sampan.kernel import dbus

log = logging.getLogger(__name__)

ZONE = "sampan"
POLICY = "sampan-forwarding"

_NAME = "org.fedoraproject.FirewallD1"
_RUNTIME = (_NAME, "/org/fedoraproject/FirewallD1")
_PERMANENT = (_NAME, "/org/fedoraproject/FirewallD1/config")
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus")
_EXCEPTION = f"{_NAME}.Exception"
#: seconds a call may take: a reload of many rules is slow
_PATIENCE = 60.0
#: seconds until a bus that broke off is tried again
_PAUSE = 30.0
#: bridges of ours that may have ended with an engine that was killed
_BRIDGE = re.compile(r"br-[0-9a-f]{12}")
_ZONE_SETTINGS: dict[str, tuple[str, object]] = {
    "version": ("s", "1.0"),
    "short": ("s", ZONE),
    "description": ("s", "Bridges of sampan; which packets may pass is decided in its own table."),
    "target": ("s", "ACCEPT"),
}
_POLICY_SETTINGS: dict[str, tuple[str, object]] = {
    "version": ("s", "1.0"),
    "description": ("s", "Packets from anywhere to the bridges of sampan."),
    "ingress_zones": ("as", ["ANY"]),
    "egress_zones": ("as", [ZONE]),
    "target": ("s", "ACCEPT"),
}


class Firewalld:
    """Keeps bridges in the zone. Works in the network namespace of the thread that makes it."""

    def __init__(self, bus: str, *, respect: bool = False) -> None:
        """``bus``: the system bus's socket, "" for none. With ``respect`` no bridge is put into the
        zone, and those that are there are taken out."""
        self._bus = bus
        self._respect = respect
        self._own_namespace = os.stat("/proc/thread-self/ns/net").st_ino
        self._changed = threading.Condition()
        self._bridges: frozenset[str] = frozenset()
        self._asked = self._done = 0
        self._running = False
        self._closing = False
        self._wake, self._woken = socket.socketpair()
        self._thread: threading.Thread | None = None
        if os.path.exists(bus):
            self._thread = threading.Thread(target=self._run, name="sampan-firewalld", daemon=True)
            self._thread.start()

    def update(self, bridges: Iterable[str]) -> None:
        """Have exactly these bridges in the zone; returns when they are, if firewalld runs."""
        wanted = frozenset(bridges)
        with self._changed:
            if wanted == self._bridges or self._thread is None:
                return
            self._bridges = wanted
            self._asked += 1
            mine = self._asked
            self._wake.send(b"!")
            self._changed.wait_for(lambda: self._done >= mine or not self._running, _PATIENCE)

    def close(self) -> None:
        """End the thread; bridges stay in the zone for running containers."""
        if self._thread is not None:
            with self._changed:
                self._closing = True
            self._wake.send(b"!")
            self._thread.join()
            self._thread = None
        self._wake.close()
        self._woken.close()

    def _run(self) -> None:
        while not self._closing and os.path.exists(self._bus):
            try:
                with dbus.Connection(self._bus, timeout=_PATIENCE) as connection:
                    self._serve(connection)
            except (OSError, ValueError, dbus.DBusError) as error:
                log.warning("cannot talk to firewalld: %s", error)
            self._set_running(False)
            if not self._closing:
                self._sleep(None, _PAUSE)
        self._set_running(False)

    def _serve(self, connection: dbus.Connection) -> None:
        """Until told to close."""
        connection.subscribe(
            f"type='signal',sender='{_NAME}',interface='{_NAME}',member='Reloaded'"
        )
        connection.subscribe(
            f"type='signal',sender='{_BUS[0]}',member='NameOwnerChanged',arg0='{_NAME}'"
        )
        self._set_running(self._is_there(connection))
        applied: frozenset[str] | None = None
        while not self._closing:
            with self._changed:
                asked, bridges = self._asked, self._bridges
            if self._running and bridges != applied:
                try:
                    self._apply(connection, bridges, applied or frozenset())
                except dbus.DBusError as error:
                    log.warning("firewalld refuses bridges of containers: %s", error)
                applied = bridges
            with self._changed:
                self._done = asked
                self._changed.notify_all()
            for signal in self._signals(connection):
                applied = None
                if signal[1] == "NameOwnerChanged":
                    self._set_running(self._is_there(connection))
            if applied is not None or not self._running:
                self._sleep(connection, None)

    def _signals(self, connection: dbus.Connection) -> list[dbus.Signal]:
        """What has been told meanwhile."""
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(
                    connection.wait_signal(
                        lambda signal: signal[1] in ("Reloaded", "NameOwnerChanged"), 0
                    )
                )
        return found

    def _sleep(self, connection: dbus.Connection | None, seconds: float | None) -> None:
        """Until there is something to do; not if somebody asked meanwhile."""
        poller = select.poll()
        poller.register(self._woken, select.POLLIN)
        if connection is not None:
            poller.register(connection.fileno(), select.POLLIN)
        ready = {fd for fd, _ in poller.poll(None if seconds is None else seconds * 1000)}
        if self._woken.fileno() in ready:
            self._woken.recv(4096)

    def _set_running(self, running: bool) -> None:
        with self._changed:
            self._running = running
            self._changed.notify_all()

    def _is_there(self, connection: dbus.Connection) -> bool:
        """Whether firewalld runs, and here."""
        try:
            (process,) = connection.call(_BUS, "GetConnectionUnixProcessID", "s", _NAME)
        except dbus.DBusError:  # org.freedesktop.DBus.Error.NameHasNoOwner
            return False
        try:
            namespace = os.stat(f"/proc/{process}/ns/net").st_ino
        except OSError:  # we have processes of our own and its bus: nothing speaks against it
            return True
        return namespace == self._own_namespace

    def _apply(
        self, connection: dbus.Connection, bridges: frozenset[str], before: frozenset[str]
    ) -> None:
        wanted = frozenset() if self._respect else bridges
        (zones,) = _zone(connection, "getZones")
        if wanted and self._make(connection, ZONE not in zones):
            connection.call(_RUNTIME, "reload")
        elif ZONE not in zones:
            return
        (present,) = _zone(connection, "getInterfaces", ZONE)
        for name in sorted(wanted.difference(present)):
            try:
                _zone(connection, "addInterface", ZONE, name)
            except dbus.DBusError as error:
                if error.name != _EXCEPTION:
                    raise
                # In another zone by its administrator's wish (ZONE_CONFLICT): there it stays.
                log.info("firewalld: %s stays where it is: %s", name, error)
        for name in present:
            known = name in bridges or name in before or _is_gone(name)
            if known and name not in wanted:
                with contextlib.suppress(dbus.DBusError):  # not there any more
                    _zone(connection, "removeInterface", ZONE, name)

    def _make(self, connection: dbus.Connection, zone_is_missing: bool) -> bool:
        """Make zone and policy where they are missing; whether a reload must follow."""
        missing = zone_is_missing
        if zone_is_missing:
            _add(connection, "addZone2", ZONE, _ZONE_SETTINGS)
        with contextlib.suppress(_NoSuchMethod):  # firewalld before 0.9 has no policies
            (policies,) = _call(connection, _RUNTIME, "policy", "getPolicies")
            if POLICY not in policies:
                _add(connection, "addPolicy", POLICY, _POLICY_SETTINGS)
                missing = True
        return missing


class _NoSuchMethod(dbus.DBusError):
    """This firewalld is too old for that."""


def _call(
    connection: dbus.Connection,
    target: tuple[str, str],
    interface: str,
    method: str,
    signature: str = "",
    *values: dbus.Value,
) -> tuple[dbus.Value, ...]:
    try:
        return connection.call(target, method, signature, *values, interface=f"{_NAME}.{interface}")
    except dbus.DBusError as error:
        if error.name.endswith((".UnknownMethod", ".UnknownInterface")):
            raise _NoSuchMethod(error.name, error.message) from error
        raise


def _zone(connection: dbus.Connection, method: str, *values: str) -> tuple[dbus.Value, ...]:
    return _call(connection, _RUNTIME, "zone", method, "s" * len(values), *values)


def _add(
    connection: dbus.Connection, method: str, name: str, settings: dict[str, tuple[str, object]]
) -> None:
    """Make something permanent; one that is there already waits for a reload only."""
    try:
        _call(connection, _PERMANENT, "config", method, "sa{sv}", name, settings)
    except dbus.DBusError as error:
        if not error.message.startswith("NAME_CONFLICT"):
            raise


def _is_gone(name: str) -> bool:
    """Whether it was a bridge of ours."""
    return bool(_BRIDGE.fullmatch(name)) and name not in (n for _, n in socket.if_nameindex())
