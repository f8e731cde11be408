"""The OCI runtime validation programs (opencontainers/runtime-tools ``validation/``).

Each drives a runtime binary by ``create``, ``state``, ``start``, ``kill``, ``delete`` on bundles
that it makes, and tells in TAP how it went. They are built from their Go module, which nobody
keeps up with the specification any more: what fails here fails with Debian's runc 1.1.5 as well.
``SAMPAN_COMPAT_RUNTIME=runc`` runs them against that.

Their cgroups are ``/cgrouptest`` and below ``/sampan``: it is in the programs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest

from tests.compat.clients.conftest import Fetch, fetched
from tests.compat.runtime.test_engines import PROGRAM

__all__ = ["fetched"]

MODULE, VERSION = "github.com/opencontainers/runtime-tools", "v0.9.0"
RUNTIME = os.environ.get("SAMPAN_COMPAT_RUNTIME", str(PROGRAM))
#: The module is from before there were module files; these are what it was written against.
REQUIRED = {
    MODULE: VERSION,
    "github.com/opencontainers/runtime-spec": "v1.0.2",
    "github.com/opencontainers/selinux": "v1.2.2",
    "github.com/urfave/cli": "v1.22.17",
}
_AT_ONCE = 6
_SECONDS = 120

PROGRAMS = [
    "config_updates_without_affect",
    "create",
    "default",
    "delete",
    "delete_only_create_resources",
    "delete_resources",
    "hooks",
    "hooks_stdin",
    "hostname",
    "kill",
    "kill_no_effect",
    "killsig",
    "linux_cgroups_blkio",
    "linux_cgroups_cpus",
    "linux_cgroups_devices",
    "linux_cgroups_hugetlb",
    "linux_cgroups_memory",
    "linux_cgroups_network",
    "linux_cgroups_pids",
    "linux_cgroups_relative_blkio",
    "linux_cgroups_relative_cpus",
    "linux_cgroups_relative_devices",
    "linux_cgroups_relative_hugetlb",
    "linux_cgroups_relative_memory",
    "linux_cgroups_relative_network",
    "linux_cgroups_relative_pids",
    "linux_devices",
    "linux_masked_paths",
    "linux_mount_label",
    "linux_ns_itype",
    "linux_ns_nopath",
    "linux_ns_path",
    "linux_ns_path_type",
    "linux_process_apparmor_profile",
    "linux_readonly_paths",
    "linux_rootfs_propagation",
    "linux_seccomp",
    "linux_sysctl",
    "linux_uid_mappings",
    "misc_props",
    "mounts",
    "pidfile",
    "poststart",
    "poststart_fail",
    "poststop",
    "poststop_fail",
    "prestart",
    "prestart_fail",
    "process",
    "process_capabilities",
    "process_capabilities_fail",
    "process_oom_score_adj",
    "process_rlimits",
    "process_rlimits_fail",
    "process_user",
    "root_readonly_true",
    "start",
    "state",
]

#: Programs that end before they have tested anything on a machine like this: (what they say).
CANNOT = {
    "linux_cgroups_blkio": "no cgroup file blkio.leaf_weight",
    "linux_cgroups_hugetlb": "the hugetlb cgroup controller is missing",
    "linux_cgroups_network": "goroutine",  # the program has a bug: it stumbles over its own nil
    "linux_mount_label": "SELinux is not active here",
    "linux_process_apparmor_profile": "apparmor is not active here",
    "process_capabilities_fail": "MUST cause an error",  # its own: an unknown name is a warning
}
#: What fails with runc as well: program -> (pattern of descriptions, why).
EVERYWHERE = {
    "delete": ("delete.*MUST", "runc deletes a container that is created, and engines rely on it"),
    "hooks_stdin": ("stdin", "the status is 'creating' since 1.0.2; and it races with `true`"),
    "linux_cgroups_devices": ("10:229", "the program looks for a rule that it has not made"),
    "linux_cgroups_memory": ("memory kernel", "kernels since 6.1 know no limit of kernel memory"),
    "linux_cgroups_relative_blkio": ("exit status", "no cgroup file blkio.leaf_weight"),
    "linux_cgroups_relative_devices": ("10:229", "as linux_cgroups_devices"),
    "linux_cgroups_relative_hugetlb": ("exit status", "no hugetlb controller"),
    "linux_cgroups_relative_memory": ("memory kernel", "as linux_cgroups_memory"),
    "linux_cgroups_relative_network": ("exit status", "no net_cls controller"),
    "linux_rootfs_propagation": (
        "root propagation",
        "the program wants to mount without the right",
    ),
    "misc_props": ("unknown annotation key", "the program starts what it has not put there"),
    "pidfile": ("pid-file", "the program reads the file of another directory"),
    "process_capabilities": ("CAP_SYS_RESOURCE", "which this machine's root may not have"),
    "process_rlimits": ("RLIMIT_NOFILE", "hard limits cannot be raised without CAP_SYS_RESOURCE"),
    "start": ("exit status", "the program deletes by force what it has deleted"),
}


@dataclass(frozen=True)
class Outcome:
    """What a program wrote: TAP, and its and the runtime's complaints."""

    output: str
    errors: str
    status: int

    @property
    def failed(self) -> list[str]:
        return re.findall(r"^not ok \d+ -? ?(.*)$", self.output, re.MULTILINE)


@pytest.fixture(scope="module")
def workplace(fetched: Fetch) -> Path:
    """A directory with the programs, and with what they look for where they are started."""
    build = [
        "env",
        "GOFLAGS=-mod=mod",
        "CGO_ENABLED=0",
        "GOMAXPROCS=2",
        "go",
        "build",
        "-o",
        "bin/",
    ]
    place = fetched(
        f"runtime-tools-{VERSION}",
        [
            ["go", "mod", "init", "validation"],
            ["go", "mod", "edit", *(f"-require={name}@{REQUIRED[name]}" for name in REQUIRED)],
            ["mkdir", "bin", "tmp"],
            [*build, f"{MODULE}/cmd/runtimetest", f"{MODULE}/validation/..."],
            [
                "sh",
                "-c",
                f"cp $(go list -m -f '{{{{.Dir}}}}' {MODULE})/rootfs-*.tar.gz bin/runtimetest .",
            ],
        ],
    )
    shutil.rmtree(place / "tmp", ignore_errors=True)
    (place / "tmp").mkdir()
    return place


def perform(place: Path, name: str) -> Outcome:
    result = subprocess.run(
        [str(place / "bin" / name)],
        cwd=place,
        env={**os.environ, "RUNTIME": RUNTIME, "TMPDIR": str(place / "tmp")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    return Outcome(result.stdout, result.stderr, result.returncode)


@pytest.fixture(scope="module")
def outcomes(workplace: Path) -> dict[str, Outcome]:
    """All of them, a few at a time: mostly they wait. Those that share a cgroup, one by one."""
    relative = [name for name in PROGRAMS if name.startswith("linux_cgroups_relative")]
    absolute = [
        name
        for name in PROGRAMS
        if name.startswith(("linux_cgroups", "delete_")) and name not in relative
    ]
    rest = [[name] for name in PROGRAMS if name not in (*relative, *absolute)]

    def one_by_one(names: list[str]) -> list[tuple[str, Outcome]]:
        return [(name, perform(workplace, name)) for name in names]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(chain(*pool.map(one_by_one, [absolute, relative, *rest])))


@pytest.mark.parametrize("name", PROGRAMS)
def test_validation(outcomes: dict[str, Outcome], name: str) -> None:
    outcome = outcomes[name]
    if name in CANNOT and outcome.status:
        assert str(PROGRAM) != RUNTIME or CANNOT[name] in outcome.output + outcome.errors
        pytest.skip(f"{name}: {CANNOT[name]}")
    assert outcome.status == 0, outcome
    pattern, _ = EVERYWHERE.get(name, ("$^", ""))
    assert [text for text in outcome.failed if not re.search(pattern, text)] == [], outcome
