"""The kernel's records of what seccomp profiles did, and whose they are."""

from __future__ import annotations

from sampan.engine.denials import Span, parse

_LINE = (
    "audit: type=1326 audit(1795527111.177:3): auid=4294967295 uid=0 gid=0 ses=4294967295 "
    'pid={pid} comm={comm} exe="/bin/busybox" sig=31 arch=c000003e syscall=83 compat=0 '
    "ip=0x47b567 code=0x{code}"
)
_SPAN = Span(pid=41, began=1795527111 * 10**9, ended=1795527112 * 10**9)


def _found(line: str, span: Span = _SPAN, alive: frozenset[int] = frozenset({7})) -> list[str]:
    lines = ["usb 1-1: new device", line]
    denials = parse(lines, span, alive, lambda architecture, number: f"{architecture:x}:{number}")
    return [f"{one.pid} {one.program} {one.name} {one.action} {one.time}" for one in denials]


def test_a_process_is_the_containers_by_its_number() -> None:
    line = _LINE.format(pid=41, comm='"mkdir"', code="80000000")
    assert _found(line) == ["41 mkdir c000003e:83 kill 1795527111177000000"]
    assert _found(_LINE.format(pid=7, comm='"mkdir"', code="7ffc0000")) == [
        "7 mkdir c000003e:83 log 1795527111177000000"
    ]
    assert _found(_LINE.format(pid=8, comm='"mkdir"', code="80000000")) == []


def test_another_run_of_the_same_number_is_not_its() -> None:
    line = _LINE.format(pid=41, comm='"mkdir"', code="80000000")
    later = Span(pid=41, began=1795527112 * 10**9, ended=1795527113 * 10**9)
    assert _found(line, later) == []


def test_names_that_audit_encodes() -> None:
    assert _found(_LINE.format(pid=41, comm="6120622E", code="30000")) == [
        "41 a b. c000003e:83 trap 1795527111177000000"
    ]
    assert _found(_LINE.format(pid=41, comm='"a"', code="50001")) == []  # an error number
