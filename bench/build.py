"""Builds beside dockerd's classic builder and buildah: rebuilds, changes, apt, stages.

Every engine builds the same Dockerfiles from the same directories. Packages come from a repository
of files inside the base image, so that no network is measured.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.peers import BIN, Engine, dockerd, program, sampand
from bench.timing import Row, alternate, medians

#: What the apt-based image installs, with what they need beyond mmdebstrap's minbase.
PACKAGES = ("nginx-light", "python3-minimal", "curl", "git", "less", "openssh-client")
STEPS, FILES, ROUNDS = 50, 20_000, 5
Build = Callable[[Path, str], list[str]]


def _classic(engine: Engine) -> Build:
    """The docker CLI's classic door."""

    def words(context: Path, tag: str) -> list[str]:
        docker = engine.docker("build", "-q", "-t", tag, str(context))
        return ["env", "DOCKER_BUILDKIT=0", *docker]

    return words


def _own(engine: Engine) -> Build:
    """sampan's own command line."""

    def words(context: Path, tag: str) -> list[str]:
        own = [str(BIN / "sampan"), "-H", f"unix://{engine.socket}", "build", "-q", "-t", tag]
        return [*own, str(context)]

    return words


def _buildah(root: Path) -> tuple[Build, list[str]]:
    path = program("buildah")
    if path is None:
        raise FileNotFoundError("buildah")
    base = [path, "--root", f"{root}/root", "--runroot", f"{root}/run"]
    base += ["--storage-driver", "overlay"]

    def words(context: Path, tag: str) -> list[str]:
        return [
            *base,
            "bud",
            "--layers",
            "-q",
            "--runtime",
            "runc",
            "--network",
            "host",
            "-t",
            tag,
            str(context),
        ]

    return words, base


@contextlib.contextmanager
def _engines(image: Path, name: str) -> Iterator[tuple[dict[str, Build], Engine]]:
    """Everybody, with the root file system ``image`` (a tar) as the image ``name``."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-build-")))
        ours, theirs = stack.enter_context(sampand()), stack.enter_context(dockerd())
        buildah, base = _buildah(scratch)
        for engine in (ours, theirs):
            engine.run("import", str(image), name)
        (scratch / "Dockerfile").write_text(f"FROM scratch\nADD {image.name} /\n")
        shutil.copy(image, scratch / image.name)
        subprocess.run(
            [*base, "bud", "-q", "-t", name, str(scratch)], check=True, capture_output=True
        )
        builds = {
            "sampan": _own(ours),
            "docker CLI": _classic(ours),
            "dockerd": _classic(theirs),
            "buildah": buildah,
        }
        try:
            yield builds, ours
        finally:
            subprocess.run([*base, "rmi", "-af"], capture_output=True, check=False)


def _call(build: Build, context: Path, tag: str) -> Callable[[], None]:
    def call() -> None:
        done = subprocess.run(build(context, tag), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{build(context, tag)}: {done.stderr.decode()[-2000:]}")

    return call


def _busybox(directory: Path) -> Path:
    from bench.peers import busybox_root

    path = directory / "busybox.tar"
    path.write_bytes(busybox_root())
    return path


def rebuild() -> Iterator[Row]:
    """A 50-step Dockerfile that is built already."""
    with tempfile.TemporaryDirectory(prefix="bench-context-") as directory:
        context = Path(directory) / "context"
        context.mkdir()
        (context / "f").write_text("x")
        lines = [f"RUN echo {number} > /f{number}" for number in range(STEPS - 2)]
        (context / "Dockerfile").write_text("\n".join(["FROM base", "COPY f /f", *lines]) + "\n")
        with _engines(_busybox(Path(directory)), "base") as (builds, _):
            calls = {name: _call(build, context, "noop") for name, build in builds.items()}
            times = medians(alternate(calls, ROUNDS, warm=1))
    what = "no-op rebuild of 50 steps"
    yield Row(f"{what}, docker CLI", times["docker CLI"], times["dockerd"], "dockerd", target=1.0)
    yield Row(f"{what}, own CLI", times["sampan"], times["dockerd"], "dockerd", target=1.0)
    yield Row(f"{what}, docker CLI", times["docker CLI"], times["buildah"], "buildah", target=0.1)


def change() -> Iterator[Row]:
    """One copied file of a context of 20,000 has changed; another COPY takes all the rest."""
    with tempfile.TemporaryDirectory(prefix="bench-context-") as directory:
        context = Path(directory) / "context"
        for number in range(FILES):
            path = context / "files" / str(number // 200) / str(number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{number}\n")
        (context / "Dockerfile").write_text(
            "FROM base\nCOPY files /files\nRUN echo deps > /deps\nCOPY main /main\n"
            "RUN cat /main > /copy\n"
        )
        turn = 0

        def changed(build: Build) -> Callable[[], None]:
            call = _call(build, context, "change")

            def both() -> None:
                nonlocal turn
                turn += 1
                (context / "main").write_text(f"version {turn}\n")
                call()

            return both

        with _engines(_busybox(Path(directory)), "base") as (builds, _):
            calls = {name: changed(build) for name, build in builds.items()}
            times = medians(alternate(calls, 3, warm=1))
    what = f"one changed file of {FILES}"
    for peer in ("dockerd", "buildah"):
        yield Row(f"{what}, own CLI", times["sampan"], times[peer], peer, target=0.5)
        yield Row(f"{what}, docker CLI", times["docker CLI"], times[peer], peer)


def _debian(directory: Path) -> Path:
    """A minimal Debian with a repository of packages at /repository; made once."""
    kept = Path(tempfile.gettempdir()) / "sampan-bench-apt.tar"
    if kept.exists():
        return kept
    for name in ("mmdebstrap", "dpkg-scanpackages", "apt-get"):
        if shutil.which(name) is None:
            raise FileNotFoundError(name)
    root = directory / "debian"
    subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=apt", "--format=directory", "bookworm", str(root)],
        check=True,
    )
    repository = root / "repository"
    repository.mkdir()
    options = [
        *("-o", f"Dir::State::status={root}/var/lib/dpkg/status"),
        *("-o", f"Dir::Cache::archives={directory}/archives"),
    ]
    (directory / "archives" / "partial").mkdir(parents=True)
    command = ["apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", *options]
    subprocess.run([*command, "install", *PACKAGES], check=True)
    for package in (directory / "archives").glob("*.deb"):
        shutil.copy(package, repository)
    index = subprocess.run(
        ["dpkg-scanpackages", "."], cwd=repository, check=True, capture_output=True
    )
    (repository / "Packages").write_bytes(index.stdout)
    for old in (root / "etc/apt/sources.list.d").glob("*"):
        old.unlink()
    (root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/repository ./\n")
    temporary = kept.with_suffix(".part")
    subprocess.run(
        ["tar", "-C", str(root), "--numeric-owner", "-cf", str(temporary), "."], check=True
    )
    shutil.rmtree(root)
    temporary.replace(kept)
    return kept


def apt() -> Iterator[Row]:
    """A cold build of an image of Debian packages, its downloads at hand."""
    with tempfile.TemporaryDirectory(prefix="bench-context-") as directory:
        context = Path(directory) / "context"
        context.mkdir()
        image = _debian(Path(directory))

        def cold(build: Build) -> Callable[[], None]:
            call = _call(build, context, "apt")

            def fresh() -> None:
                cold.turn += 1  # type: ignore[attr-defined]
                (context / "Dockerfile").write_text(
                    f"FROM debian\nENV TURN={cold.turn} DEBIAN_FRONTEND=noninteractive\n"  # type: ignore[attr-defined]
                    "RUN apt-get -qq update && apt-get -qq install -y --no-install-recommends "
                    f"{' '.join(PACKAGES)} && rm -rf /var/lib/apt/lists/*\n"
                    "RUN useradd -r app && mkdir /srv/app\nCOPY Dockerfile /srv/app/\nUSER app\n"
                )
                call()

            return fresh

        cold.turn = 0  # type: ignore[attr-defined]
        with _engines(image, "debian") as (builds, _):
            calls = {name: cold(build) for name, build in builds.items() if name != "docker CLI"}
            # nobody pays for what another has left to be written
            times = medians(alternate(calls, 5, warm=1, before=os.sync))
    for peer in ("dockerd", "buildah"):
        yield Row("cold apt-based image", times["sampan"], times[peer], peer, target=0.8)


def stages() -> Iterator[Row]:
    """Four independent stages, beside the same work one after another in one engine."""
    work = "RUN i=0; while [ $i -lt 600000 ]; do i=$((i+1)); done; echo $i > /out"
    with tempfile.TemporaryDirectory(prefix="bench-context-") as directory:
        several, serial = Path(directory) / "several", Path(directory) / "serial"
        for path in (several, serial):
            path.mkdir()
        turn = 0

        def written(path: Path, build: Build) -> Callable[[], None]:
            call = _call(build, path, path.name)

            def fresh() -> None:
                nonlocal turn
                turn += 1
                head = f"FROM base AS s{{}}\nENV TURN={turn}\n{work}\n"
                if path is several:
                    text = "".join(head.format(number) for number in range(4)) + "FROM scratch\n"
                    text += "".join(
                        f"COPY --from=s{number} /out /{number}\n" for number in range(4)
                    )
                else:
                    text = f"FROM base\nENV TURN={turn}\n" + f"{work}\n" * 4
                (path / "Dockerfile").write_text(text)
                call()

            return fresh

        with _engines(_busybox(Path(directory)), "base") as (builds, _):
            calls = {path.name: written(path, builds["sampan"]) for path in (several, serial)}
            times = medians(alternate(calls, 3, warm=1))
    cores = len(os.sched_getaffinity(0))
    yield Row(
        f"four independent stages, {cores} cores",
        times["several"],
        times["serial"],
        "one after another",
        target=1 / 1.7,
    )


def build() -> Iterator[Row]:
    """All of them."""
    yield from rebuild()
    yield from change()
    yield from apt()
    yield from stages()
