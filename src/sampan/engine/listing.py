"""``GET /containers/json``: which containers, in what order (pure)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from sampan.engine.fabric import Fabric
from sampan.engine.filters import boolean, check_filters, match_labels, match_pattern
from sampan.engine.imagetable import ImageTable
from sampan.engine.inspecting import health, shown_status
from sampan.engine.lifecycle import Status
from sampan.engine.options import Filters
from sampan.engine.table import Container, ContainerTable
from sampan.engine.validate import parse_port
from sampan.errors import InvalidParameter, NotFound

KEYS = frozenset(
    {
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "label!",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    }
)


def select(
    table: ContainerTable,
    images: ImageTable,
    fabric: Fabric,
    *,
    all: bool,
    limit: int | None,
    filters: Filters | None,
) -> list[Container]:
    """The containers to show, newest first."""
    checked = check_filters(filters, KEYS)
    wanted_status = _statuses(checked)
    exited = [_number(value) for value in checked.get("exited", ())]
    show_all = all or bool(limit and limit > 0) or bool(wanted_status) or bool(exited)
    ordered = sorted(table, key=lambda c: c.record.created, reverse=True)
    tests = [*_tests(checked, images, fabric), *_age_tests(checked, table)]
    if boolean(checked, "is-task"):
        return []
    found = []
    for container in ordered:
        state = container.state
        if not show_all and not (state.alive or state.status == Status.RESTARTING):
            continue
        if wanted_status and not {state.status, shown_status(state)} & wanted_status:
            continue
        if exited and not (state.status == Status.EXITED and state.exit_code in exited):
            continue
        if match_labels(container.record.config.labels or {}, checked) and _passes(
            container, tests
        ):
            found.append(container)
            if limit and 0 < limit <= len(found):
                break
    return found


Test = Callable[[Container], bool]


def _passes(container: Container, tests: Iterable[Test]) -> bool:
    return all(test(container) for test in tests)


def _statuses(filters: Filters) -> frozenset[str]:
    for value in filters.get("status", ()):
        if value not in set(Status):
            raise InvalidParameter(f"invalid filter 'status={value}'")
    for value in filters.get("health", ()):
        if value not in ("none", "starting", "healthy", "unhealthy"):
            raise InvalidParameter(f"invalid filter 'health={value}'")
    return frozenset(filters.get("status", ()))


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f"invalid filter 'exited={text}'") from None


def _age_tests(filters: Filters, table: ContainerTable) -> list[Test]:
    tests: list[Test] = []
    for value in filters.get("before", ()):
        before = table.find(value).record.created
        tests.append(lambda c, limit=before: c.record.created < limit)  # type: ignore[misc]
    for value in filters.get("since", ()):
        since = table.find(value).record.created
        tests.append(lambda c, limit=since: c.record.created > limit)  # type: ignore[misc]
    return tests


def _tests(filters: Filters, images: ImageTable, fabric: Fabric) -> list[Test]:
    tests: list[Test] = []
    if values := filters.get("id"):
        tests.append(lambda c: any(c.id.startswith(value) for value in values))
    if names := filters.get("name"):
        tests.append(lambda c: match_pattern(names, c.name, f"/{c.name}"))
    if reports := filters.get("health"):
        tests.append(lambda c: _health(c) in reports)
    if ancestors := filters.get("ancestor"):
        ids = _ancestors(ancestors, images)
        tests.append(lambda c: c.record.image_id in ids or c.record.image in ancestors)
    if volumes := filters.get("volume"):
        tests.append(
            lambda c: any(
                value in (m.name, m.source, m.destination)
                for value in volumes
                for m in c.record.mounts
            )
        )
    if networks := filters.get("network"):
        tests.append(lambda c: _on_network(c, networks, fabric))
    for key in ("publish", "expose"):
        if ports := filters.get(key):
            wanted = {port for text in ports for port in _ports(text)}
            tests.append(_port_test(key, wanted))
    return tests


def _health(container: Container) -> str:
    report = health(container)
    return report.status or "none" if report is not None else "none"


def _ancestors(values: Iterable[str], images: ImageTable) -> set[str]:
    """Ids of the images named, and of images built on top of them."""
    found: set[str] = set()
    for value in values:
        try:
            entry, _ = images.find(value)
        except NotFound:
            continue
        found.add(str(entry.id))
        base = images.cached(entry)
        if base is None:
            continue
        for other in images:
            view = images.cached(other)
            if view is not None and base.chain_id in view.chain_ids:
                found.add(str(other.id))
    return found


def _on_network(container: Container, values: Iterable[str], fabric: Fabric) -> bool:
    names = set(container.record.networks)
    for value in values:
        if value in names:
            return True
        try:
            network = fabric.find(value)
        except (NotFound, InvalidParameter):
            continue
        if network.name in names or network.id in names:
            return True
    return False


def _ports(text: str) -> list[tuple[int, str]]:
    first, last, protocol = parse_port(text)
    return [(number, protocol) for number in range(first, last + 1)]


def _port_test(key: str, wanted: set[tuple[int, str]]) -> Test:
    def exposed(container: Container) -> bool:
        ports = container.record.config.exposed_ports or {}
        return any(port in wanted for text in ports for port in _ports(text))

    def published(container: Container) -> bool:
        return any(
            (port.host_port, port.protocol) in wanted
            for plug in container.endpoints.values()
            for port in plug.endpoint.ports
        )

    return published if key == "publish" else exposed
