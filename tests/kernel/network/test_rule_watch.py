"""Whose changes of nftables rules wake an engine."""

from __future__ import annotations

import contextlib
import subprocess
import threading

from sampan.network.rulewatch import RuleWatch
from tests.engines import network_namespace


def _change(script: str) -> None:
    subprocess.run(["nft", "-f", "-"], input=script.encode(), check=True)


def test_tables_of_other_engines_are_overlooked() -> None:
    """Alone, that is: with anything else in the same transaction they are not."""
    woken = threading.Event()
    with network_namespace():
        watch = RuleWatch(woken.set, lambda table: table == "theirs")
        with contextlib.closing(watch):
            _change("table inet theirs { set s { type inet_service; }; chain c { }; }")
            _change("add element inet theirs s { 80 }")
            _change("delete table inet theirs")
            assert not woken.wait(0.5)
            _change("table inet theirs { }; table inet hosts { }")
            assert woken.wait(10)
            woken.clear()
            _change("delete table inet hosts")
            assert woken.wait(10)
