"""Log drivers by name: the built-in ones, and those of other distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import entry_points

from sampan.engine.logdrivers.fluentd import Fluentd
from sampan.engine.logdrivers.gelf import Gelf
from sampan.engine.logdrivers.journald import Journald
from sampan.engine.logdrivers.model import LogDriver
from sampan.engine.logdrivers.syslog import Syslog
from sampan.errors import Unavailable

GROUP = "sampan.log_drivers"
_BUILT_IN: Mapping[str, Callable[[], LogDriver]] = {
    "fluentd": Fluentd,
    "gelf": Gelf,
    "journald": Journald,
    "syslog": Syslog,
}


def names() -> frozenset[str]:
    """Every driver that sends logs elsewhere."""
    return frozenset(_BUILT_IN) | {point.name for point in entry_points(group=GROUP)}


@cache
def find(name: str) -> LogDriver | None:
    """The driver of this name, None when there is none; Unavailable when it cannot be loaded.

    What is installed does not change while a process runs, so an answer is kept.
    """
    if name in _BUILT_IN:
        return _BUILT_IN[name]()
    for point in entry_points(group=GROUP, name=name):
        try:
            driver: LogDriver = point.load()()
        except Exception as error:  # a stranger's code: whatever it raises
            raise Unavailable(f"log driver {name} cannot be loaded: {error}") from error
        return driver
    return None
