"""The daemon's own log on standard error: dockerd's text form, or one JSON object a line."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

_LEVELS = {
    logging.DEBUG: "debug",
    logging.INFO: "info",
    logging.WARNING: "warning",
    logging.ERROR: "error",
    logging.CRITICAL: "fatal",
}
#: Libraries that tell of every task, header and call.
_CHATTY = ("asyncio", "grpclib", "h2", "hpack", "hyperframe")
_NAMES = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
    "fatal": logging.CRITICAL,
}


def configure(level: str, form: str) -> None:
    """Send everything from ``level`` up to standard error in ``form`` (text or json)."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """Change what is logged; asyncio's own chatter stays out."""
    logging.getLogger().setLevel(_NAMES[level])
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _when(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class TextFormatter(logging.Formatter):
    """``time="..." level=info msg="..."``"""

    def format(self, record: logging.LogRecord) -> str:
        """One line; an exception's traceback is part of the message."""
        message = record.getMessage()
        if record.exc_info:
            message = f"{message}\n{self.formatException(record.exc_info)}"
        return (
            f'time="{_when(record)}" level={_LEVELS.get(record.levelno, "info")} '
            f"msg={json.dumps(message)}"
        )


class JsonFormatter(logging.Formatter):
    """``{"level": ..., "msg": ..., "time": ...}``"""

    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        entry = {
            "level": _LEVELS.get(record.levelno, "info"),
            "msg": record.getMessage(),
            "time": _when(record),
            "logger": record.name,
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)
