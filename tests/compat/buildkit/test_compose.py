"""docker compose builds through BuildKit, with the buildx it brings along."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compat.clients.conftest import Fetch, fetched  # noqa: F401
from tests.compat.clients.test_compose import program  # noqa: F401
from tests.compat.conftest import DockerCli, Sampand

PROJECT = """
name: bkshop
services:
  one:
    build:
      context: app
      target: wanted
      args: {WHAT: asked}
      secrets: [token]
      labels: {b: "2", a: "1"}
    network_mode: none
  two:
    build:
      context: app
      dockerfile_inline: |
        FROM busybox
        COPY file /file
        CMD ["cat", "/file"]
    network_mode: none
secrets:
  token: {file: ./token}
"""
DOCKERFILE = """
FROM busybox AS wanted
ARG WHAT
RUN --mount=type=secret,id=token wc -c </run/secrets/token >/size && echo $WHAT >/what
CMD cat /what /size; exec sleep 1000
FROM wanted
RUN false
"""


@pytest.mark.usefixtures("fetched")
def test_a_project_is_built_and_not_made_anew(
    program: Path,  # noqa: F811
    sampand: Sampand,
    docker: DockerCli,
    tmp_path: Path,
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "compose.yaml").write_text(PROJECT)
    (tmp_path / "app" / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "app" / "file").write_text("contents\n")
    (tmp_path / "token").write_text("12345")
    cli = DockerCli(str(program), sampand.host, sampand.root / "cli")
    words = ("--project-directory", str(tmp_path), "--ansi=never", "--progress=plain")
    try:
        built = cli(*words, "build")
        assert "[one wanted 2/2] RUN --mount=type=secret" in built.stdout + built.stderr
        cli(*words, "up", "-d")
        assert "asked\n5" in cli.out(*words, "logs", "--no-log-prefix", "one")
        first = cli.out(*words, "ps", "-q", "one")
        again = cli(*words, "up", "-d", "--build", "one")
        assert "CACHED" in again.stdout + again.stderr
        assert cli.out(*words, "ps", "-q", "one") == first, "nothing had changed"
        assert docker.out("inspect", "-f", "{{.Config.Labels.a}}", "bkshop-one") == "1"
    finally:
        cli(*words, "down", "-t", "0", "--rmi", "local", status=None)
