"""Network devices of the runtime's namespace that become a container's (config-linux.md "Network
Devices").

Performed by the runtime's side once the container's namespace exists. What a device had stays: its
MTU and MAC by themselves, its lasting addresses because they are given to it again. The device
belongs to the namespace from then on: it is not fetched back (the specification forbids it), the
kernel returns a physical one when the namespace ends and ends a virtual one with it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sampan.errors import InvalidParameter
from sampan.kernel.namespaces import CLONE_NEWNET
from sampan.runtime.context import Context
from sampan.runtime.operation import Operation, operation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.kernel.netlink import NetlinkSocket
    from sampan.kernel.rtdump import Link
    from sampan.model import oci

_LONGEST = 15  # IFNAMSIZ, less the NUL
_TEMPLATE = "%d"


def plan(
    devices: Mapping[str, oci.NetDevice], new: int, join: Sequence[tuple[int, str]]
) -> list[Operation]:
    """Operations that move ``devices`` (pure); ``new`` and ``join`` as in a plan.

    Raises :class:`InvalidParameter`.
    """
    netns = next((path for flag, path in join if flag == CLONE_NEWNET), "")
    if not netns and not new & CLONE_NEWNET:
        raise InvalidParameter("linux.netDevices: no network namespace of its own")
    steps, taken = [], set[str]()
    for name, device in devices.items():
        inside = device.get("name") or name
        _check_name(name, template=False)
        _check_name(inside, template=True)
        if inside in taken and _TEMPLATE not in inside:
            raise InvalidParameter(f"linux.netDevices: two devices would be called {inside}")
        taken.add(inside)
        steps.append(operation("net_device", name=name, inside=inside, netns=netns))
    return steps


def _check_name(name: str, *, template: bool) -> None:
    """What the kernel takes as one (dev_valid_name), and one "%d" where it may choose."""
    rest = name.replace(_TEMPLATE, "", 1) if template else name
    bad = not name or name in (".", "..") or len(name.encode()) > _LONGEST
    if bad or any(c in "/:%" or c.isspace() for c in rest):
        raise InvalidParameter(f"linux.netDevices: {name!r} is no name of a network device")


def move(context: Context, *, name: str, inside: str, netns: str) -> None:
    """Move the device ``name`` and call it ``inside``; on failure it is where and as it was.

    Raises :class:`OSError`.
    """
    # Loaded when it is needed: few containers have such devices.
    from sampan.kernel import netns as namespace
    from sampan.kernel import rtdump
    from sampan.kernel.netlink import NETLINK_ROUTE, NetlinkSocket
    from sampan.kernel.rtnetlink import LinkOptions, address_again, link_set

    home = namespace.current()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, home)
        target = namespace.open_path(netns or f"/proc/{context.pid}/ns/net")
        stack.callback(os.close, target)
        here = stack.enter_context(NetlinkSocket())
        family = (16, 3, NETLINK_ROUTE)  # AF_NETLINK, SOCK_RAW
        there = stack.enter_context(NetlinkSocket(sock=namespace.open_socket(target, *family)))
        found = rtdump.link(here, name)
        if found is None:
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), name)
        before = rtdump.links(there)
        if inside in (link.name for link in before):
            raise OSError(errno.EEXIST, "the container has a device of that name", inside)
        move = _Move(here, there, found, {link.index for link in before})
        addresses = rtdump.lasting_addresses(here, found.index)
        try:
            # The name counts as a second choice while it moves, and is its name then.
            there_named = LinkOptions(netns_fd=target, name=inside)
            here.request([link_set(options=there_named, index=found.index)])
            index = move.index()
            again = [address_again(index, body) for body in addresses]
            there.request([*again, link_set(options=LinkOptions(up=True), index=index)])
        except OSError:
            move.undo(home, addresses)
            raise


@dataclass(frozen=True, slots=True)
class _Move:
    """The link ``found`` on its way from ``here`` to ``there``, where links ``before`` were."""

    here: NetlinkSocket
    there: NetlinkSocket
    found: Link
    before: set[int]

    def index(self) -> int:
        """Its index there. Raises :class:`OSError` when it is not."""
        from sampan.kernel import rtdump

        for link in rtdump.links(self.there):
            if link.index not in self.before and link.mac == self.found.mac:
                return link.index
        raise OSError(errno.ENODEV, "it vanished while it was moved", self.found.name)

    def undo(self, home: int, addresses: Sequence[bytes]) -> None:
        """Back home, if it has left, with what it had; as far as the kernel lets us."""
        from sampan.kernel import rtdump
        from sampan.kernel.rtnetlink import LinkOptions, address_again, link_set

        with contextlib.suppress(OSError):
            back = LinkOptions(netns_fd=home, name=self.found.name)
            self.there.request([link_set(options=back, index=self.index())])
            link = rtdump.link(self.here, self.found.name)
            if link is not None:
                again = [address_again(link.index, body) for body in addresses]
                up = link_set(options=LinkOptions(up=self.found.up), index=link.index)
                self.here.request([*again, up])
