"""Many clients follow the log of one container: none loses a line, none slows the container."""

from __future__ import annotations

import socket
import subprocess

from tests.compat.conftest import DockerCli, Sampand

FOLLOWERS = 20
LINES = 20_000
#: Far more than sockets and pipes on the way hold, so that a client that waits would be felt.
LINE = "line-%05d-" + "x" * 190


def test_no_line_is_lost_and_a_client_that_does_not_read_slows_nobody(
    sampand: Sampand, docker: DockerCli, name: str
) -> None:
    script = (
        f"echo ready; cat; awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"{LINE}\\n\", i }}'"
    )
    docker("create", "-i", "--name", name, "busybox", "sh", "-c", script)
    holder = docker.popen("start", "-ai", name)  # its standard input's end is the sign to begin
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        with socket.socket(socket.AF_UNIX) as idle:
            idle.connect(str(sampand.host.removeprefix("unix://")))
            target = f"/containers/{name}/logs?follow=1&stdout=1"
            idle.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert idle.recv(12) == b"HTTP/1.1 200"  # and not a byte more
            followers = [
                subprocess.Popen(
                    [docker.program, "logs", "-f", name],
                    stdout=subprocess.PIPE,
                    env=docker.environment,
                    text=True,
                )
                for _ in range(FOLLOWERS)
            ]
            printed, _ = holder.communicate(timeout=240)
            assert docker.out("wait", name) == "0"
            expected = [LINE % number for number in range(LINES)]
            assert printed.decode().splitlines() == expected
            expected = ["ready", *expected]
            for follower in followers:
                text, _ = follower.communicate(timeout=240)
                assert follower.returncode == 0
                assert text.splitlines() == expected
    finally:
        holder.kill()
        holder.wait()
