"""A remote engine has the embedded engine's methods, with the same arguments."""

from __future__ import annotations

import inspect

import pytest

from sampan.client import async_containers, async_services, containers, images, services
from sampan.engine import asynchronous, blocking

REMOTE = {
    "Containers": containers.Containers,
    "Execs": containers.Execs,
    "Images": images.Images,
    "Networks": services.Networks,
    "Volumes": services.Volumes,
    "Events": services.Events,
    "System": services.System,
}
ASYNC = {
    "Containers": async_containers.Containers,
    "Execs": async_containers.Execs,
    "Images": async_services.Images,
    "Networks": async_services.Networks,
    "Volumes": async_services.Volumes,
    "Events": async_services.Events,
    "System": async_services.System,
}
#: What only makes sense inside the engine.
OWN = {"publish", "close", "listeners"}
#: Arguments that a server tells its engine: whose ids the client has, what its version expects.
INSIDE = {"client", "read_only_recursive", "volume_labels"}


def parameters(method: object) -> list[tuple[str, object, object]]:
    assert callable(method)
    found = inspect.signature(method).parameters.values()
    return [(item.name, item.kind, item.default) for item in found if item.name not in INSIDE]


def methods(service: type) -> dict[str, object]:
    return {
        name: value
        for name, value in vars(service).items()
        if not name.startswith("_") and inspect.isfunction(value) and name not in OWN
    }


@pytest.mark.parametrize("name", sorted(REMOTE))
def test_same_methods_and_arguments(name: str) -> None:
    for embedded, remote in (
        (getattr(blocking, name), REMOTE[name]),
        (getattr(asynchronous, name), ASYNC[name]),
    ):
        for method, value in methods(embedded).items():
            found = getattr(remote, method, None)
            assert found is not None, f"{remote}.{method}"
            assert parameters(found) == parameters(value), f"{remote}.{method}"
