"""Networks that make nothing on the host: the ``host``, ``none`` and ``ns`` drivers.

Which namespace the container runs in is in its runtime spec (``ns``: the path; ``host``: none of
its own); these drivers only do what is left to do inside.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from sampan.errors import InvalidParameter
from sampan.network import interface
from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    NetworkSpec,
    Observation,
    PortBinding,
)


class PassiveDriver:
    """``host``, ``none`` or ``ns``; implements :class:`sampan.network.driver.Driver`."""

    def __init__(self, name: str) -> None:
        """``name``: the driver's."""
        self._name = name

    def close(self) -> None:
        """Nothing is held."""

    def ensure(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.ensure`: the namespace of ``ns`` must be there."""
        if self._name == "ns":
            try:
                os.stat(spec.path)
            except OSError as error:
                raise InvalidParameter(
                    f"network namespace {spec.path} of network {spec.name}: {error.strerror}"
                ) from error

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """See :meth:`Driver.attach`: ``none`` brings loopback up, the others find everything
        done by whoever owns the namespace."""
        if self._name == "none":
            interface.loopback_up(netns_fd)
        return EndpointStatus(interface="", mac="")

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """See :meth:`Driver.publish`: nothing is published."""
        return ()

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """See :meth:`Driver.detach`: nothing."""

    def remove(self, spec: NetworkSpec) -> None:
        """See :meth:`Driver.remove`: nothing."""

    def observe(self) -> Observation:
        """See :meth:`Driver.observe`: nothing is ours."""
        return Observation()

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """See :meth:`Driver.converge`: nothing to put right."""
        return ()
