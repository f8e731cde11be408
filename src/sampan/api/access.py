"""What a socket may do: everything, only look, or only touch what carries a label.

A Docker socket is root on the host. ``-H unix:///run/ro.sock?mode=ro`` offers one that can only
read; ``-H unix:///run/team.sock?label=team=a`` one that sees and touches only containers, networks
and volumes with that label, and puts it on what it creates (which may not reach the host, see
:mod:`sampan.api.scope`). Read-only does not hide anything: ``inspect`` shows environment variables.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

from sampan.api.router import Effect, Route
from sampan.errors import Forbidden, InvalidParameter

#: paths a label-scoped socket may use besides those of labelled objects
_SCOPED_OPEN = frozenset(
    {
        "/_ping",
        "/version",
        "/info",
        "/auth",
        "/events",
        "/containers/json",
        "/containers/create",
        "/containers/prune",
        "/images/json",
        "/images/search",
        "/images/create",
        "/images/{name:*}/json",
        "/images/{name:*}/history",
        "/distribution/{name:*}/json",
        "/networks",
        "/networks/create",
        "/networks/prune",
        "/volumes",
        "/volumes/create",
        "/volumes/prune",
    }
)
_SCOPED_OBJECTS = (
    "/containers/{name}",
    "/sampan/containers/{name}",
    "/exec/{name}",
    "/networks/{name}",
    "/volumes/{name}",
)
#: reads that are not: input of a terminal
_NOT_READS = frozenset({"/containers/{name}/attach/ws"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """The rights of one listening socket; ``labels`` scope it when there are any."""

    read_only: bool = False
    labels: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, options: str) -> Access:
        """The part of a ``-H`` after the question mark; raises :class:`InvalidParameter`."""
        read_only = False
        labels: dict[str, str] = {}
        for key, value in parse_qsl(options, keep_blank_values=True):
            if key == "mode" and value in ("ro", "rw"):
                read_only = value == "ro"
            elif key == "label" and value:
                name, _, wanted = value.partition("=")
                labels[name] = wanted
            else:
                raise InvalidParameter(f"invalid socket option {key}={value}")
        return cls(read_only=read_only, labels=labels)

    @property
    def scoped(self) -> bool:
        """Whether only labelled objects are visible."""
        return bool(self.labels)

    def check(self, route: Route) -> None:
        """Refuse a route this socket may not use at all (:class:`Forbidden`)."""
        if self.read_only and (route.effect is not Effect.READ or route.pattern in _NOT_READS):
            raise Forbidden("this socket is read-only")
        if (
            self.scoped
            and route.pattern not in _SCOPED_OPEN
            and not route.pattern.startswith(_SCOPED_OBJECTS)
        ):
            raise Forbidden(f"this socket is limited to objects labelled {self._text()}")

    def restrict_filters(
        self, filters: dict[str, list[str]], known: Collection[str]
    ) -> dict[str, list[str]]:
        """Filters that also ask for this socket's labels (where labels are a filter at all)."""
        if not self.scoped or "label" not in known:
            return filters
        return {**filters, "label": [*filters.get("label", []), *self._pairs()]}

    def labelled(self, labels: dict[str, str] | None) -> dict[str, str] | None:
        """Labels of a new object, with this socket's own among them."""
        return {**(labels or {}), **self.labels} if self.scoped else labels

    def sees(self, labels: dict[str, str] | None) -> bool:
        """Whether an object with these labels is visible."""
        mine = labels or {}
        return all(mine.get(key) == value for key, value in self.labels.items())

    def _pairs(self) -> list[str]:
        return [f"{key}={value}" if value else key for key, value in self.labels.items()]

    def _text(self) -> str:
        return ", ".join(self._pairs())


FULL = Access()
