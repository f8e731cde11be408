"""No query parameter of Docker's API is accepted and forgotten, by the reference in ../shared.

Each parameter is sent alone, with what its endpoint cannot do without, to the real routes over an
engine that answers anything; the handler must look at it, or refuse it by its name.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict, MultiDict

from sampan.api.access import FULL
from sampan.api.call import Call
from sampan.api.router import Match, Router
from sampan.api.routes import all_routes
from sampan.api.version import CURRENT

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"

#: what requests cannot do without
_REQUIRED = {
    "h": "1",
    "w": "1",
    "path": "/",
    "stdout": "1",
    "name": "n",
    "fromSrc": "-",
    "names": "n",
    "repo": "r",
    "term": "t",
    "container": "c",
}
#: values that make sense where "1" does not
_VALUES = {
    "filters": "{}",
    "condition": "removed",
    "platform": '{"os":"linux","architecture":"amd64"}',
    "type": "volume",
    "signal": "KILL",
    "changes": "ENV A=b",
}
#: looked at by nobody, and why
_EXEMPT = {
    ("POST", "/containers/{id}/start", "detachKeys"): "dockerd does not either: attach has its own",
    ("POST", "/build", "rm"): "a build leaves no containers behind",
    ("POST", "/build", "forcerm"): "a build leaves no containers behind",
    ("PUT", "/volumes/{name}", "version"): "of cluster volumes, which are refused",
}
#: endpoints that are refused as a whole
_REFUSED = ("/attestations", "/checkpoints")
_GROUPS = ("Swarm", "Node", "Service", "Task", "Secret", "Config", "Plugin")


class _Watched(MultiDict[str]):
    """A query that remembers what was asked of it."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def get(self, key: str, *default: Any) -> Any:  # type: ignore[override]
        self.asked.add(key)
        return super().get(key, *default)

    def getall(self, key: str, *default: Any) -> Any:  # type: ignore[override]
        self.asked.add(key)
        return super().getall(key, *default)

    def __getitem__(self, key: str) -> str:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)


def _rows() -> list[tuple[str, str, str]]:
    if not REFERENCE.is_dir():
        return []
    rows = json.loads((REFERENCE / "api.json").read_text())
    return [
        (row["method"], row["path"], name)
        for row in rows
        if row["group"] not in _GROUPS
        and not row["path"].startswith(("/debug/", "/{anyroute}"))
        and not any(part in row["path"] for part in _REFUSED)
        for name in row["query"]
        if (row["method"], row["path"], name) not in _EXEMPT
    ]


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not REFERENCE.is_dir(), reason="needs the reference in ../shared")
@pytest.mark.parametrize(("method", "path", "name"), _rows())
async def test_a_parameter_is_looked_at(method: str, path: str, name: str) -> None:
    query = _Watched({**_REQUIRED, name: _VALUES.get(name, "1")})
    router = Router(all_routes())
    match = router.match(method, re.sub(r"\{[^}]*\}", "x", path), CURRENT)
    assert isinstance(match, Match)
    request = MagicMock(wraps=make_mocked_request(method, path, CIMultiDict()))
    request.query = query
    request.headers = CIMultiDict({"Content-Type": "application/json"})
    request.content.readany = AsyncMock(side_effect=[json.dumps({"Image": "x"}).encode(), b""])
    daemon = MagicMock(authorization=None)
    daemon.engine = AsyncMock()
    daemon.engine.events.subscribe.side_effect = RuntimeError
    call = Call(request=request, daemon=daemon, version=CURRENT, access=FULL, parts=match.parts)
    said = ""
    try:
        async with asyncio.timeout(1):
            await match.route.handler(call)
    except Exception as problem:  # whatever an engine of mocks leads to
        said = json.dumps(str(problem))
    assert name in query.asked or name in said
