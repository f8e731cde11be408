"""The networks service: rows of networks and endpoints, performed by network drivers."""

from __future__ import annotations

import asyncio
import builtins
from collections.abc import Callable
from contextlib import AsyncExitStack

import msgspec

from sampan.engine import clock, ending, naming, networkspec, rerouting
from sampan.engine.core import Core, update_record
from sampan.engine.endpointwishes import free_name
from sampan.engine.fabric import PREDEFINED, Network, Plug, check_usable
from sampan.engine.filters import boolean, check_filters, match_labels, match_pattern, until
from sampan.engine.networkrecord import NetworkRecord
from sampan.engine.options import Filters
from sampan.engine.table import Container
from sampan.errors import Conflict, Forbidden, InvalidParameter, NotFound, SampanError
from sampan.network import ipam
from sampan.network.hostroutes import used_networks
from sampan.network.remoteipam import HeldPool
from sampan.wire.container import EndpointSettings
from sampan.wire.network import (
    ConfigReference,
    EndpointResource,
    IPAMStatus,
    NetworkConnectRequest,
    NetworkCreateRequest,
    NetworkCreateResponse,
    NetworkDisconnectRequest,
    NetworkInspect,
    NetworksPruneReport,
    NetworkStatus,
    NetworkSummary,
    SubnetStatus,
)

_LIST_KEYS = ("dangling", "driver", "id", "label", "label!", "name", "scope", "type")


class Networks:
    """Networks of one engine. ``ref`` is a name, an id or a unique id prefix."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._creating = asyncio.Lock()

    async def list(self, filters: Filters | None = None) -> list[NetworkSummary]:
        """Networks that match."""
        checked = check_filters(filters, _LIST_KEYS)
        return [
            networkspec.summary(network.record)
            for network in self._core.fabric.networks.values()
            if self._matches(network, checked)
        ]

    def _matches(self, network: Network, filters: Filters) -> bool:
        record = network.record
        for value in filters.get("type", ()):
            if value not in ("builtin", "custom"):
                raise InvalidParameter(f"invalid filter: 'type'='{value}'")
        builtin = record.name in PREDEFINED
        dangling = boolean(filters, "dangling")
        tests: tuple[tuple[str, Callable[[str], bool]], ...] = (
            ("driver", lambda value: record.driver == value),
            ("id", lambda value: record.id.startswith(value)),
            ("scope", lambda value: value == "local"),
            ("type", lambda value: builtin == (value == "builtin")),
        )
        return (
            all(
                any(test(value) for value in filters[key])
                for key, test in tests
                if filters.get(key)
            )
            and match_pattern(filters.get("name", ()), record.name)
            and (dangling is None or dangling == (not builtin and not self._users(network)))
            and match_labels(record.labels, filters)
        )

    async def inspect(self, ref: str, *, verbose: bool = False, scope: str = "") -> NetworkInspect:
        """A network and the containers on it."""
        network = self._core.fabric.find(ref)
        if scope and scope != "local":
            raise NotFound(f"network {ref} not found")
        containers = {
            container.id: _resource(container, plug)
            for container in self._core.containers
            if (plug := container.endpoints.get(network.id)) is not None
        }
        shown = networkspec.summary(network.record)
        fields = {name: getattr(shown, name) for name in shown.__struct_fields__}
        return NetworkInspect(
            **fields,
            containers=containers,
            services={} if verbose else None,
            status=self._status(network),
        )

    def _status(self, network: Network) -> NetworkStatus:
        leased = self._core.fabric.leases(network)
        return NetworkStatus(
            ipam=IPAMStatus(
                subnets={
                    str(subnet.prefix): SubnetStatus(
                        i_ps_in_use=(used := sum(1 for a in leased if a in subnet.prefix)),
                        dynamic_i_ps_available=max(0, ipam.usable(subnet) - used),
                    )
                    for subnet in network.spec.subnets
                }
            )
        )

    async def create(self, body: NetworkCreateRequest) -> NetworkCreateResponse:
        """Create a network; Conflict when the name is taken, Forbidden on overlapping pools."""
        name = body.name or ""
        if not name.strip():
            raise InvalidParameter("invalid name: name is empty")
        async with self._creating:
            if name in (*PREDEFINED, "default"):
                raise Forbidden(f"operation is not permitted on predefined {name} network")
            if any(network.name == name for network in self._core.fabric.networks.values()):
                raise Conflict(f"network with name {name} already exists")
            if body.driver in ("host", "null") and not body.config_only:
                raise Forbidden(f'only one instance of "{body.driver}" network is allowed')
            return NetworkCreateResponse(id=await self._create(body), warning="")

    async def _create(self, body: NetworkCreateRequest) -> str:
        core = self._core
        if body.config_from is not None:
            body = networkspec.configured(body, self._configuration(body.config_from))
        else:
            body = networkspec.with_defaults(body, core.config)
        taken = await core.threads.run(used_networks)
        own = [s.prefix for n in core.fabric.networks.values() for s in n.spec.subnets]
        async with AsyncExitStack() as undo:
            pools = await self._request_pools(body, undo)
            record = networkspec.complete(
                body, core.new_id(), clock.now(), core.config, [*own, *taken], own, pools
            )
            network = Network(record=record, spec=networkspec.spec(record, core.config))
            if network.plugged:
                driver = await core.threads.run(core.fabric.drivers.find, record.driver)
                await core.threads.run(driver.ensure, network.spec)
                undo.push_async_callback(core.threads.run, driver.remove, network.spec)
            await core.state.write(insert_network(record))
            undo.pop_all()
        core.fabric.add(network)
        self._publish(network, "create")
        return record.id

    def _configuration(self, reference: ConfigReference) -> NetworkRecord:
        """The configuration-only network another is made from."""
        found = self._core.fabric.find(reference.network or "").record
        if not found.config_only:
            raise InvalidParameter(f"network {found.name} is not a configuration-only network")
        return found

    async def _request_pools(
        self, body: NetworkCreateRequest, undo: AsyncExitStack
    ) -> tuple[HeldPool, ...] | None:
        """The pools of a plugin that is to manage the addresses; None when we manage them."""
        core = self._core
        driver = (body.ipam.driver if body.ipam is not None else "") or "default"
        if driver in ("default", "null") or body.config_only:
            return None
        requests = networkspec.pool_requests(body)
        options = (body.ipam.options if body.ipam is not None else None) or {}
        addresses = core.fabric.addresses
        pools = await core.threads.run(addresses.request_pools, driver, options, requests)
        for pool in pools:
            undo.push_async_callback(core.threads.run, addresses.release_pool, driver, pool)
        return pools

    def _publish(self, network: Network, action: str, **attributes: str) -> None:
        shown = {"name": network.name, "type": network.record.driver, **attributes}
        self._core.events.publish("network", action, network.id, shown)

    async def remove(self, ref: str) -> None:
        """Remove a network; Forbidden when predefined or in use."""
        network = self._core.fabric.find(ref)
        if network.name in PREDEFINED:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        for other in self._core.fabric.networks.values():
            reference = other.record.config_from
            if reference is not None and reference.network in (network.name, network.id):
                raise Forbidden(f"configuration network {network.name} is in use by {other.name}")
        for container in self._plugged(network):
            await ending.settled(self._core, container)
        if network.leaving:
            await asyncio.wait(set(network.leaving))
        if self._plugged(network):
            raise Forbidden(
                f"error while removing network: network {network.name} has active endpoints "
                f"({', '.join(self._endpoint_names(network))})"
            )
        await self._remove(network)

    def _plugged(self, network: Network) -> builtins.list[Container]:
        return [c for c in self._core.containers if network.id in c.endpoints]

    def _endpoint_names(self, network: Network) -> builtins.list[str]:
        held = [(c.name, c.endpoints[network.id].endpoint) for c in self._plugged(network)]
        return [f'name:"{name}" id:"{endpoint.endpoint_id[:12]}"' for name, endpoint in held]

    async def _remove(self, network: Network) -> None:
        core = self._core
        if network.plugged:  # a plugin that is not there could not end it
            await core.threads.run(core.fabric.drivers.find, network.record.driver)
        await core.state.write(("DELETE FROM networks WHERE id = ?", (network.id,)))
        core.fabric.discard(network)
        await core.threads.run(self._take_down, network)
        self._publish(network, "destroy")

    def _take_down(self, network: Network) -> None:
        """End a network whose row is gone. Blocks."""
        fabric = self._core.fabric
        if network.plugged:
            fabric.drivers.find(network.record.driver).remove(network.spec)
        for subnet in network.spec.subnets if network.ipam_driver else ():
            pool = HeldPool(id=network.record.pools.get(str(subnet.prefix), ""), subnet=subnet)
            fabric.addresses.release_pool(network.ipam_driver, pool)

    async def connect(self, ref: str, body: NetworkConnectRequest) -> None:
        """Connect a container, live when it runs."""
        core = self._core
        container = core.containers.find(body.container or "")
        network = core.fabric.find(ref)
        settings = body.endpoint_config or EndpointSettings()
        config, host = container.record.config, container.record.host_config
        if config.mac_address and host.network_mode in (network.name, network.id):
            # the address clients before API 1.52 gave the container, not the endpoint
            mac = settings.mac_address or config.mac_address
            settings = msgspec.structs.replace(settings, mac_address=mac)
        async with container.lock:
            self._check_connectable(network, container)
            if container.live is not None and network.plugged:
                await self._plug(network, container, settings)
            networks = {**container.record.networks, network.name: settings}
            if container.live is None and set(networks) == {"none", network.name}:
                del networks["none"]
            container.record = msgspec.structs.replace(container.record, networks=networks)
            await core.state.write(update_record(container))
        self._publish(network, "connect", container=container.id)

    def _check_connectable(self, network: Network, container: Container) -> None:
        check_usable(network)
        mode = container.record.host_config.network_mode or ""
        if container.live is not None and "none" in (network.name, *container.record.networks):
            raise Forbidden(
                "container cannot be connected to multiple networks with one of the networks in "
                "private (none) mode"
            )
        if network.name == "host":
            raise InvalidParameter(
                "cannot connect container to host network - container must be created in host "
                "network mode"
            )
        if mode == "host":
            raise Forbidden(
                "container sharing network namespace with the host cannot be connected to any "
                "other network"
            )
        if mode.startswith(("container:", "ns:")):
            raise Forbidden(
                "container sharing network namespace with another container or host cannot be "
                "connected to any other network"
            )
        known = container.record.networks
        if network.name in known or network.id in known:
            raise Forbidden(
                f"endpoint with name {container.name} already exists in network {network.name}"
            )

    async def _plug(
        self, network: Network, container: Container, settings: EndpointSettings
    ) -> None:
        """Make one more endpoint for a running container."""
        core = self._core
        used = {plug.endpoint.interface for plug in container.endpoints.values()}
        interface = free_name(network.spec.container_interface_prefix, used)
        plug = core.fabric.lease(container, network, settings, interface)
        before = list(container.endpoints.values())
        try:
            *others, done = await core.threads.run(
                rerouting.join, core.fabric, container.record, before, plug, container.state.pid
            )
            await core.state.write(
                *core.fabric.update_endpoints(others),
                *core.fabric.insert_endpoints(container.id, [done]),
            )
        except SampanError:
            core.fabric.release([plug])
            raise
        container.endpoints.update({other.network.id: other for other in (*others, done)})
        core.fabric.hold(done)
        core.fabric.enter(container, [done])
        await self._serve_names(container)

    async def _serve_names(self, container: Container) -> None:
        """The container's networks changed while it runs: so does what its resolver knows."""
        core = self._core
        plugs = list(container.endpoints.values())
        names = naming.name_files(core, container, plugs)
        if names.resolver is not None:
            await core.threads.run(
                core.fabric.resolve_for, container.id, container.state.pid, names.resolver
            )
        else:
            core.fabric.resolver.unplug(container.id)
        await core.threads.run(names.write, core.directory(container.id))

    async def disconnect(self, ref: str, body: NetworkDisconnectRequest) -> None:
        """Disconnect a container, live when it runs."""
        core = self._core
        container = core.containers.find(body.container or "")
        try:
            network = core.fabric.find(ref)
        except NotFound:
            if not body.force or ref not in container.record.networks:
                raise
            await self._forget(container, ref)  # it was removed while the container did not run
            return
        if (container.record.host_config.network_mode or "") == "host":
            raise Forbidden(
                "cannot disconnect container from host network - container was created in host "
                "network mode"
            )
        async with container.lock:
            known = container.record.networks
            if network.name not in known and network.id not in known:
                raise Forbidden(
                    f"container {container.id} is not connected to network {network.name}"
                )
            networks = {k: v for k, v in known.items() if k not in (network.name, network.id)}
            container.record = msgspec.structs.replace(container.record, networks=networks)
            plug = container.endpoints.pop(network.id, None)
            statements = [update_record(container)]
            if plug is not None:
                statements += core.fabric.delete_endpoints([plug])
                core.fabric.leave(container.id, [plug])
            try:
                await core.state.write(*statements)
                if plug is not None and container.live is not None:
                    await self._unplug(container, plug)
            finally:
                if plug is not None:
                    core.fabric.release([plug])
        self._publish(network, "disconnect", container=container.id)

    async def _forget(self, container: Container, name: str) -> None:
        """Take a network that is gone off a container."""
        async with container.lock:
            networks = {k: v for k, v in container.record.networks.items() if k != name}
            container.record = msgspec.structs.replace(container.record, networks=networks)
            await self._core.state.write(update_record(container))

    async def _unplug(self, container: Container, plug: Plug) -> None:
        """End an endpoint of a running container."""
        core = self._core
        before = list(container.endpoints.values())
        rest = await core.threads.run(
            rerouting.leave, core.fabric, container.record, plug, before, container.state.pid
        )
        container.endpoints.update({other.network.id: other for other in rest})
        await core.state.write(*core.fabric.update_endpoints(rest))
        await self._serve_names(container)

    async def prune(self, filters: Filters | None = None) -> NetworksPruneReport:
        """Remove networks no container uses."""
        checked = check_filters(filters, ("until", "label", "label!"))
        limit = until(checked, clock.now() / 1e9)
        deleted: builtins.list[str] = []
        for network in tuple(self._core.fabric.networks.values()):
            record = network.record
            if (
                record.name in PREDEFINED
                or self._users(network)
                or (limit is not None and record.created / 1e9 > limit)
                or not match_labels(record.labels, checked)
            ):
                continue
            await self._remove(network)
            deleted.append(record.name)
        self._core.events.publish("network", "prune", "", {"reclaimed": "0"})
        return NetworksPruneReport(networks_deleted=deleted or None)

    def _users(self, network: Network) -> builtins.list[Container]:
        """Containers that name the network, running or not."""
        return [
            container
            for container in self._core.containers
            if {network.name, network.id} & container.record.networks.keys()
        ]


def insert_network(record: NetworkRecord) -> tuple[str, tuple[str, str, bytes]]:
    """The row of a network."""
    return (
        "INSERT INTO networks (id, name, document) VALUES (?, ?, ?)",
        (record.id, record.name, msgspec.json.encode(record)),
    )


def _resource(container: Container, plug: Plug) -> EndpointResource:
    endpoint = plug.endpoint
    return EndpointResource(
        name=container.name,
        endpoint_id=endpoint.endpoint_id,
        mac_address=endpoint.mac,
        ipv4_address=str(endpoint.ipv4) if endpoint.ipv4 is not None else "",
        ipv6_address=str(endpoint.ipv6) if endpoint.ipv6 is not None else "",
    )
