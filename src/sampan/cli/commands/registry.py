"""``registry serve``: sampan's own image registry in the foreground."""

from __future__ import annotations

from sampan.cli.command import AT_MOST_ONE, Command, Flag
from sampan.cli.kinds import INT, STRING

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.cli.arguments import Arguments
    from sampan.cli.session import Session


def _serve(session: Session, arguments: Arguments) -> None:
    import asyncio
    import logging
    from pathlib import Path

    import msgspec

    from sampan.registry.server.config import ServerConfig, load
    from sampan.registry.server.serve import serve

    config = load(Path(arguments.positional[0])) if arguments.positional else ServerConfig()
    storage = config.storage
    if arguments.text("root"):
        storage = msgspec.structs.replace(storage, root=arguments.text("root"))
    config = msgspec.structs.replace(
        config,
        storage=storage,
        listen=arguments.text("listen") or config.listen,
        workers=arguments.number("workers") or config.workers,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    def ready(host: str, port: int) -> None:
        session.line(f"listening on {host}:{port}")
        session.flush()

    asyncio.run(serve(config, ready=ready))


SERVE = Command(
    "[OPTIONS] [CONFIG.toml]",
    (
        Flag("listen", "", STRING, "Address to listen on (`host:port`)"),
        Flag("root", "", STRING, "Directory everything is kept in", complete="directory"),
        Flag("workers", "", INT, "Number of processes that serve"),
    ),
    AT_MOST_ONE,
    _serve,
    complete="file",
)
