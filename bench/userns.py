"""What a user namespace costs: starts with one beside starts without, in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator

from bench.peers import Engine, sampand
from bench.start import Api
from bench.timing import Row, medians

#: seconds the engine is left alone between two starts, as between those of a person or a test
_PAUSE = 0.03


def user_namespaces(rounds: int = 30) -> Iterator[Row]:
    """From the start request to its answer: the program was executed."""
    with sampand() as found:
        found.load_busybox()
        for network in ("none", "bridge"):
            times = _starts(found, network, rounds)
            typical = medians(times)
            yield Row(
                f"start, user namespace, --network {network}",
                typical["auto"],
                typical["host"],
                "without",
                target=1.3,
            )


def _starts(engine: Engine, network: str, rounds: int) -> dict[str, list[float]]:
    api = Api(engine)
    times: dict[str, list[float]] = {"host": [], "auto": []}
    for turn in range(2 + rounds):
        for mode, found in times.items():
            host = {"UsernsMode": mode, "NetworkMode": network}
            body = {"Image": "bench", "Cmd": ["true"], "HostConfig": host}
            made = api.call("POST", "/containers/create", body)
            assert isinstance(made, dict)
            name = made["Id"]
            time.sleep(_PAUSE)
            begin = time.perf_counter()
            api.call("POST", f"/containers/{name}/start")
            if turn >= 2:
                found.append(time.perf_counter() - begin)
            api.call("POST", f"/containers/{name}/wait")
            api.call("DELETE", f"/containers/{name}?force=1")
            time.sleep(_PAUSE)
    return times
