"""An authorization plugin as somebody else would write one, in a process of its own.

usage: python -m tests.authzserver SOCKET DIRECTORY

DIRECTORY/rules is a JSON list of [method, part of the URI, phase, message]; a request or answer
(phase ``AuthZReq``, ``AuthZRes``) that one matches is denied with its message, or fails with an
``Err`` for a message that begins with ``!``. Every call is appended to DIRECTORY/calls, one JSON
object a line, with its bodies decoded.
"""

from __future__ import annotations

import base64
import json
import socketserver
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


def serve(socket: str, directory: Path) -> None:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
            data = json.dumps(self.answer(body)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def answer(self, body: dict[str, Any]) -> dict[str, Any]:
            if self.path == "/Plugin.Activate":
                return {"Implements": ["authz"]}
            phase = self.path.rpartition(".")[2]
            for name in ("RequestBody", "ResponseBody"):
                if body.get(name):
                    body[name] = base64.b64decode(body[name]).decode()
            with (directory / "calls").open("a") as file:
                file.write(json.dumps({"phase": phase, **body}) + "\n")
            for method, part, when, message in json.loads((directory / "rules").read_text()):
                if (body["RequestMethod"], phase) == (method, when) and part in body["RequestURI"]:
                    if message.startswith("!"):
                        return {"Err": message[1:]}
                    return {"Allow": False, "Msg": message}
            return {"Allow": True}

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

    with Server(socket, Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], Path(sys.argv[2]))
