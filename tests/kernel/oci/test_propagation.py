"""``linux.rootfsPropagation`` and what each bind mount asks for, on a host that shares its mounts.

Where runc would leave a mount a peer of the host's that nobody asked to be, ours follows the host
and does not reach it.
"""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from sampan.runtime.oci_documents import template
from tests.kernel.oci.conftest import Config, Runtime

#: What "/", the bind mount, the mount below it in its source, and /proc are inside.
SEEN = [
    # Marks are kept, whatever the root is to be, unless the host's mounts were cut off before.
    (None, [], "master master master private"),
    (None, ["rslave"], "master master master private"),
    (None, ["private"], "master private master private"),
    (None, ["rshared"], "master shared,master shared,master private"),
    ("private", ["rslave"], "private master master private"),
    ("private", ["slave"], "private master master private"),
    ("private", ["rprivate"], "private private private private"),
    ("rprivate", [], "private private private private"),
    ("rprivate", ["rshared"], "private shared shared private"),
    ("slave", ["rprivate"], "master private private private"),
    ("rslave", ["shared"], "master shared,master master private"),
    ("shared", [], "shared shared shared private"),
    ("shared", ["rprivate"], "shared private private private"),
    ("rshared", ["rslave"], "shared master master shared"),
    ("rshared", ["rprivate"], "shared private private shared"),
    ("unbindable", ["rslave"], "unbindable master master private"),
    ("runbindable", ["rprivate"], "unbindable private private unbindable"),
]


def on_a_shared_host(runtime: Runtime, config: Config, before: str, after: str = "") -> str:
    """Run a container where "/" is shared, as systemd makes it; output of it and ``after``."""
    runtime.write(config)
    words = (runtime.program, "--root", runtime.root, "run", "--bundle", runtime.bundle, "c")
    script = f"{before}; {shlex.join(map(str, words))}; {after}"
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "shared", "sh", "-ec", script],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


def kinds(mountinfo: str) -> dict[str, str]:
    """Mount point -> its propagation (proc_pid_mountinfo(5), field 7)."""
    found: dict[str, str] = {}
    for line in mountinfo.splitlines():
        words = line.split()
        optional = words[6 : words.index("-")]
        found[words[4]] = ",".join(word.split(":")[0] for word in optional) or "private"
    return found


@pytest.mark.parametrize(("root", "marks", "seen"), SEEN)
def test_marks_of_mounts_are_kept(
    runtime: Runtime, tmp_path: Path, root: str | None, marks: list[str], seen: str
) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    config = runtime.config("c", "cat", "/proc/self/mountinfo")
    config["linux"].update({} if root is None else {"rootfsPropagation": root})
    config["mounts"] += [
        {"destination": "/m", "source": str(source), "options": ["rbind", *marks]},
    ]
    before = f"mount --bind {source} {source}; mount -t tmpfs x {source}/below"
    found = kinds(on_a_shared_host(runtime, config, before))
    assert " ".join(found[path] for path in ("/", "/m", "/m/below", "/proc")) == seen


@pytest.mark.parametrize(
    ("root", "follows"), [(None, True), ("slave", True), ("private", False), ("rprivate", False)]
)
def test_the_root_follows_its_source(runtime: Runtime, root: str | None, follows: bool) -> None:
    """What the host mounts in the bundle's root file system meanwhile; and nothing goes back."""
    inside = runtime.bundle / "rootfs"
    (inside / "late").mkdir()
    (inside / "own").mkdir()
    script = (
        "echo > /ready; until [ -e /done ]; do sleep 0.01; done; ls /late; mount -t tmpfs o /own"
    )
    config = runtime.config("c", "sh", "-c", script, mounts=template()["mounts"])
    for rights in config["process"]["capabilities"].values():
        rights.append("CAP_SYS_ADMIN")
    config["linux"].update({} if root is None else {"rootfsPropagation": root})
    late = (
        f"(until [ -e {inside}/ready ]; do sleep 0.01; done; mount -t tmpfs l {inside}/late;"
        f" touch {inside}/late/seen; touch {inside}/done) &"
    )
    before = f"mount --bind {inside} {inside}; {late} true"
    told = on_a_shared_host(runtime, config, before, "cat /proc/self/mountinfo")
    names, _, outside = told.partition("\n") if follows else ("", "", told)
    assert (names == "seen") is follows
    assert f"{inside}/late" in outside
    assert f"{inside}/own" not in outside
