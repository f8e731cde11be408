"""The closed table of operations, and how a list of them is performed.

Nothing else can be asked of the process that performs a plan: a name that is not here is a bug in
the planner, and stops. Each entry says why it is safe to perform in init, where the root may be
hostile: it takes destinations by descriptor below the root, sources from the host before the root
has changed, and loads nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from types import MappingProxyType

from sampan.runtime import device_operations as nodes
from sampan.runtime import hide_operations as hidden
from sampan.runtime import mount_operations as mounts
from sampan.runtime import net_devices
from sampan.runtime import process_operations as processes
from sampan.runtime import program_operations as programs
from sampan.runtime.context import Context
from sampan.runtime.operation import Operation


class Failure(Exception):
    """An operation failed: its name, errno, strerror and the object it was about."""

    def __init__(self, name: str, code: int, reason: str, path: str) -> None:
        super().__init__(name, code, reason, path)
        self.name = name
        self.code = code
        self.reason = reason
        self.path = path


#: name -> (function, what it does in an error message)
TABLE: MappingProxyType[str, tuple[Callable[..., None], str]] = MappingProxyType(
    {
        # runtime's side or init: mounts are made without being visible anywhere
        "overlay": (mounts.overlay, "mounting the layers"),
        "filesystem": (mounts.filesystem, "mounting"),
        "clone_tree": (mounts.clone_tree, "binding"),
        "attributes": (mounts.attributes, "setting mount options"),
        "clone_within": (mounts.clone_within, "binding"),
        "idmap": (mounts.idmap, "mapping the owners of"),
        # runtime's side only
        "net_device": (net_devices.move, "moving the network device"),
        "oom_score_adj": (processes.oom_score_adj, "setting"),
        # init, before the root changes
        "enter": (processes.enter, "entering namespaces"),
        "await_cgroups": (processes.await_cgroups, "joining the cgroup"),
        "host_propagation": (mounts.host_propagation, "detaching from the host's mounts"),
        "attach_root": (mounts.attach_root, "mounting the root"),
        "attach": (mounts.attach, "mounting at"),
        "propagation": (mounts.propagation, "setting the propagation"),
        "tmpfs_over": (mounts.tmpfs_over, "mounting"),
        "copy_up": (mounts.copy_up, "copying"),
        "remount": (mounts.remount, "remounting"),
        "devices": (nodes.devices, "making the device"),
        "attach_within": (mounts.attach_within, "mounting at"),
        "device_links": (nodes.device_links, "making links in /dev"),
        "symlinks": (nodes.symlinks, "making links"),
        "console": (mounts.console, "making the terminal"),
        "mask": (hidden.mask, "masking"),
        "protect": (hidden.protect, "making read-only"),
        "make_directory": (mounts.make_directory, "making the directory"),
        "readonly_root": (mounts.readonly_root, "making the root read-only"),
        "hostname": (processes.hostname, "setting the host name"),
        "affinity": (processes.affinity, "setting the CPU affinity"),
        "domainname": (processes.domainname, "setting the domain name"),
        "sysctls": (processes.sysctls, "setting the kernel parameter"),
        "runtime_hooks": (processes.runtime_hooks, "running hooks"),
        "hook": (processes.hook, "running a hook"),
        "pivot": (mounts.pivot, "changing the root"),
        "change_root": (mounts.change_root, "changing the root to"),
        # init, inside the container's root: nothing from here on trusts a path of it
        "root_propagation": (mounts.root_propagation, "setting the root's propagation"),
        "find_program": (programs.find_program, "looking for the program"),
        "session": (processes.session, "making a session"),
        "controlling_terminal": (processes.controlling_terminal, "taking the terminal"),
        "keyring": (processes.keyring, "making a keyring"),
        "personality": (processes.personality, "setting the personality"),
        "memory_policy": (processes.memory_policy, "setting the memory policy"),
        "scheduler": (processes.scheduler, "setting the scheduler"),
        "io_priority": (processes.io_priority, "setting the I/O priority"),
        "identify": (processes.identify, "reading users and groups"),
        "own_streams": (processes.own_streams, "handing over standard streams"),
        "enter_directory": (processes.enter_directory, "changing to the directory"),
        "label": (processes.label, "applying the security label"),
        "seccomp": (processes.seccomp_filter, "installing the seccomp filter"),
        "bounding": (processes.bounding, "dropping capabilities"),
        "become": (processes.become, "changing the user"),
        "capabilities": (processes.capabilities, "setting capabilities"),
        "umask": (processes.umask, "setting the umask"),
        "no_new_privileges": (processes.no_new_privileges, "setting no_new_privs"),
        "die_with_parent": (processes.die_with_parent, "watching the monitor"),
        "program": (programs.program, "looking for the program"),
        "execute": (programs.execute, "executing"),
    }
)


def perform(steps: Iterable[Operation] | Iterable[Sequence[object]], context: Context) -> None:
    """Perform ``steps`` in order. Raises :class:`Failure`, Refused or Abandoned."""
    for name, arguments in steps:
        function, _ = TABLE[name]  # type: ignore[index]
        # Who plugs our network meanwhile waits for RCU grace periods, which wait for us to be seen
        # between system calls: a kernel without preemption looks when the scheduler is called.
        os.sched_yield()
        try:
            function(context, **arguments)  # type: ignore[arg-type]
        except OSError as error:
            raise Failure(
                str(name),
                error.errno or 0,
                error.strerror or str(error),
                _about(error, arguments),
            ) from error


def sentence(name: str, reason: str, path: str) -> str:
    """One sentence for a person."""
    phrase = TABLE[name][1] if name in TABLE else name
    return f"{phrase} {path}: {reason}" if path else f"{phrase}: {reason}"


def _about(error: OSError, arguments: object) -> str:
    """The object of a failure: what the operation was asked for, else what the call names."""
    asked = arguments if isinstance(arguments, dict) else {}
    for value in (asked.get("destination"), asked.get("path"), error.filename, asked.get("source")):
        if isinstance(value, str | bytes) and value:
            return os.fsdecode(value)
    return ""
