"""Addresses of a plugin: libnetwork's remote IPAM protocol (``IpamDriver.*``).

A network's pools and gateways are asked for when it is made, an endpoint's addresses when it is
attached. The plugin remembers; we remember what to give back.
"""

from __future__ import annotations

import contextlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from sampan.errors import InvalidParameter, SampanError
from sampan.network import ipam
from sampan.network.journal import Journal
from sampan.network.model import IPAddress, IPInterface, Subnet
from sampan.plugin.client import Answer, Plugins

INTERFACE = "IpamDriver"
_KIND = "RequestAddressType"
_GATEWAY = "com.docker.network.gateway"
_MAC = "com.docker.network.endpoint.macaddress"


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRequest:
    """One pool asked for: ``subnet`` and ``ip_range`` "" let the plugin choose."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: Mapping[str, str]
    ipv6: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldPool:
    """A pool a plugin gave: its id there, and the subnet."""

    id: str
    subnet: Subnet


class RemoteAddresses:
    """Address management by plugins. Methods block."""

    def __init__(self, plugins: Plugins, journal: Journal) -> None:
        """``journal`` notes what endpoints hold."""
        self._plugins = plugins
        self._journal = journal

    def request_pools(
        self, driver: str, options: Mapping[str, str], requests: Sequence[PoolRequest]
    ) -> tuple[HeldPool, ...]:
        """All pools of a new network with their gateways, or none."""
        held: list[HeldPool] = []
        with contextlib.ExitStack() as undo:
            space = self._space(driver)
            for request in requests:
                answer = self._call(
                    driver,
                    "RequestPool",
                    AddressSpace=space,
                    Pool=request.subnet,
                    SubPool=request.ip_range,
                    Options=dict(options),
                    V6=request.ipv6,
                )
                pool_id = str(answer.get("PoolID") or "")
                undo.callback(self._quietly, driver, "ReleasePool", PoolID=pool_id)
                prefix = ipam.parse_network(str(answer.get("Pool") or ""))
                gateway = self._gateway(driver, pool_id, request.gateway, undo)
                held.append(
                    HeldPool(
                        id=pool_id,
                        subnet=Subnet(
                            prefix=prefix,
                            gateway=gateway,
                            ip_range=ipam.parse_network(request.ip_range)
                            if request.ip_range
                            else None,
                            auxiliary=self._auxiliary(driver, pool_id, request.auxiliary, undo),
                        ),
                    )
                )
            undo.pop_all()
        return tuple(held)

    def _gateway(
        self, driver: str, pool_id: str, wanted: str, undo: contextlib.ExitStack
    ) -> IPAddress:
        options = {_KIND: _GATEWAY}
        address = self.request_address(driver, pool_id, wanted, options)
        undo.callback(self.release_address, driver, pool_id, address.ip)
        return address.ip

    def _auxiliary(
        self,
        driver: str,
        pool_id: str,
        wanted: Mapping[str, str],
        undo: contextlib.ExitStack,
    ) -> dict[str, IPAddress]:
        found = {}
        for name, text in wanted.items():
            address = self.request_address(driver, pool_id, text, {})
            undo.callback(self.release_address, driver, pool_id, address.ip)
            found[name] = address.ip
        return found

    def release_pool(self, driver: str, held: HeldPool) -> None:
        """Give a removed network's pool back, its gateway first."""
        addresses = [held.subnet.gateway, *held.subnet.auxiliary.values()]
        for address in addresses:
            if address is not None:
                self.release_address(driver, held.id, address)
        self._quietly(driver, "ReleasePool", PoolID=held.id)

    def request_address(
        self, driver: str, pool_id: str, wanted: str, options: Mapping[str, str]
    ) -> IPInterface:
        """One address of a pool, ``wanted`` if that is not ""."""
        answer = self._call(
            driver, "RequestAddress", PoolID=pool_id, Address=wanted, Options=dict(options)
        )
        text = str(answer.get("Address") or "")
        try:
            return ip_interface(text)
        except ValueError as error:
            raise SampanError(f"IPAM driver {driver} told an invalid address {text!r}") from error

    def request_endpoint(
        self, endpoint_id: str, driver: str, wanted: Sequence[tuple[str, str]], mac: str
    ) -> tuple[IPInterface, ...]:
        """An endpoint's addresses: of each pool (its id) the address asked for, or any ("").

        The plugin is told the MAC address when there is one. Undone by :meth:`release_endpoint`.
        """
        held: list[IPInterface] = []
        try:
            for pool_id, text in wanted:
                held.append(self.request_address(driver, pool_id, text, {_MAC: mac} if mac else {}))
                pools = [pool for pool, _ in wanted[: len(held)]]
                addresses = [str(address.ip) for address in held]
                entry = {"driver": driver, "pools": pools, "addresses": addresses}
                self._journal.write(endpoint_id, entry)
        except BaseException:
            self.release_endpoint(endpoint_id)
            raise
        return tuple(held)

    def release_endpoint(self, endpoint_id: str) -> None:
        """Give back what an endpoint holds. Idempotent."""
        entry = self._journal.read(endpoint_id)
        if entry is None:
            return
        pools, addresses = entry.get("pools"), entry.get("addresses")
        if isinstance(pools, list) and isinstance(addresses, list):
            for pool_id, text in zip(pools, addresses, strict=False):
                address = ipam.parse_address(str(text))
                self.release_address(str(entry.get("driver")), str(pool_id), address)
        self._journal.remove(endpoint_id)

    def sweep(self, endpoints: Container[str]) -> None:
        """Give back what is held for endpoints that are over."""
        for endpoint_id in self._journal.list():
            if endpoint_id not in endpoints:
                self.release_endpoint(endpoint_id)

    def release_address(self, driver: str, pool_id: str, address: IPAddress) -> None:
        """Give an address back; a plugin that refuses has it back already."""
        self._quietly(driver, "ReleaseAddress", PoolID=pool_id, Address=str(address))

    def _space(self, driver: str) -> str:
        answer = self._call(driver, "GetDefaultAddressSpaces")
        space = answer.get("LocalDefaultAddressSpace")
        if not isinstance(space, str) or not space:
            raise InvalidParameter(f"IPAM driver {driver} told no address space")
        return space

    def _call(self, driver: str, method: str, **body: object) -> Answer:
        plugin = self._plugins.find(driver, INTERFACE)
        try:
            return plugin.call(f"{INTERFACE}.{method}", body)
        except SampanError as error:
            raise type(error)(f"IPAM driver {driver}: {error.message}") from error

    def _quietly(self, driver: str, method: str, **body: object) -> None:
        with contextlib.suppress(SampanError):
            self._call(driver, method, **body)
