"""exec: one more process in a running container."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from sampan.errors import Conflict, InvalidParameter
from sampan.kernel import cgroup, namespaces
from sampan.kernel import facts as kernel_facts
from sampan.kernel import process as kernel_process
from sampan.model import oci
from sampan.runtime import oci_state, plan, rdt, spawn, validate
from sampan.runtime.oci_arguments import Parsed
from sampan.runtime.oci_control import Runtime
from sampan.runtime.oci_create import (
    check_console,
    compile_filter,
    console_sender,
    failures,
    notifier,
    send_descriptor,
    standard_streams,
)
from sampan.runtime.oci_state import Record
from sampan.runtime.process_plan import ProcessOptions


def execute(runtime: Runtime, parsed: Parsed) -> int:
    """Returns the process's exit status (128+N for signal N), or 0 at once with --detach."""
    record = runtime.store.load(parsed.arguments[0])
    status = runtime.status(record)
    if status == "stopped":
        raise Conflict("cannot exec in a stopped container")
    if status == "paused" and not parsed.switch("ignore-paused"):
        raise Conflict("cannot exec in a paused container (use --ignore-paused to override)")
    spec = runtime.store.load_spec(record["id"])
    process = _process(parsed, spec)
    detached = parsed.switch("detach")
    console = parsed.string("console-socket")
    terminal = process.get("terminal", False)
    check_console(terminal, console, detached)
    from sampan.runtime import oci_foreground

    if not detached:
        oci_foreground.become_subreaper()
    with oci_foreground.Foreground(terminal and not console) as foreground:
        with failures("exec"):
            sender = console_sender(console) if console else foreground.take_terminal
            pid = _spawn(runtime, parsed, record, spec, process, sender)
        return 0 if detached else foreground.wait(pid)


def _spawn(
    runtime: Runtime,
    parsed: Parsed,
    record: Record,
    spec: oci.Spec,
    process: oci.Process,
    on_terminal: Callable[[int], None],
) -> int:
    facts = kernel_facts.probe()
    console = process.get("consoleSize")
    linux = spec.get("linux") or {}
    profile = linux.get("seccomp")
    made = plan.plan_exec(
        process,
        facts,
        container_id=record["id"],
        options=ProcessOptions(terminal=process.get("terminal", False), die_with_parent=False),
        console_size=(console["height"], console["width"]) if console else None,
        seccomp=compile_filter(profile) if profile else None,
        root=f"/proc/{record['pid']}/root" if record.get("shared_root") else "",
        linux=linux,
    )
    path, below = record["cgroup"], tuple[tuple[str, str], ...]()
    if wanted := parsed.list("cgroup"):
        path, below = _cgroups(wanted, path, facts.layout)
    elif path:
        path = cgroup.with_room(facts.layout, path, record["pid"])
    made = replace(made, cgroup=path, below=below)
    for warning in made.warnings:
        runtime.log.write("warning", warning)
    kernel_process.forget_affinity()
    target = os.pidfd_open(record["pid"])
    try:
        if not oci_state.alive(record):
            raise Conflict("cannot exec in a stopped container")
        with standard_streams(made.terminal) as streams:
            child = spawn.spawn(
                made,
                facts.layout,
                streams=streams,
                preserve=parsed.number("preserve-fds"),
                into=(target, _namespaces(spec)),
            )
    finally:
        os.close(target)
    try:
        spawn.provision(child, made, facts.layout)
        if groups := record.get("resctrl"):
            rdt.join(groups, child.pid)
        spawn.wait_ready(child, on_terminal=on_terminal)
        if path := parsed.string("pidfd-socket"):
            send_descriptor(path, child.pidfd, b"pidfd")
        if path := parsed.string("pid-file"):
            oci_state.write_atomically(path, str(child.pid).encode(), 0o644)
        spawn.release(child, made)
        state = oci_state.document(runtime.store, record, "running")
        spawn.wait_started(child.channel, on_seccomp=notifier(spec, state, child.pid))
    except BaseException:
        spawn.undo(child, made, facts.layout)
        raise
    child.close()
    return child.pid


def _namespaces(spec: oci.Spec) -> int:
    """CLONE_NEW* of every namespace the container has of its own."""
    flags = 0
    for entry in (spec.get("linux") or {}).get("namespaces") or ():
        flags |= namespaces.FLAGS[entry.get("type", "")]
    return flags


def _cgroups(
    wanted: list[str], path: str, layout: cgroup.Layout
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """--cgroup: the container's cgroup ``path`` or one below it that exists.

    Returns that for all hierarchies, and (mount point, path) for those that were named by one of
    their version 1 controllers. Raises InvalidParameter.
    """
    common, named = path, list[tuple[str, str]]()
    for entry in wanted:
        controllers, colon, below = entry.rpartition(":")
        target = f"{path}/{cgroup.check_path(below)}" if below.strip("/") else path
        if not colon:
            common = target
            continue
        for controller in controllers.split(","):
            at = [found for found in layout.legacy if controller in found.controllers]
            if not at:
                raise InvalidParameter(f"--cgroup: unknown controller {controller!r}")
            named.append((at[0].mountpoint, target))
    return common, tuple(named)


def _process(parsed: Parsed, spec: oci.Spec) -> oci.Process:
    """From --process, or the container's own process changed by flags and arguments."""
    if path := parsed.string("process"):
        with open(path, "rb") as file:
            process, _ = validate.parse_process(file.read())
        return process
    args = parsed.arguments[1:]
    if not args:
        raise InvalidParameter("process args cannot be empty")
    base = dict(spec.get("process") or {})
    base.pop("consoleSize", None)
    base.update(args=args, terminal=parsed.switch("tty"))
    process = cast("oci.Process", base)
    if cwd := parsed.string("cwd"):
        process["cwd"] = cwd
    process["env"] = [*process.get("env", ()), *parsed.list("env")]
    if label := parsed.string("process-label"):
        process["selinuxLabel"] = label
    if profile := parsed.string("apparmor"):
        process["apparmorProfile"] = profile
    if "no-new-privs" in parsed.given:
        process["noNewPrivileges"] = parsed.switch("no-new-privs")
    process["user"] = _user(parsed, process.get("user") or {})
    if added := parsed.list("cap"):
        process["capabilities"] = _capabilities(process.get("capabilities") or {}, added)
    return process


def _user(parsed: Parsed, user: oci.User) -> oci.User:
    result = cast("oci.User", dict(user))
    try:
        if text := parsed.string("user"):
            uid, colon, gid = text.partition(":")
            result["uid"] = int(uid)
            if colon:
                result["gid"] = int(gid)
        if gids := parsed.list("additional-gids"):
            result["additionalGids"] = [int(gid) for gid in gids]
    except ValueError as error:
        raise InvalidParameter(f"invalid user or group id: {error}") from None
    return result


def _capabilities(base: oci.Capabilities, added: list[str]) -> oci.Capabilities:
    """--cap: into the bounding, effective and permitted sets, as runc does."""
    result = cast("oci.Capabilities", dict(base))
    for key in ("bounding", "effective", "permitted"):
        held = cast("list[str]", base.get(key, []))
        result[key] = [*held, *(name for name in added if name not in held)]
    return result
