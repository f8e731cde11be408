"""The services without ``await`` are the asynchronous ones, method by method."""

from __future__ import annotations

import inspect

import pytest

import sampan
from sampan.engine import asynchronous, blocking

#: For builders inside the daemon, which are asynchronous themselves.
INSIDE = {"Builds": {"consume", "solve", "triggers"}}


@pytest.mark.parametrize("name", asynchronous.__all__)
def test_same_methods_and_arguments(name: str) -> None:
    theirs = public(getattr(asynchronous, name), asynchronous_only=True)
    ours = public(getattr(blocking, name), asynchronous_only=False)
    assert theirs.keys() - INSIDE.get(name, set()) == ours.keys()
    for method in ours:
        wanted = [(p.name, p.kind, p.default) for p in theirs[method].parameters.values()]
        found = [(p.name, p.kind, p.default) for p in ours[method].parameters.values()]
        assert found == wanted, f"{name}.{method}"


def public(service: type, *, asynchronous_only: bool) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in inspect.getmembers(service, inspect.isfunction)
        if not name.startswith("_")
        and (
            not asynchronous_only
            or inspect.iscoroutinefunction(member)
            or inspect.isasyncgenfunction(member)
        )
    }


def test_public_names_are_there() -> None:
    for name in sampan.__all__:
        assert getattr(sampan, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nosuch'"):
        _ = sampan.nosuch  # type: ignore[attr-defined]
