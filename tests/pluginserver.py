"""A plugin as somebody else would write one: volumes, networks, addresses, in a process of its own.

usage: python -m tests.pluginserver SOCKET DIRECTORY

Volumes are directories below DIRECTORY; networks are bridges in the namespace the process is in.
Every call is appended to DIRECTORY/calls as ``METHOD JSON``. A volume named ``refused`` is refused.
"""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

Body = dict[str, Any]


class Refused(Exception):
    pass


class Volumes:
    """``VolumeDriver``."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "volumes"
        self.root.mkdir(exist_ok=True)

    def _path(self, body: Body) -> Path:
        found = self.root / body["Name"]
        if not found.is_dir():
            raise Refused(f"volume {body['Name']} unknown")
        return found

    def _shown(self, path: Path) -> Body:
        return {"Name": path.name, "Mountpoint": str(path), "Status": {"served": "here"}}

    def create(self, body: Body) -> Body:
        if body["Name"] == "refused":
            raise Refused("not this one")
        (self.root / body["Name"]).mkdir(exist_ok=True)
        return {}

    def remove(self, body: Body) -> Body:
        shutil.rmtree(self._path(body))
        return {}

    def mount(self, body: Body) -> Body:
        return {"Mountpoint": str(self._path(body))}

    def unmount(self, body: Body) -> Body:
        self._path(body)
        return {}

    def path(self, body: Body) -> Body:
        return {"Mountpoint": str(self._path(body))}

    def get(self, body: Body) -> Body:
        return {"Volume": self._shown(self._path(body))}

    def list(self, _body: Body) -> Body:
        return {"Volumes": [self._shown(path) for path in sorted(self.root.iterdir())]}

    def capabilities(self, _body: Body) -> Body:
        return {"Capabilities": {"Scope": "global"}}


class Networks:
    """``NetworkDriver``: a bridge for each network, a pair of links for each endpoint."""

    def getcapabilities(self, _body: Body) -> Body:
        return {"Scope": "local", "ConnectivityScope": "local"}

    def createnetwork(self, body: Body) -> Body:
        name = f"pb{body['NetworkID'][:8]}"
        ip("link", "add", name, "type", "bridge")
        for data in (*body["IPv4Data"], *body["IPv6Data"]):
            if data.get("Gateway"):
                ip("address", "add", data["Gateway"], "dev", name)
        ip("link", "set", name, "up")
        return {}

    def deletenetwork(self, body: Body) -> Body:
        ip("link", "delete", f"pb{body['NetworkID'][:8]}")
        return {}

    def createendpoint(self, body: Body) -> Body:
        if not (body.get("Interface") or {}).get("Address"):
            raise Refused("no address was given")
        if (body.get("Options") or {}).get("fail") == "create":
            raise Refused("endpoint refused")
        return {}

    def endpointoperinfo(self, _body: Body) -> Body:
        return {"Value": {}}

    def deleteendpoint(self, _body: Body) -> Body:
        return {}

    def join(self, body: Body) -> Body:
        if not Path(body["SandboxKey"]).exists():
            raise Refused("the sandbox does not exist")
        name, peer = f"ph{body['EndpointID'][:8]}", f"pc{body['EndpointID'][:8]}"
        ip("link", "add", name, "type", "veth", "peer", "name", peer)
        ip("link", "set", name, "master", f"pb{body['NetworkID'][:8]}", "up")
        return {
            "InterfaceName": {"SrcName": peer, "DstPrefix": "plug"},
            "Gateway": (body.get("Options") or {}).get("gateway", ""),
            "StaticRoutes": [{"Destination": "198.51.100.0/24", "RouteType": 1, "NextHop": ""}],
        }

    def leave(self, body: Body) -> Body:
        name = f"ph{body['EndpointID'][:8]}"
        if Path(f"/sys/class/net/{name}").exists():
            ip("link", "delete", name)
        return {}

    def programexternalconnectivity(self, _body: Body) -> Body:
        return {}

    def revokeexternalconnectivity(self, _body: Body) -> Body:
        return {}


class Addresses:
    """``IpamDriver``: counts upwards, remembers what is out."""

    def __init__(self) -> None:
        self._out: dict[str, set[str]] = {}

    def getcapabilities(self, _body: Body) -> Body:
        return {"RequiresMACAddress": False, "RequiresRequestReplay": False}

    def getdefaultaddressspaces(self, _body: Body) -> Body:
        return {"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "everywhere"}

    def requestpool(self, body: Body) -> Body:
        pool = body["Pool"] or ("fd99::/64" if body["V6"] else "10.99.0.0/24")
        key = f"{body['AddressSpace']}/{pool}"
        if key in self._out:
            raise Refused(f"pool {pool} is out")
        self._out[key] = set()
        return {"PoolID": key, "Pool": pool, "Data": {}}

    def releasepool(self, body: Body) -> Body:
        del self._out[body["PoolID"]]
        return {}

    def requestaddress(self, body: Body) -> Body:
        pool = ipaddress.ip_network(body["PoolID"].partition("/")[2])
        held = self._out[body["PoolID"]]
        wanted = body.get("Address")
        found = wanted or next(str(a) for a in pool.hosts() if str(a) not in held)
        if found in held:
            raise Refused(f"address {found} is out")
        held.add(found)
        return {"Address": f"{found}/{pool.prefixlen}", "Data": {}}

    def releaseaddress(self, body: Body) -> Body:
        self._out[body["PoolID"]].discard(body["Address"])
        return {}


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Refused(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Server(socketserver.ThreadingUnixStreamServer):
    def __init__(self, path: str, directory: Path) -> None:
        self.parts = {
            "VolumeDriver": Volumes(directory),
            "NetworkDriver": Networks(),
            "IpamDriver": Addresses(),
        }
        self.lock = threading.Lock()
        self.calls = (directory / "calls").open("a", buffering=1)
        super().__init__(path, Handler)

    def answer(self, method: str, body: Body) -> Body:
        self.calls.write(f"{method} {json.dumps(body)}\n")
        if method == "Plugin.Activate":
            return {"Implements": list(self.parts)}
        interface, _, name = method.partition(".")
        function: Callable[[Body], Body] = getattr(self.parts[interface], name.lower())
        with self.lock:
            return function(body)


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        try:
            answer, status = self.server.answer(self.path.strip("/"), body), 200
        except Refused as refusal:
            answer, status = {"Err": str(refusal)}, 500
        except (AttributeError, KeyError):
            answer, status = {}, 404
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: object) -> None:
        pass


if __name__ == "__main__":
    with Server(sys.argv[1], Path(sys.argv[2])) as server:
        os.write(1, b"ready\n")
        server.serve_forever()
