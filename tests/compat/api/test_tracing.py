"""Spans of requests and of what the engine does for them, told to a collector (OTLP over HTTP)."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from sampan.kernel import namespaces
from tests.compat.conftest import CLI, DockerCli, Sampand, _clean_up, busybox_archive

_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Collector:
    port: int = 0
    spans: list[Span] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    def add(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for attribute in resource.resource.attributes:
                if attribute.key == "service.name":
                    self.services.add(attribute.value.string_value)
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def find(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector(namespace: str) -> Iterator[Collector]:
    """A collector inside the daemon's network namespace."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            found.add(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

    servers: list[ThreadingHTTPServer] = []
    bound = threading.Event()

    def serve() -> None:
        descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
        namespaces.setns(descriptor, namespaces.CLONE_NEWNET)
        os.close(descriptor)
        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        found.port = servers[0].server_port
        bound.set()
        servers[0].serve_forever()

    thread = threading.Thread(target=serve)
    thread.start()
    assert bound.wait(10)
    yield found
    servers[0].shutdown()
    thread.join()
    servers[0].server_close()


def _attribute(span: Span, key: str) -> str:
    return next(a.value.string_value for a in span.attributes if a.key == key)


@pytest.fixture
def traced(collector: Collector, namespace: str, tmp_path: Path) -> Iterator[Sampand]:
    root = tmp_path / "traced"
    (root / "cli").mkdir(parents=True)
    (root / "daemon.json").write_text("{}")
    endpoint = f"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{collector.port}"
    daemon = Sampand(root, namespace, prefix=["env", endpoint, "OTEL_SERVICE_NAME=here"])
    try:
        daemon.start()
        yield daemon
    finally:
        _clean_up(daemon)


def test_a_start_is_part_of_its_clients_trace(
    traced: Sampand, collector: Collector, tmp_path: Path
) -> None:
    docker = DockerCli(CLI, traced.host, traced.root / "cli")
    archive = tmp_path / "busybox.tar"
    archive.write_bytes(busybox_archive())
    docker("load", "-i", str(archive))
    docker("create", "--name", "spans", "busybox", "true")
    url = "http://d/v1.45/containers/spans/start"
    subprocess.run(
        ["curl", "-sf", "--unix-socket", str(traced.socket), "-XPOST", "-H",
         f"traceparent: {_PARENT}", url], check=True,
    )  # fmt: skip
    docker("start", "nowhere", status=1)
    docker("pull", "127.0.0.1:1/nothing", status=1)
    assert docker("build", "-q", "-", input="FROM busybox\nRUN true\n").returncode == 0
    traced.stop()  # everything is told before it is gone
    assert collector.services == {"here"}

    requests = collector.find("/containers/{name}/start")
    given = next(span for span in requests if span.trace_id.hex() in _PARENT)
    assert given.parent_span_id.hex() == _PARENT.split("-")[2]
    assert given.kind == Span.SPAN_KIND_SERVER
    assert _attribute(given, "http.request.method") == "POST"
    (start,) = collector.find("start container")
    assert start.trace_id == given.trace_id
    assert start.parent_span_id == given.span_id
    assert len(_attribute(start, "container")) == 64

    (pull,) = collector.find("pull image")
    assert _attribute(pull, "image") == "127.0.0.1:1/nothing:latest"
    assert pull.status.code == 2
    assert len(collector.find("build image")) == 1


def test_an_exporter_that_cannot_be_is_told(namespace: str, tmp_path: Path) -> None:
    root = tmp_path / "untraced"
    (root / "cli").mkdir(parents=True)
    (root / "daemon.json").write_text("{}")
    daemon = Sampand(
        root,
        namespace,
        prefix=[
            "env",
            "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1",
            "OTEL_EXPORTER_OTLP_PROTOCOL=grpc",
        ],
    )
    try:
        daemon.start()
        assert "OTLP protocol grpc is not supported" in daemon.log()
    finally:
        _clean_up(daemon)


def test_nothing_is_loaded_without_configuration() -> None:
    script = (
        "import sys; from sampan.api import sampand; from sampan.engine.tracing import Tracing\n"
        "assert Tracing.configured({}, '1') is None\n"
        "print([name for name in sys.modules if 'opentelemetry' in name])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert found.stdout == "[]\n", found.stderr
