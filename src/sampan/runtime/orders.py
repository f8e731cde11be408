"""What a monitor is told of a request: a container's or an exec's plan, or another runtime's order.

Planned by who asks, so that mistakes in it cost no process.
"""

from __future__ import annotations

from collections.abc import Callable

from sampan.errors import Unsupported
from sampan.kernel.facts import Facts
from sampan.kernel.seccomp import Filter
from sampan.model import oci
from sampan.runtime import foreign, json_text
from sampan.runtime.channel import Message
from sampan.runtime.operation import Value
from sampan.runtime.plan import PlanOptions, plan, plan_exec
from sampan.runtime.plan_codec import encode
from sampan.runtime.process_plan import ProcessOptions
from sampan.runtime.requests import CreateRequest, ExecRequest

#: Hooks that init runs; those of the runtime's namespace are for ``sampan-runtime``.
_HOOKS = frozenset({"createContainer", "startContainer"})
_LOG_DRIVERS = ("json-file", "local", "none")
#: The version of the specification all that other runtimes are told is in.
_VERSION = "1.0.2"


def of_container(
    request: CreateRequest, facts: Facts, compile_filter: Callable[[oci.Seccomp], Filter]
) -> tuple[Message, bytes]:
    """(message, blob) for a maker. Raises :class:`InvalidParameter`, :class:`Unsupported`."""
    if request.log.driver not in _LOG_DRIVERS:
        raise Unsupported(f"log driver {request.log.driver!r}")
    if request.runtime:
        return _foreign(request)
    linux = request.spec.get("linux") or {}
    for kind, hooks in (request.spec.get("hooks") or {}).items():
        if hooks and kind not in _HOOKS:
            raise Unsupported(f"hooks.{kind}: monitors run hooks of the container only")
    profile = linux.get("seccomp")
    seccomp = compile_filter(profile) if profile else None
    made = plan(
        request.spec,
        facts,
        container_id=request.container_id,
        rootfs=request.rootfs,
        options=PlanOptions(
            process=ProcessOptions(
                terminal=request.terminal,
                user=request.user,
                groups=request.groups,
                keyring=request.container_id,
                reaper=request.init,
            ),
            console_size=request.console_size,
            state=_state(request),
            systemd=request.systemd,
        ),
        seccomp=seccomp,
    )
    value, blob = encode(made)
    return {"plan": value}, blob


def _state(request: CreateRequest) -> dict[str, Value]:
    """The OCI state hooks are given (runtime.md "State"), but for pid and status."""
    annotations: dict[str, Value] = {**(request.spec.get("annotations") or {})}
    return {
        "ociVersion": request.spec.get("ociVersion", "1.2.0"),
        "id": request.container_id,
        "bundle": str(request.directory),
        "annotations": annotations,
    }


def _foreign(request: CreateRequest) -> tuple[Message, bytes]:
    """The config.json another runtime is given, and what its driver has to know of it."""
    name = request.runtime[0].rpartition("/")[2]
    linux: oci.Linux = {**request.spec["linux"]}
    kinds = linux.get("namespaces") or []
    for what, there in (
        ("a user namespace", any(entry.get("type") == "user" for entry in kinds)),
        ("an init of ours", request.init),
        ("cgroups of systemd", request.systemd),
        ("mounts beside the root", len(request.rootfs) > 1),
    ):
        if there:
            raise Unsupported(f"runtime {name}: {what} can be had with the runtime sampan only")
    spec: oci.Spec = {**request.spec, "ociVersion": _VERSION}
    spec["root"] = {**spec["root"], "path": foreign.root_of(str(request.directory))}
    if domain := spec.pop("domainname", None):
        # Newer than runtimes in use; the sysctl is as old as UTS namespaces.
        linux["sysctl"] = {**(linux.get("sysctl") or {}), "kernel.domainname": domain}
    spec["linux"] = linux
    told = {
        "runtime": list(request.runtime),
        "own_pids": any(e.get("type") == "pid" and not e.get("path") for e in kinds),
        "shared": (linux.get("rootfsPropagation") or "").endswith("shared"),
    }
    return {"foreign": told}, json_text.dumps(spec)


def of_exec(request: ExecRequest, facts: Facts | None) -> Message:
    """The message for a worker; ``facts`` are needed unless ``request.foreign``.

    Raises as :func:`of_container`.
    """
    streams: Message = {
        "op": "exec",
        "exec_id": request.exec_id,
        "stdin": request.stdin,
        "stdout": request.stdout,
        "stderr": request.stderr,
    }
    if request.foreign:
        process: oci.Process = {**request.process, "terminal": request.terminal}
        if request.terminal and request.console_size:
            height, width = request.console_size
            process["consoleSize"] = {"height": height, "width": width}
        return {**streams, "process": process, "terminal": request.terminal}
    assert facts is not None
    made = plan_exec(
        request.process,
        facts,
        container_id=request.exec_id,
        options=ProcessOptions(
            terminal=request.terminal,
            user=request.user,
            groups=request.groups,
            keyring="",
            seccomp=request.seccomp,
        ),
        console_size=request.console_size,
    )
    value, _ = encode(made)
    return {**streams, "plan": value, "seccomp": request.seccomp}
