"""``python -m sampan.registry.server [CONFIG.toml]``: for service managers and tests."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from sampan.errors import SampanError
from sampan.registry.server.config import ServerConfig, load
from sampan.registry.server.serve import Worker, serve, work


@dataclass
class _Arguments(argparse.Namespace):
    config: str = ""
    listen: str = ""
    root: str = ""
    workers: int = 0
    worker: bool = False


def _configuration(arguments: _Arguments) -> ServerConfig:
    """The file's configuration, or the default, with the command line's changes."""
    config = load(Path(arguments.config)) if arguments.config else ServerConfig()
    storage = config.storage
    if arguments.root:
        storage = msgspec.structs.replace(storage, root=arguments.root)
    return msgspec.structs.replace(
        config,
        storage=storage,
        listen=arguments.listen or config.listen,
        workers=arguments.workers or config.workers,
    )


def main(argv: list[str]) -> int:
    """Run a registry as ``argv`` says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sampan.registry.server")
    parser.add_argument("config", nargs="?", default="", help="TOML file")
    parser.add_argument("--listen", default="", help="host:port to listen on")
    parser.add_argument("--root", default="", help="directory to keep everything in")
    parser.add_argument("--workers", type=int, default=0, help="processes to serve with")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv, _Arguments())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        if arguments.worker:
            line = sys.stdin.buffer.readline()
            asyncio.run(work(msgspec.json.decode(line, type=Worker)))
        else:
            asyncio.run(
                serve(
                    _configuration(arguments),
                    ready=lambda host, port: print(f"listening on {host}:{port}", flush=True),
                )
            )
    except SampanError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: cannot listen: {error.strerror}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
