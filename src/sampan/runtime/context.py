"""What operations share while one plan is performed, and how they fail."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, field
from typing import TypeAlias

from sampan.kernel.seccomp import Filter
from sampan.runtime.channel import Message, receive
from sampan.runtime.identity import ROOT, Identity

#: kind, source, options and MOUNT_ATTR_* flags of a new file system
Source: TypeAlias = tuple[str, str, tuple[tuple[str, str | None], ...], int]


class Refused(Exception):
    """An operation failed for a reason that is one sentence, not an errno.

    ``kind``: ``failed``, ``not-found`` (the program, exit code 127) or ``not-executable`` (126).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


class Abandoned(Exception):
    """The process at the other end of the channel is gone: end without a word."""


@dataclass(slots=True, kw_only=True)
class Context:
    """State of one performer: init, or the runtime's side of it.

    ``channel``: to the other side. ``slots``: descriptors by the name operations gave them.
    ``root``: the new root, -1 before it is attached. ``terminal``: the process's terminal, -1
    without. ``pid``, ``userns``: on the runtime's side, init's pid and user namespace.
    ``new``: CLONE_NEW* flags of the plan; ``join``: namespaces init joins; ``into``: (a pidfd,
    flags) of a container it joins. ``remapped``: it is in a user namespace of the container, whose
    root it becomes; ``mapped``: the id maps are there; ``dumpable``: files in /proc stay its
    user's until they are, who writes them without being root. ``cgroups_expected``: files to join
    cgroups by come over the channel; ``cgroups_done``: it is in them. ``preserve``: descriptors
    from 3 on left to the program. ``program``, ``environment``: what will be executed, once it is
    found.
    ``apart``: CLONE_NEW* flags init was not born with, and takes when it enters. ``listener``:
    where a waiting init is started from when there is no monitor. ``premade``: detached mounts of
    new file systems by what they were made from (``mount_operations.file_system``). ``parked``:
    slots whose mount is to be made anew when its turn comes; ``parking``: something is mounted
    between the old root and the new. ``blank``: a mount namespace to move to before the root is
    attached (:mod:`sampan.runtime.blank`), -1 for none; ``bare``: we have. ``stands_in``: we are
    not to become the program, but to spawn it (:mod:`sampan.runtime.standin`).
    """

    channel: socket.socket
    slots: dict[str, int] = field(default_factory=dict)
    root: int = -1
    terminal: int = -1
    pid: int = 0
    userns: int = -1
    new: int = 0
    join: tuple[tuple[int, str], ...] = ()
    into: tuple[int, int] | None = None
    remapped: bool = False
    mapped: bool = True
    dumpable: bool = False
    transferred: bool = False
    cgroups_expected: bool = False
    cgroups_done: bool = False
    filter: Filter | None = None
    identity: Identity = ROOT
    late_directory: str = ""
    program: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    preserve: int = 0
    listener: socket.socket | None = None
    apart: int = 0
    premade: dict[Source, int] = field(default_factory=dict)
    parked: set[str] = field(default_factory=set)
    parking: bool = False
    blank: int = -1
    bare: bool = False
    stands_in: bool = False
    warnings: list[str] = field(default_factory=list)

    def take(self, slot: str) -> int:
        """The descriptor in ``slot``; a plan that names an empty one is a bug."""
        return self.slots[slot]

    def store(self, slot: str, fd: int) -> None:
        """Keep ``fd`` under a name until the plan is done."""
        old = self.slots.pop(slot, -1)
        if old >= 0:
            os.close(old)
        self.slots[slot] = fd

    def expect(self, kind: str) -> tuple[Message, list[int]]:
        """Wait for the other side's message ``kind``; raises :class:`Abandoned` at its end."""
        message, fds = receive(self.channel)
        if message is None or message.get("kind") != kind:
            raise Abandoned(kind)
        return message, fds
