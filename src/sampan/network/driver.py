"""What the engine asks of a network driver.

The story of one network: ``ensure`` makes it (again, harmlessly, at any later time);
``attach`` connects a container's network namespace to it and publishes its ports; ``publish``
changes which these are; ``detach`` undoes all that, whether the namespace still exists or not;
``remove`` ends the network. After a restart of the daemon one ``converge`` with all that should
exist repairs whatever differs.

Every method blocks (call it from a worker thread), may be called from several threads, and
raises only :mod:`sampan.errors`. A method that fails has undone what it did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sampan.network.model import (
    EndpointSpec,
    EndpointStatus,
    NetworkSpec,
    Observation,
    PortBinding,
)


class Driver(Protocol):
    """One way of making networks."""

    def ensure(self, spec: NetworkSpec) -> None:
        """Make the network exist as ``spec`` says. Idempotent.

        Raises :class:`Conflict` when an interface of that name is not ours or an address is
        taken, :class:`Unsupported` when the kernel lacks what the driver needs.
        """
        ...

    def attach(self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int) -> EndpointStatus:
        """Connect the network namespace ``netns_fd`` (not consumed) and publish its ports.

        The interface is up, with addresses and routes, when this returns. Raises
        :class:`Conflict` ("Bind for 0.0.0.0:80 failed: port is already allocated") when a host
        port is taken.
        """
        ...

    def publish(self, spec: NetworkSpec, endpoint: EndpointSpec) -> tuple[PortBinding, ...]:
        """Publish ``endpoint.ports`` of an attached endpoint in place of those it had, which may be
        all or none; returns them with their definite host ports.

        Raises as :meth:`attach`, and leaves none published then.
        """
        ...

    def detach(
        self, spec: NetworkSpec, endpoint: EndpointSpec, netns_fd: int | None = None
    ) -> None:
        """Undo :meth:`attach`; idempotent; ``netns_fd`` ``None`` when the namespace is gone."""
        ...

    def remove(self, spec: NetworkSpec) -> None:
        """End the network. Idempotent. Endpoints must have been detached."""
        ...

    def observe(self) -> Observation:
        """What exists now."""
        ...

    def converge(
        self, desired: Sequence[tuple[NetworkSpec, Sequence[EndpointSpec]]]
    ) -> tuple[str, ...]:
        """Make the host side match ``desired``: networks, published ports and their
        reservations, rules; remove what is ours and not desired. Endpoints' namespaces are not
        touched. Returns endpoint ids that could not be kept (their host interface is gone or a
        port was taken meanwhile)."""
        ...
