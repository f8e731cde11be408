"""Networks of CNI plugins (Container Network Interface specification 1.0): the ``cni`` driver.

A network names a configuration (option ``conf``: a file, or a network's name in
``/etc/cni/net.d``); the plugins it lists are run for each endpoint and choose its addresses. What
was run is noted first, so that DEL is run for everything an ADD was begun for, also after a crash
or a reboot.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sampan.errors import InvalidParameter, NotFound, SampanError, StartFailed, Unsupported
from sampan.network import cniconfig, interface
from sampan.network.cniconfig import NetworkList, Object
from sampan.network.journal import Journal
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    NetworkSpec,
    Observation,
    PortBinding,
)
from sampan.network.ports import PortReservations

#: network options: the configuration, and where programs are looked for (``:`` between)
CONFIGURATION, PROGRAMS = "conf", "bin"
CONFIGURATION_DIRECTORY = Path("/etc/cni/net.d")
PROGRAM_DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
#: seconds one plugin may take
TIMEOUT = 60.0


class CniDriver:
    """The ``cni`` driver; implements :class:`sampan.network.driver.Driver`."""

    def __init__(self, journal: Journal, directory: Path = CONFIGURATION_DIRECTORY) -> None:
        """``journal`` notes what is to be undone; ``directory`` holds configurations by name."""
        self._journal = journal
        self._directory = directory
        self._ports = PortReservations()

    def close(self) -> None:
        """Give reserved ports up; interfaces stay."""
        self._ports.close()

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`: the configuration is there, and so are its programs."""
        configuration = self._configuration(spec)
        for plugin in configuration.plugins:
            _program(str(plugin["type"]), _path(spec))

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`: what plugins share between endpoints is theirs."""

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`."""
        configuration = self._configuration(spec)
        with contextlib.ExitStack() as undo:
            undo.callback(self._ports.release, endpoint.endpoint_id)
            endpoint = replace(endpoint, ports=self._reserve(configuration, endpoint))
            runtime = _runtime(configuration, endpoint)
            entry: dict[str, object] = {
                "list": configuration.document(),
                "path": _path(spec),
                "interface": endpoint.interface,
                "container": endpoint.container_id,
                "runtime": runtime,
                "result": None,
            }
            self._journal.write(endpoint.endpoint_id, entry)
            undo.callback(self._delete, endpoint.endpoint_id, endpoint.sandbox)
            interface.loopback_up(netns_fd)
            result: Object | None = None
            for plugin in configuration.plugins:
                request = configuration.request(plugin, runtime, result)
                result = _run("ADD", plugin, request, entry, endpoint.sandbox) or result
            entry["result"] = result
            self._journal.write(endpoint.endpoint_id, entry)
            made = cniconfig.parse_result(result or {}, endpoint.interface, endpoint.sandbox)
            undo.pop_all()
        return EndpointStatus(
            interface=endpoint.interface,
            mac=made.mac,
            ports=endpoint.ports,
            addresses=made.addresses,
            gateways=made.gateways,
        )

    def _reserve(
        self, configuration: NetworkList, endpoint: EndpointSpec
    ) -> tuple[PortBinding, ...]:
        if not endpoint.ports:
            return ()
        if not configuration.has("portMappings"):
            raise Unsupported(
                f"ports cannot be published on CNI network {configuration.name}: none of its "
                "plugins has the capability portMappings"
            )
        return self._ports.reserve(
            endpoint.endpoint_id,
            endpoint.ports,
            name=endpoint.container_name or endpoint.container_id[:12],
        )

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`: plugins are told of ports once, at ADD."""
        if endpoint.ports != self._ports.held(endpoint.endpoint_id):
            raise Unsupported(f"ports of CNI network {spec.name} cannot change while it is used")
        return endpoint.ports

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`."""
        self._ports.release(endpoint.endpoint_id)
        self._delete(endpoint.endpoint_id, endpoint.sandbox if netns_fd is not None else "")

    def _delete(self, endpoint_id: str, sandbox: str) -> None:
        """Run DEL for what was begun, backwards; the entry goes when all went well."""
        entry = self._journal.read(endpoint_id)
        if entry is None:
            return
        configuration = cniconfig.list_of(entry.get("list"), "of an endpoint")
        runtime, result = entry.get("runtime"), entry.get("result")
        failures = []
        for plugin in reversed(configuration.plugins):
            request = configuration.request(
                plugin,
                runtime if isinstance(runtime, dict) else {},
                result if isinstance(result, dict) else None,
            )
            try:
                _run("DEL", plugin, request, entry, sandbox)
            except SampanError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        self._journal.remove(endpoint_id)

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`: endpoints that plugins hold something for."""
        return Observation(endpoints=frozenset(self._journal.list()))

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`: endpoints that are over are deleted, ports of the others
        reserved again."""
        kept = {e.endpoint_id: e for _, endpoints in desired for e in endpoints}
        lost = []
        self._ports.keep_only(kept)
        for endpoint_id in self._journal.list():
            if endpoint_id not in kept:
                with contextlib.suppress(SampanError):  # tried again at the next start
                    self._delete(endpoint_id, "")
        for endpoint_id, endpoint in kept.items():
            try:
                if endpoint.ports and not self._ports.held(endpoint_id):
                    self._ports.reserve(endpoint_id, endpoint.ports, name=endpoint.container_name)
            except SampanError:
                lost.append(endpoint_id)
        return tuple(lost)

    def _configuration(self, spec: NetworkSpec) -> NetworkList:
        wanted = spec.options.get(CONFIGURATION) or spec.name
        if wanted.startswith("/"):
            return cniconfig.parse_list(_read(Path(wanted)), wanted)
        try:
            names = sorted(os.listdir(self._directory))
        except OSError:
            names = []
        for name in names:
            path = self._directory / name
            if path.suffix in (".conflist", ".conf", ".json"):
                with contextlib.suppress(InvalidParameter):
                    found = cniconfig.parse_list(_read(path), str(path))
                    if found.name == wanted:
                        return found
        raise NotFound(f"no CNI configuration named {wanted} in {self._directory}")


def _runtime(configuration: NetworkList, endpoint: EndpointSpec) -> dict[str, object]:
    """What a configuration's capabilities may ask of us; what none asks for is refused."""
    wanted: dict[str, tuple[str, object]] = {
        "portMappings": ("published ports", cniconfig.port_mappings(endpoint.ports)),
        "mac": ("a MAC address", endpoint.mac),
        "ips": ("fixed addresses", [str(address.ip) for address in endpoint.addresses]),
    }
    for capability, (what, value) in wanted.items():
        if value and not configuration.has(capability):
            raise Unsupported(
                f"{what} cannot be had on CNI network {configuration.name}: none of its plugins "
                f"has the capability {capability}"
            )
    return {capability: value for capability, (_, value) in wanted.items() if value}


def _path(spec: NetworkSpec) -> str:
    return spec.options.get(PROGRAMS) or ":".join(PROGRAM_DIRECTORIES)


def _program(kind: str, path: str) -> str:
    for directory in path.split(":"):
        program = os.path.join(directory, kind)
        if directory.startswith("/") and os.access(program, os.X_OK):
            return program
    raise NotFound(f"CNI plugin {kind} is not in {path}")


def _run(
    command: str, plugin: Object, request: Object, entry: Object, sandbox: str
) -> Object | None:
    """Run one plugin; its result, if it tells one. Raises :class:`StartFailed` in its words."""
    kind, path = str(plugin["type"]), str(entry["path"])
    environment = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": str(entry["container"]),
        "CNI_NETNS": sandbox,
        "CNI_IFNAME": str(entry["interface"]),
        "CNI_PATH": path,
        "CNI_ARGS": "IgnoreUnknown=1",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    }
    try:
        done = subprocess.run(
            [_program(kind, path)],
            input=json.dumps(request).encode(),
            capture_output=True,
            env=environment,
            cwd="/",
            timeout=TIMEOUT,
            check=False,
        )
    except OSError as error:
        raise StartFailed(f"cannot run CNI plugin {kind}: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise StartFailed(f"CNI plugin {kind} took longer than {TIMEOUT:g} seconds") from error
    if done.returncode:
        reason = cniconfig.failure(done.stdout or done.stderr, done.returncode)
        raise StartFailed(f"CNI plugin {kind} failed ({command}): {reason}")
    if not done.stdout.strip():
        return None
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        raise StartFailed(f"CNI plugin {kind} told no JSON") from error
    return result if isinstance(result, dict) else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidParameter(f"CNI configuration {path}: {error.strerror}") from error
