"""Every filter of every list: known ones choose, unknown ones are refused by name."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.compat.conftest import DockerCli, Sampand

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "api-filters.json"
_SWARM = ("/nodes", "/services", "/tasks", "/secrets", "/configs", "/plugins")
#: searching needs a registry that searches
_ELSEWHERE = ("/images/search",)
#: values that choose nothing, for filters that take no free text
_NOTHING = {
    "exited": "77",
    "expose": "9/sctp",
    "publish": "9/sctp",
    "health": "unhealthy",
    "is-task": "true",
    "isolation": "hyperv",
    "status": "dead",
    "until": "1h",
    "dangling": "true",
    "scope": "swarm",
    "type": "custom",
    "before": "filtered",
    "since": "filtered-newest",
    "inuse": "true",
    "shared": "true",
    "private": "true",
    "all": "true",
}
#: filters that choose everything there is, whatever their value, and why
_NO_CHOICE = {
    ("/containers/json", "isolation"): "of Windows",
    ("/volumes/prune", "all"): "chooses more",
}


def _rows() -> list[tuple[str, str, str]]:
    if not REFERENCE.exists():
        return []
    return [
        (*route.split(" "), name)  # type: ignore[misc]
        for route, names in json.loads(REFERENCE.read_text()).items()
        if not route.endswith((*_SWARM, *_ELSEWHERE))
        for name in names
    ]


def _ask(daemon: Sampand, method: str, path: str, filters: dict[str, list[str]]) -> tuple[int, Any]:
    query = f"filters={quote(json.dumps(filters))}"
    if path == "/containers/json":
        query += "&all=1"
    if path == "/events":
        query += "&since=1&until=1000000000"
    out = subprocess.run(
        ["curl", "-s", "-X", method, "--unix-socket", daemon.socket, "-w", "\n%{http_code}",
         f"http://d{path}?{query}"], capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    text, _, status = out.rpartition("\n")
    return int(status), json.loads(text) if text.strip() else None


def _count(answer: Any) -> int:
    if answer is None or isinstance(answer, list):
        return len(answer or [])
    for key, value in answer.items():
        if key in ("Volumes", "ContainersDeleted", "ImagesDeleted", "VolumesDeleted",
                   "NetworksDeleted", "CachesDeleted"):  # fmt: skip
            return len(value or [])
    return 0


@pytest.fixture(scope="module")
def objects(sampand: Sampand) -> Iterator[None]:
    """One of each kind, so that choosing nothing is a choice."""
    if sampand.foreign:
        pytest.skip("prunes what it finds")
    docker = DockerCli("docker", sampand.host, sampand.root / "cli")
    docker("create", "--name", "filtered", "busybox", "true")
    docker("create", "--name", "filtered-newest", "busybox", "true")
    docker("volume", "create", "filtered")
    docker("network", "create", "filtered")
    yield
    docker("rm", "filtered", "filtered-newest", status=None)
    docker("volume", "rm", "filtered", status=None)
    docker("network", "rm", "filtered", status=None)


@pytest.mark.usefixtures("objects")
@pytest.mark.parametrize(("method", "path", "name"), _rows())
def test_a_filter_chooses(sampand: Sampand, method: str, path: str, name: str) -> None:
    value = _NOTHING.get(name, "no-such")
    if path == "/images/json" and name in ("before", "since"):
        value = "busybox"
    if path == "/images/json" and name == "until":
        value = "1000000h"  # the images are old
    if path == "/networks" and name == "dangling":
        value = "false"
    status, answer = _ask(sampand, method, path, {name: [value]})
    assert status == 200, answer
    if (path, name) in _NO_CHOICE:
        return
    if path == "/networks" and name == "dangling":
        assert {one["Name"] for one in answer} == {"bridge", "host", "none"}
    elif path == "/networks" and name == "type":
        assert [one["Name"] for one in answer] == ["filtered"]
    elif path == "/volumes" and name == "dangling":
        assert [one["Name"] for one in answer["Volumes"]] == ["filtered"]
    else:
        assert _count(answer) == 0, answer


@pytest.mark.parametrize("route", sorted({(method, path) for method, path, _ in _rows()}))
def test_an_unknown_filter_is_refused(sampand: Sampand, route: tuple[str, str]) -> None:
    status, answer = _ask(sampand, *route, {"nonsense": ["x"]})
    assert status == 400
    assert "nonsense" in answer["message"]


def test_the_build_cache_is_pruned_to_a_size(sampand: Sampand) -> None:
    if sampand.foreign:
        pytest.skip("prunes what it finds")
    docker = DockerCli("docker", sampand.host, sampand.root / "cli")
    docker("build", "-q", "-", input="FROM busybox\nRUN echo pruned > /pruned\n")

    def pruned(query: str) -> int:
        out = subprocess.run(
            ["curl", "-s", "-X", "POST", "--unix-socket", sampand.socket,
             f"http://d/build/prune?all=1&{query}"], capture_output=True, check=True,
        ).stdout  # fmt: skip
        return _count(json.loads(out))

    assert pruned("max-used-space=1000000000000") == 0
    assert pruned("min-free-space=1") == 0
    assert pruned("reserved-space=1000000000000&max-used-space=1") == 0
    assert pruned("max-used-space=1") > 0
    docker("image", "prune", "-f")
