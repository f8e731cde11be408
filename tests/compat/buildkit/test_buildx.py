"""docker buildx with the docker driver: what people do with it, and what they see."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tarfile
from pathlib import Path

from tests.compat.buildkit.conftest import Buildx
from tests.compat.conftest import TIMEOUT, DockerCli, Eventually, Sampand

DOCKERFILE = """\
FROM busybox AS base
WORKDIR /app
COPY one.txt .
FROM base
ENV COLOUR=blue
COPY --chown=1000 two.txt /two
RUN --mount=type=secret,id=token --mount=type=cache,target=/cache \\
    wc -c </run/secrets/token >/size && echo again >>/cache/log && cat /cache/log
CMD ["cat", "/app/one.txt", "/two", "/size"]
"""
SECRET = "a-secret-nobody-may-keep"


def test_a_build_is_made_once_and_then_cached(
    buildx: Buildx, docker: DockerCli, sampand: Sampand, context: Path, tmp_path: Path
) -> None:
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "one.txt").write_text("one\n")
    (context / "two.txt").write_text("two\n")
    (tmp_path / "token").write_text(SECRET)
    (tmp_path / "meta").write_text("")
    flags = (
        *("-t", "bk:one", "--label", "l=v", f"--secret=id=token,src={tmp_path / 'token'}"),
        *(f"--metadata-file={tmp_path / 'meta'}", f"--iidfile={tmp_path / 'iid'}"),
    )
    first = buildx.build(context, *flags).stderr
    for line in (
        "[base 1/3] FROM busybox",
        "[base 3/3] COPY one.txt .",
        "[stage-1 1/2] COPY --chown=1000 two.txt /two",
        "[stage-1 2/2] RUN --mount=type=secret,id=token",
        "naming to docker.io/library/bk:one done",
    ):
        assert line in first, first
    assert "CACHED" not in first
    assert docker.out("run", "--rm", "bk:one") == f"one\ntwo\n{len(SECRET)}"
    identity = docker.out("inspect", "-f", "{{.Id}}", "bk:one")
    assert (tmp_path / "iid").read_text() == identity
    metadata = json.loads((tmp_path / "meta").read_text())
    assert metadata["image.name"] == "docker.io/library/bk:one"
    assert metadata["containerimage.digest"] == identity
    assert docker.out("inspect", "-f", "{{.Config.Labels}}", "bk:one") == "map[l:v]"

    second = buildx.build(context, *flags).stderr
    assert second.count("CACHED") == 4, second
    assert docker.out("inspect", "-f", "{{.Id}}", "bk:one") == identity
    assert "again\n" in buildx.build(context, "--no-cache", *flags).stderr
    if not sampand.foreign:
        found = subprocess.run(
            ["grep", "-rlaF", SECRET, str(sampand.root)], capture_output=True, check=False
        )
        assert found.stdout == b"", "the secret is on disk"


def test_only_what_changed_is_sent(buildx: Buildx, docker: DockerCli, context: Path) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /ctx\nRUN ls -l /ctx/d0\n")
    (context / ".dockerignore").write_text("ignored\n")
    (context / "ignored").write_bytes(os.urandom(500_000))
    for number in range(20):
        (context / f"d{number}").mkdir()
        for name in range(10):
            (context / f"d{number}" / f"f{name}").write_bytes(os.urandom(5000))
    whole = buildx.statuses(context, "-t", "bk:two")["transferring context:"]
    assert 1_000_000 < whole < 1_200_000
    same = buildx.statuses(context, "-t", "bk:two")["transferring context:"]
    assert same < 40_000, "names and times alone"
    (context / "d3" / "f3").write_text("changed\n")
    (context / "d4" / "f4").unlink()
    shutil.rmtree(context / "d5")
    (context / "d5").symlink_to("d6")
    (context / "d7" / "f7").chmod(0o755)
    changed = buildx.statuses(context, "-t", "bk:two")["transferring context:"]
    assert changed < same + 6000
    script = "cat ctx/d3/f3; ls ctx/d4 | wc -l; readlink ctx/d5; stat -c %a ctx/d7/f7; ls ctx"
    shown = docker.out("run", "--rm", "-w", "/", "bk:two", "sh", "-c", script).splitlines()
    assert shown[:4] == ["changed", "9", "d6", "755"]
    assert "ignored" not in shown


def test_failures_show_the_lines(buildx: Buildx, context: Path) -> None:
    dockerfile = context / "Dockerfile"
    dockerfile.write_text("FROM busybox\n\nRUN echo some output; \\\n    exit 3\nCMD x\n")
    failed = buildx.build(context, status=1).stderr
    for line in (
        'ERROR: process "/bin/sh -c echo some output;     exit 3" did not complete '
        "successfully: exit code: 3",
        " > [2/2] RUN echo some output; exit 3:\n",
        "Dockerfile:3\n--------------------\n   2 |     \n"
        "   3 | >>> RUN echo some output; \\\n   4 | >>>     exit 3\n   5 |     CMD x\n",
        "ERROR: failed to build: failed to solve: process",
        "JSONArgsRecommended: JSON arguments recommended for CMD",
    ):
        assert line in failed, failed
    for text, message in (
        ("FROM busybox\nRUNN x\n", "2 | >>> RUNN x"),
        ("FROM busybox\nCOPY nope /\n", '"/nope": not found'),
        ("FROM busybox\nRUN --mount=type=secret,id=x,required true\n", "secret x: not found"),
        ("# syntax=some/frontend\nFROM busybox\n", "only docker/dockerfile is built in"),
        ("FROM busybox\nRUN --security=insecure true\n", "security=insecure"),
    ):
        dockerfile.write_text(text)
        assert message in buildx.build(context, status=1).stderr
    assert (
        'target stage "no" could not be found'
        in buildx.build(context, "--target=no", status=1).stderr
    )


def test_checks_outline_and_targets(buildx: Buildx, context: Path) -> None:
    (context / "Dockerfile").write_text(
        "# SIZE how large\nARG SIZE=1\nFROM busybox AS Small\nENV password=x\n"
        "FROM Small AS big\nRUN --mount=type=secret,id=tok true\n"
    )
    checked = buildx("build", "--check", str(context), status=1).stdout
    assert "Check complete, 2 warnings have been found!" in checked
    assert "WARNING: StageNameCasing" in checked
    assert "   4 | >>> ENV password=x" in checked
    outline = buildx.out("build", "--call=outline", str(context))
    assert [line.split() for line in outline.splitlines() if line] == [
        ["TARGET:", "big"],
        ["BUILD", "ARG", "VALUE", "DESCRIPTION"],
        ["SIZE", "1", "how", "large"],
        ["SECRET", "REQUIRED"],
        ["tok"],
    ]
    listed = json.loads(buildx.out("build", "--call=targets,format=json", str(context)))
    assert [one["name"] for one in listed["targets"]] == ["small", "big"]


def test_an_interrupted_build_leaves_nothing(
    buildx: Buildx, sampand: Sampand, context: Path, eventually: Eventually
) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo begun; exec sleep 987\n")
    process = buildx.popen("build", "--progress=plain", str(context))
    assert process.stderr is not None
    while b"begun" not in (line := process.stderr.readline()):
        assert line, process.communicate()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    if not sampand.foreign:
        eventually(lambda: not list((sampand.root / "exec" / "containers").iterdir()))
        assert subprocess.run(["pgrep", "-f", "sleep 987"], check=False).returncode == 1
        assert not list((sampand.root / "data" / "build" / "contexts").iterdir())
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo begun\n")
    buildx.build(context)


def test_outputs_go_where_they_should(buildx: Buildx, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /x/arch\nCOPY --chmod=4755 run /x/run\n"
    )
    for name in ("amd64", "arm64", "run"):
        (context / name).write_text(name)
    out = tmp_path / "out"
    both = "--platform=linux/amd64,linux/arm64"
    buildx.build(context, both, "-o", f"type=local,dest={out}")
    assert (out / "linux_arm64" / "x" / "arch").read_text() == "arm64"
    assert (out / "linux_amd64" / "x" / "run").stat().st_mode & 0o7777 == 0o4755
    (out / "stale").write_text("stale")
    (out / "linux_amd64" / "stale").write_text("stale")
    buildx.build(context, both, "-o", f"type=local,dest={out}")
    assert (out / "stale").exists()
    allow = "--allow=buildx.local.delete"
    buildx.build(context, both, "-o", f"type=local,dest={out},mode=delete", allow)
    assert sorted(path.name for path in out.iterdir()) == ["linux_amd64", "linux_arm64"]
    assert [path.name for path in (out / "linux_amd64").iterdir()] == ["x"]
    files = tmp_path / "files.tar"
    layout = tmp_path / "layout.tar"
    buildx.build(
        context,
        *(both, "-o", f"type=tar,dest={files}", "-o", f"type=oci,dest={layout}"),
        *("--provenance=mode=max", "--sbom=true", "-t", "bk:out"),
    )
    with tarfile.open(files) as archive:
        names = set(archive.getnames())
    assert {"linux_arm64/x/arch", "linux_amd64/provenance.json"} <= names
    with tarfile.open(layout) as archive:

        def read(path: str) -> dict[str, object]:
            member = archive.extractfile(path)
            assert member is not None
            found = json.loads(member.read())
            assert isinstance(found, dict)
            return found

        (top,) = read("index.json")["manifests"]  # type: ignore[misc]
        index = read("blobs/" + top["digest"].replace(":", "/"))
    platforms = [one["platform"]["architecture"] for one in index["manifests"]]  # type: ignore[attr-defined]
    assert platforms == ["amd64", "arm64", "unknown", "unknown"]


def test_contexts_agents_and_limits(buildx: Buildx, context: Path, tmp_path: Path) -> None:
    (context / "Dockerfile").write_text(
        "FROM base\nCOPY --from=other n.txt /n\n"
        "RUN --mount=type=bind,from=other,target=/o --mount=type=ssh \\\n"
        "    cat /n /o/n.txt /etc/hosts; ulimit -n; test -S $SSH_AUTH_SOCK && echo agent\n"
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "n.txt").write_text("named\n")
    agent = subprocess.run(
        ["ssh-agent", "-a", str(tmp_path / "agent")], capture_output=True, text=True, check=True
    )
    pid = int(agent.stdout.split("SSH_AGENT_PID=")[1].split(";")[0])
    try:
        shown = buildx.build(
            context,
            *(f"--build-context=other={other}", "--build-context=base=docker-image://busybox"),
            *("--add-host=far:1.2.3.4", "--ulimit=nofile=123:456", "--network=none"),
            f"--ssh=default={tmp_path / 'agent'}",
        ).stderr
    finally:
        os.kill(pid, signal.SIGTERM)
    words = [line.split(maxsplit=2)[-1] for line in shown.splitlines() if line.startswith("#")]
    assert words.count("named") == 2
    assert {"1.2.3.4\tfar", "123", "agent"} <= set(words), shown


def test_an_image_of_a_layout(
    buildx: Buildx, docker: DockerCli, context: Path, tmp_path: Path
) -> None:
    layout = tmp_path / "layout"
    (context / "Dockerfile").write_text("FROM busybox\nRUN echo based >/base\n")
    archive = tmp_path / "layout.tar"
    buildx.build(context, "-o", f"type=oci,dest={archive}", "-t", "bk:layout")
    layout.mkdir()
    subprocess.run(["tar", "-C", layout, "-xf", archive], check=True)
    (context / "Dockerfile").write_text(
        "FROM base\nCOPY --from=base /base /again\nRUN cat /base /again\n"
    )
    buildx("buildx", "prune", "-af")
    before = docker.out("images", "-aq", "--no-trunc")
    words = (f"--build-context=base=oci-layout://{layout}:latest", "-t", "bk:from-layout")
    buildx.build(context, *words)
    shown = docker.out("run", "--rm", "bk:from-layout", "cat", "/base", "/again")
    assert shown == "based\nbased"
    new = set(docker.out("images", "-aq", "--no-trunc").split()) - set(before.split())
    assert len(new) == 1, "the layout's image is nobody's here"
    index = json.loads((layout / "index.json").read_text())
    blob = layout / "blobs" / index["manifests"][0]["digest"].replace(":", "/")
    blob.write_bytes(blob.read_bytes() + b" ")
    assert "does not have that digest" in buildx.build(context, *words, status=None).stderr


def test_a_context_from_standard_input(buildx: Buildx, docker: DockerCli, context: Path) -> None:
    (context / "f").write_text("from the archive\n")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY f /f\nCMD cat /f\n")
    packed = subprocess.run(["tar", "-C", context, "-c", "."], capture_output=True, check=True)
    subprocess.run(
        [buildx.program, "build", "-q", "-t", "bk:tar", "-"],
        input=packed.stdout, env=buildx.environment, check=True, capture_output=True,
    )  # fmt: skip
    assert docker.out("run", "--rm", "bk:tar") == "from the archive"
    buildx("build", "-q", "-t", "bk:stdin", "-", input="FROM busybox\nCMD echo piped\n")
    assert docker.out("run", "--rm", "bk:stdin") == "piped"


def test_bake_links_its_targets(buildx: Buildx, docker: DockerCli, context: Path) -> None:
    (context / "docker-bake.json").write_text(
        json.dumps(
            {
                "target": {
                    "base": {"dockerfile-inline": "FROM busybox\nRUN echo based >/base"},
                    "app": {
                        "contexts": {"mine": "target:base"},
                        "dockerfile-inline": "FROM mine\nCMD cat /base",
                        "tags": ["bk:app"],
                    },
                    "tool": {
                        "contexts": {"mine": "target:base"},
                        "dockerfile-inline": "FROM busybox\nCOPY --from=mine /base /b\nCMD cat /b",
                        "tags": ["bk:tool"],
                    },
                }
            }
        )
    )
    words = ("buildx", "bake", f"--file={context / 'docker-bake.json'}", "app", "tool")
    buildx(*words, f"--allow=fs.read={context}")
    assert docker.out("run", "--rm", "bk:app") == "based"
    assert docker.out("run", "--rm", "bk:tool") == "based"


def test_the_builder_and_its_cache(buildx: Buildx, context: Path) -> None:
    assert "org.mobyproject.buildkit.worker.executor" in buildx.out("buildx", "inspect")
    (context / "Dockerfile").write_text("FROM busybox\nCOPY Dockerfile /d\nRUN echo cached >/x\n")
    buildx.build(context)
    kinds = {json.loads(line)["Type"] for line in _usage(buildx)}
    assert {"regular", "source.local"} <= kinds
    buildx("buildx", "prune", "-f", "--filter", "type=source.local")
    kinds = {json.loads(line)["Type"] for line in _usage(buildx)}
    assert "regular" in kinds
    assert "source.local" not in kinds
    buildx("buildx", "prune", "-af")
    assert _usage(buildx) == []
    assert "CACHED" not in buildx.build(context).stderr


def _usage(buildx: Buildx) -> list[str]:
    return buildx.out("buildx", "du", "--format=json").splitlines()


def test_a_policy_chooses_sources(
    buildx: Buildx, docker: DockerCli, context: Path, tmp_path: Path
) -> None:
    def policy(*rules: object) -> dict[str, str]:
        (tmp_path / "policy.json").write_text(json.dumps({"version": 1, "rules": rules}))
        return {"EXPERIMENTAL_BUILDKIT_SOURCE_POLICY": str(tmp_path / "policy.json")}

    def build(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [buildx.program, "build", "--progress=plain", "-t", "bk:policed", str(context)],
            env={**buildx.environment, **variables},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )

    docker("tag", "busybox", "chosen:1")
    (context / "Dockerfile").write_text("FROM nowhere.test/asked:1\nRUN true\n")
    source = "docker-image://nowhere.test/asked:*"
    target = "docker-image://docker.io/library/chosen:$1"
    selector = {"identifier": source}
    convert = {"action": "CONVERT", "selector": selector, "updates": {"identifier": target}}
    done = build(policy(convert))
    assert done.returncode == 0, done.stderr
    denied = build(policy({"action": "DENY", "selector": {"identifier": "docker-image://*"}}))
    assert "docker-image://nowhere.test/asked:1' denied by policy" in denied.stderr
    regular = {"identifier": ".*", "match_type": "REGEX"}
    refused = build(policy({"action": "DENY", "selector": regular}))
    assert "match by regular expressions are not supported" in refused.stderr


def test_what_is_built_without_the_cache_is_in_it_afterwards(
    buildx: Buildx, context: Path, tmp_path: Path
) -> None:
    """Also for a step that takes from another stage, which the cache knows by its definition."""
    (context / "Dockerfile").write_text(
        "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid > /u\n"
        "FROM scratch\nCOPY --from=one /u /u\n"
    )
    found = []
    for number, flags in enumerate(([], ["--no-cache"], [], ["--no-cache-filter=one"], [])):
        output = tmp_path / f"out{number}"
        buildx.build(context, *flags, f"--output={output}")
        found.append((output / "u").read_text())
    assert found[1] != found[0]
    assert found[2] == found[1]
    assert found[3] != found[2]
    assert found[4] == found[3]
