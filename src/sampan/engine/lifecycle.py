"""The life of a container as a table: which event leads from which status to which.

Rule: everything that decides whether an operation fits a container's status lives here.

::

    created ──start──► running ◄──unpause/pause──► paused
       ▲                 │ exit                      │ exit
       │                 ▼                           ▼
       └──(rows)      exited ◄─────────────────── exited
                         │ backoff ▲ stop
                         ▼         │
                      restarting ──start──► running

    created, exited ──init──► initialized ──start──► running
                                  └──stop──► created

    any ──remove──► removing ──failed──► dead
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from sampan.errors import Conflict


class Status(StrEnum):
    """Container statuses as the API names them.

    ``INITIALIZED`` (podman's: all is set up, the program waits) is ``created`` in Docker's API.
    """

    CREATED = "created"
    INITIALIZED = "initialized"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    REMOVING = "removing"
    EXITED = "exited"
    DEAD = "dead"


class Event(StrEnum):
    """What can happen to a container."""

    INIT = "init"
    START = "start"
    START_FAILED = "start-failed"
    EXIT = "exit"
    BACKOFF = "backoff"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    STOP = "stop"
    REMOVE = "remove"
    REMOVE_FAILED = "remove-failed"


TRANSITIONS: Final[dict[Status, dict[Event, Status]]] = {
    Status.CREATED: {
        Event.INIT: Status.INITIALIZED,
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.CREATED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.INITIALIZED: {
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.CREATED,
        Event.STOP: Status.CREATED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.RUNNING: {
        Event.EXIT: Status.EXITED,
        Event.PAUSE: Status.PAUSED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.PAUSED: {
        Event.UNPAUSE: Status.RUNNING,
        Event.EXIT: Status.EXITED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.RESTARTING: {
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.STOP: Status.EXITED,
        Event.REMOVE: Status.REMOVING,
    },
    Status.EXITED: {
        Event.INIT: Status.INITIALIZED,
        Event.START: Status.RUNNING,
        Event.START_FAILED: Status.EXITED,
        Event.BACKOFF: Status.RESTARTING,
        Event.REMOVE: Status.REMOVING,
    },
    Status.REMOVING: {
        Event.REMOVE: Status.REMOVING,
        Event.REMOVE_FAILED: Status.DEAD,
        Event.EXIT: Status.REMOVING,
    },
    Status.DEAD: {Event.REMOVE: Status.REMOVING},
}

#: statuses in which the container has processes
ALIVE: Final = frozenset({Status.RUNNING, Status.PAUSED})


def after(status: Status, event: Event) -> Status:
    """The status ``event`` leads to; raises Conflict when it does not fit ``status``."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise Conflict(f"cannot {event} a container that is {status}") from None
