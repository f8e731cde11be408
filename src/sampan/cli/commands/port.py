"""``container port``."""

from __future__ import annotations

from sampan.cli.command import Arity, Command
from sampan.cli.fault import CliError
from sampan.cli.show import host_port
from sampan.client.document import as_table, as_tables, table, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session
    from sampan.client.document import Json


def _addresses(bindings: Json) -> list[str]:
    return [
        host_port(text(binding, "HostIp"), text(binding, "HostPort"))
        for binding in as_tables(bindings)
    ]


def _port(session: Session, arguments: Arguments) -> None:
    container, *wanted = arguments.positional
    details = as_table(session.client.get(f"/containers/{container}/json"))
    ports = table(table(details, "NetworkSettings"), "Ports")
    if not wanted:
        lines = [
            f"{port} -> {address}"
            for port, bindings in ports.items()
            for address in _addresses(bindings)
        ]
        session.out("".join(f"{line}\n" for line in sorted(lines, key=_order)))
        return
    port, slash, protocol = wanted[0].partition("/")
    if not port.isdecimal() or int(port) > 65535:
        raise CliError(
            f"Error: invalid port ({port}): value must be an integer between 0 and 65535"
        )
    bindings = ports.get(f"{port}/{protocol if slash else 'tcp'}")
    if not bindings:
        raise CliError(f"Error: No public port '{wanted[0]}' published for {container}")
    session.out("".join(f"{address}\n" for address in _addresses(bindings)))


def _order(line: str) -> tuple[int, str]:
    number = line.partition("/")[0]
    return (int(number) if number.isdecimal() else 0, line)


PORT = Command("CONTAINER [PRIVATE_PORT[/PROTO]]", (), Arity(1, 2), _port, complete="running")
