"""Authorization plugins: what they deny the docker command line is told in dockerd's words."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import DockerCli, Eventually, Sampand


def curl(
    daemon: Sampand, method: str, path: str, body: str = "", *headers: str
) -> tuple[int, dict[str, Any]]:
    """Status and JSON of an answer."""
    command = ["curl", "-s", "-X", method, "--unix-socket", str(daemon.socket)]
    command += ["-w", "\\n%{http_code}", f"http://d{path}"]
    for header in headers or ("Content-Type: application/json",):
        command += ["-H", header]
    if body:
        command += ["-d", "@-"]
    out = subprocess.run(command, input=body, capture_output=True, text=True, check=True).stdout
    text, _, status = out.rpartition("\n")
    return int(status), json.loads(text) if text.startswith("{") else {}


@dataclass
class Guard:
    """A plugin ``guard`` asked by the daemon."""

    directory: Path
    daemon: Sampand

    def deny(self, *rules: tuple[str, str, str, str]) -> None:
        (self.directory / "rules").write_text(json.dumps(rules))

    def calls(self, phase: str, part: str) -> list[dict[str, Any]]:
        lines = (self.directory / "calls").read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [call for call in found if call["phase"] == phase and part in call["RequestURI"]]


@pytest.fixture
def guard(sampand: Sampand, tmp_path: Path, eventually: Eventually) -> Iterator[Guard]:
    """The daemon is told of a plugin by SIGHUP, and to forget it afterwards."""
    if sampand.foreign:
        pytest.skip("needs a daemon of its own")
    socket = sampand.root / "plugins/guard.sock"
    socket.parent.mkdir(exist_ok=True)
    found = Guard(tmp_path, sampand)
    found.deny()
    (tmp_path / "calls").touch()
    command = [sys.executable, "-m", "tests.authzserver", str(socket), str(tmp_path)]
    with subprocess.Popen(command) as server:
        try:
            eventually(socket.exists)
            _configure(
                sampand,
                {"authorization-plugins": ["guard"]},
                eventually,
            )
            yield found
        finally:
            _configure(sampand, {}, eventually)
            server.terminate()
            socket.unlink(missing_ok=True)


def _configure(daemon: Sampand, options: dict[str, object], eventually: Eventually) -> None:
    (daemon.root / "daemon.json").write_text(json.dumps(options))
    before = daemon.log().count("configuration reloaded")
    os.kill(daemon.pid, signal.SIGHUP)
    eventually(lambda: daemon.log().count("configuration reloaded") > before)


def test_requests_and_answers_are_denied(
    guard: Guard, docker: DockerCli, name: str, sampand: Sampand
) -> None:
    guard.deny(
        ("POST", "/containers/create", "AuthZReq", "no new ones"),
        ("GET", "/images/json", "AuthZRes", "these are secret"),
        ("GET", "/networks", "AuthZReq", "!out of order"),
    )
    denied = docker("create", "--name", name, "busybox", status=1)
    assert "authorization denied by plugin guard: no new ones" in denied.stderr
    assert docker.out("ps", "-aq", "--filter", f"name={name}") == ""
    hidden = docker("images", status=1)
    assert "authorization denied by plugin guard: these are secret" in hidden.stderr
    assert "busybox" not in hidden.stdout
    failed = docker("network", "ls", status=1)
    assert "plugin guard failed with error: AuthZPlugin.AuthZReq: out of order" in failed.stderr
    status, body = curl(sampand, "POST", "/containers/create", "{}")
    assert (status, body["message"]) == (
        403,
        "authorization denied by plugin guard: no new ones",
    )
    guard.deny()
    docker("run", "--name", name, "-e", "SEEN=1", "busybox", "echo", "through")


def test_what_a_plugin_is_shown(guard: Guard, docker: DockerCli, name: str) -> None:
    ran = docker("run", "-i", "--name", name, "busybox", "cat", input="piped")
    assert ran.stdout == "piped"
    created = guard.calls("AuthZReq", "/containers/create")[-1]
    assert json.loads(created["RequestBody"])["Image"] == "busybox"
    assert created["RequestMethod"] == "POST"
    assert created["RequestHeaders"]["Content-Type"] == "application/json"
    answered = guard.calls("AuthZRes", "/containers/create")[-1]
    assert answered["ResponseStatusCode"] == 201
    assert "Id" in json.loads(answered["ResponseBody"])
    assert answered["ResponseHeaders"]["Content-Type"] == "application/json"
    assert guard.calls("AuthZReq", f"/containers/{json.loads(answered['ResponseBody'])['Id']}/wait")
    info = json.loads(docker.out("info", "--format", "{{json .Plugins}}"))
    assert info["Authorization"] == ["guard"]


def test_passwords_are_not_shown(guard: Guard, sampand: Sampand) -> None:
    secret = {"username": "u", "password": "hunter2", "serveraddress": "127.0.0.1:1"}
    curl(sampand, "POST", "/auth", json.dumps(secret))
    header = base64.urlsafe_b64encode(json.dumps(secret).encode()).decode()
    curl(
        sampand, "POST", "/images/create?fromImage=127.0.0.1:1/x", "", f"X-Registry-Auth: {header}"
    )
    assert guard.calls("AuthZReq", "/auth")
    assert guard.calls("AuthZReq", "/images/create")
    shown = (guard.directory / "calls").read_text()
    assert "hunter2" not in shown
    assert header not in shown


def test_a_body_that_is_not_shown_is_not_acted_on(guard: Guard, sampand: Sampand) -> None:
    body = json.dumps({"Image": "busybox"})
    status, answer = curl(sampand, "POST", "/containers/create", body, "Content-Type:")
    assert (status, answer["message"]) == (
        400,
        "Content-Type must be 'application/json' where authorization plugins decide",
    )
    padded = json.dumps({"Image": "busybox", "Labels": {"x": "y" * (1 << 20)}})
    status, answer = curl(sampand, "POST", "/containers/create", padded)
    assert status == 400
    assert "request body too large" in answer["message"]


def test_a_plugin_that_is_not_there(sampand: Sampand, eventually: Eventually) -> None:
    """The daemon keeps what it had, and says why."""
    (sampand.root / "daemon.json").write_text('{"authorization-plugins": ["nowhere"]}')
    os.kill(sampand.pid, signal.SIGHUP)
    told = 'error validating authorization plugin: plugin \\"nowhere\\" not found'
    eventually(lambda: told in sampand.log() or told.replace("\\", "") in sampand.log())
    (sampand.root / "daemon.json").write_text("{}")
    status, _ = curl(sampand, "GET", "/info")
    assert status == 200
