"""docker compose v2, built from its Go module: two services and what people do with them."""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.compat.clients.conftest import Fetch
from tests.compat.conftest import TIMEOUT, DockerCli, Eventually, Result, Sampand

VERSION = "v2.40.3"
PROJECT = """
name: shop
services:
  web:
    image: busybox
    command: ["sh", "-c", "cp /run/config /www/index.html; echo serving; exec httpd -f -h /www"]
    ports: ["127.0.0.1:0:80"]
    volumes: ["pages:/www"]
    configs: [{source: page, target: /run/config}]
    environment: {COLOUR: "${COLOUR:-green}"}
    networks: {front: {aliases: [shop]}}
    healthcheck:
      test: ["CMD", "wget", "-qO-", "http://localhost/"]
      interval: 300ms
      retries: 50
    stop_grace_period: 0s
  client:
    build: {context: ., args: {WHAT: asked}}
    depends_on: {web: {condition: service_healthy}}
    networks: [front]
    init: true
    deploy: {resources: {limits: {memory: 64m, cpus: "0.5"}}}
    labels: {role: client}
    stop_grace_period: 0s
  once:
    image: busybox
    command: ["true"]
    profiles: [extra]
networks:
  front: {ipam: {config: [{subnet: 10.79.0.0/24}]}}
volumes:
  pages:
configs:
  page: {content: "the page\\n"}
"""
DOCKERFILE = """
FROM busybox
ARG WHAT
RUN echo $WHAT >/what
CMD wget -qO- http://shop/ && cat /what && sleep 1000
"""


@dataclass(frozen=True)
class Compose(DockerCli):
    """The compose program on a project directory."""

    directory: Path = Path()

    @property
    def environment(self) -> dict[str, str]:
        # Without this compose takes any Linux daemon for one with BuildKit's gRPC in it.
        return {**super().environment, "DOCKER_BUILDKIT": "0"}

    def __call__(
        self, *arguments: str, input: str = "", status: int | None = 0, timeout: float = TIMEOUT
    ) -> Result:
        words = ("--project-directory", str(self.directory), "--ansi=never", *arguments)
        return super().__call__(*words, input=input, status=status, timeout=timeout)


@pytest.fixture(scope="session")
def program(fetched: Fetch) -> Path:
    """docker-compose, which its go.mod does not let ``go install`` build."""
    module = "github.com/docker/compose/v2/cmd"
    directory = fetched(
        f"compose-{VERSION}",
        [
            ["go", "mod", "init", "compose.test"],
            ["go", "get", f"{module}@{VERSION}"],
            ["go", "build", "-ldflags=-s -w", "-o", "docker-compose", module],
        ],
    )
    return directory / "docker-compose"


@pytest.fixture
def compose(
    program: Path, sampand: Sampand, docker: DockerCli, tmp_path: Path
) -> Iterator[Compose]:
    """A project of two services and one more on demand; taken down afterwards."""
    (tmp_path / "compose.yaml").write_text(PROJECT)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    found = Compose(str(program), sampand.host, sampand.root / "cli", tmp_path)
    yield found
    found("--profile", "extra", "down", "-v", "--rmi", "local", "--remove-orphans", status=None)
    for what in ("container", "volume", "network"):
        listed = docker.out(what, "ls", "-q", "--filter", "label=com.docker.compose.project=shop")
        assert listed == "", what


def test_up_use_down(compose: Compose, inside: str, eventually: Eventually) -> None:
    config = json.loads(compose.out("config", "--format", "json"))
    assert set(config["services"]) == {"web", "client"}
    compose("up", "-d", "--build")
    listed = [json.loads(line) for line in compose.out("ps", "--format", "json").splitlines()]
    services = {entry["Service"]: entry for entry in listed}
    assert {name: entry["State"] for name, entry in services.items()} == {
        "web": "running", "client": "running",
    }  # fmt: skip
    assert services["web"]["Health"] == "healthy"
    eventually(lambda: "asked" in compose.out("logs", "client"))
    assert re.search(r"client-1 +\| the page\n", compose.out("logs", "client"))
    assert compose.out("logs", "--no-log-prefix", "web") == "serving"
    assert compose.out("exec", "-T", "web", "sh", "-c", "echo $COLOUR") == "green"
    assert compose("exec", "-T", "client", "sh", "-c", "exit 4", status=4)
    host, port = compose.out("port", "web", "80").split(":")
    with socket.create_connection((host, int(port)), 10) as web:
        web.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert web.makefile("rb").read().endswith(b"the page\n")
    assert "sleep 1000" in compose.out("top", "client")
    assert sorted(compose.out("ps", "--services").splitlines()) == ["client", "web"]
    assert "shop-client" in compose.out("images")
    assert compose.out("ls", "--format", "json").count('"shop"') == 1
    compose("down")
    assert compose.out("ps", "-aq") == ""


def test_changes_are_applied(compose: Compose, docker: DockerCli) -> None:
    compose("up", "-d", "--wait", "web")
    first = compose.out("ps", "-q", "web")
    compose("up", "-d", "web")
    assert compose.out("ps", "-q", "web") == first
    again = Compose(compose.program, compose.host, compose.config, compose.directory)
    (compose.directory / ".env").write_text("COLOUR=blue\n")
    again("up", "-d", "--wait", "web")
    second = compose.out("ps", "-q", "web")
    assert second != first
    assert compose.out("exec", "-T", "web", "sh", "-c", "echo $COLOUR") == "blue"
    compose("pause", "web")
    assert docker.out("inspect", "-f", "{{.State.Status}}", second) == "paused"
    compose("unpause", "web")
    compose("restart", "-t", "0", "web")
    compose("stop", "web")
    assert docker.out("inspect", "-f", "{{.State.Status}}", second) == "exited"
    compose("start", "web")
    compose("kill", "web")
    compose("rm", "-f", "web")
    assert compose.out("ps", "-aq") == ""


def test_run_scale_cp_and_events(compose: Compose, tmp_path: Path) -> None:
    assert compose.out("run", "--rm", "-T", "--no-deps", "web", "echo", "once") == "once"
    compose("up", "-d", "--scale", "web=2", "--no-build", "web")
    assert len(compose.out("ps", "-q", "web").splitlines()) == 2
    events = compose.popen("--project-directory", str(compose.directory), "events", "--json")
    (tmp_path / "f").write_text("copied\n")
    compose("cp", str(tmp_path / "f"), "web:/tmp/f")
    assert compose.out("exec", "-T", "--index", "1", "web", "cat", "/tmp/f") == "copied"
    compose("kill", "-s", "KILL", "web")
    assert events.stdout is not None
    actions = []
    while actions.count("die") < 2:
        actions.append(json.loads(events.stdout.readline())["action"])
    events.kill()
    events.communicate()
    assert compose.out("up", "--exit-code-from", "once", "once").count("exited with code 0") == 1


def test_up_in_the_foreground_follows_and_stops(compose: Compose) -> None:
    process = compose.popen(
        "--project-directory", str(compose.directory), "--ansi=never", "up", "--no-color", "web"
    )
    assert process.stdout is not None
    while b"serving" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT)
    states = [json.loads(line) for line in compose.out("ps", "-a", "--format", "json").splitlines()]
    assert [entry["State"] for entry in states] == ["exited"]
