"""``sampan bake``: what it makes of a file beside the real buildx, and what it builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compat.buildkit.conftest import Buildx, buildx, fetched, plugin
from tests.compat.conftest import DockerCli

__all__ = ["buildx", "fetched", "plugin"]

HCL = """
variable "TAG" { default = "x" }
variable "LIST" {
  type = list(string)
  default = ["a", "b"]
}
function "twice" {
  params = [s]
  variadic_params = rest
  result = "${s}-${s}${length(rest)}"
}
group "default" { targets = ["app", "db"] }
target "app" {
  matrix = { v = [1, 2], n = LIST }
  name = "app-${v}-${replace(n, ".", "-")}"
  tags = ["r/${TAG}:${v}", TAG == "x" ? "yes" : "no", notequal("a", TAG) && true ? "A" : ""]
  args = { A = "1", "B" = null, C = upper("x"), D = [for x in LIST : "${x}!" if x != "b"][0] }
  contexts = { for k in LIST : k => "target:${k}" }
  dockerfile-inline = <<EOT
FROM scratch
COPY a /
EOT
  platforms = ["linux/amd64"]
  cache-from = [{ type = "registry", ref = "x" }]
  target = target.db.target
  no-cache = !false
}
target "db" {
  inherits = ["base"]
  tags = ["db:1"]
  target = "final"
  args = { X = twice("v", 1), TAG = TAG }
  output = ["type=image", "type=local,dest=out"]
  secret = ["id=a,src=secret"]
}
target "base" {
  labels = { l = "1" }
  args = { Y = "base", X = "no" }
  platforms = ["linux/amd64", "linux/arm64"]
  cache-to = ["type=inline"]
}
target "a" { context = "." }
target "b" { context = "." }
"""
COMPOSE = """
services:
  web:
    image: "web:${TAG:-dev}"
    build:
      context: ./web
      args: [A=1, 'HOME=$$HOME']
      additional_contexts: {extra: ./x}
      x-bake: {platforms: [linux/arm64]}
  other: {build: ./other}
"""
CASES: list[tuple[str, tuple[str, ...]]] = [
    ("docker-bake.hcl", ()),
    ("docker-bake.hcl", ("app",)),
    ("docker-bake.hcl", ("db", "--set", "*.tags=q", "--set", "db.args.Z=1", "--var", "TAG=new")),
    ("docker-bake.hcl", ("a", "b", "--no-cache", "--pull")),
    ("docker-bake.hcl", ("a", "--load", "--sbom=true")),
    ("docker-bake.hcl", ("base", "--set", "*.platform=linux/arm64", "--set", "*.cache-from=u/a")),
    ("compose.yaml", ()),
]


def printed(cli: DockerCli, directory: Path, file: str, *words: str) -> Any:
    command = ["bake", "--print", "-f", str(directory / file), *words]
    prefix = ["buildx"] if isinstance(cli, Buildx) else []
    found = json.loads(cli(*prefix, *command).stdout)
    for group in found["group"].values():
        group["targets"].sort()  # buildx's order changes from run to run
    return found


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files, in the working directory: paths in them are relative to it."""
    (tmp_path / "docker-bake.hcl").write_text(HCL)
    (tmp_path / "compose.yaml").write_text(COMPOSE)
    (tmp_path / "secret").write_text("s")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_files_mean_what_they_mean_to_buildx(
    sampan: DockerCli, buildx: Buildx, directory: Path
) -> None:
    for file, words in CASES:
        ours = printed(sampan, directory, file, *words)
        theirs = printed(buildx, directory, file, *words)
        assert ours == theirs, (file, words)


def test_targets_are_built_from_one_another(
    sampan: DockerCli, directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "docker-bake.hcl").write_text(
        """
        target "default" {
          matrix = { v = ["1", "2"] }
          name = "app-${v}"
          contexts = { tool = "target:tool" }
          dockerfile-inline = "FROM tool\\nARG V\\nRUN echo $V > /v\\nCOPY secret /f\\n"
          args = { V = v }
          output = ["type=local,dest=out-${v}"]
        }
        target "tool" { dockerfile-inline = "FROM busybox\\nRUN echo tool > /tool\\n" }
        """
    )
    sampan("bake", "--metadata-file", "metadata", "--progress", "plain")
    assert [(tmp_path / f"out-{v}" / "v").read_text() for v in "12"] == ["1\n", "2\n"]
    assert (tmp_path / "out-1" / "tool").read_text() == "tool\n"
    assert set(json.loads((tmp_path / "metadata").read_text())) == {"app-1", "app-2"}
    failed = sampan("bake", "--set", "*.args.V=1", "--set", "tool.dockerfile-inline=NOPE", status=1)
    assert "unknown instruction: NOPE" in failed.stderr
