"""What becomes of a container's configuration: merging, mounts, names, security options."""

from __future__ import annotations

from random import Random

import pytest

from sampan.engine import capabilities, mountspec, names, security, validate
from sampan.engine.logconfig import parse_size
from sampan.engine.merge import command_line, environment, merge_config
from sampan.engine.record import MountRecord
from sampan.errors import InvalidParameter, Unsupported
from sampan.wire.container import ContainerConfig, HealthConfig, ImageConfig
from sampan.wire.hostconfig import Mount, MountVolumeOptions

IMAGE = ImageConfig(entrypoint=["/entry"], cmd=["default"], env=["A=image", "B=image"])


@pytest.mark.parametrize(
    ("user", "line"),
    [
        (ContainerConfig(), ["/entry", "default"]),
        (ContainerConfig(cmd=["mine"]), ["/entry", "mine"]),
        (ContainerConfig(entrypoint=["/mine"]), ["/mine"]),
        (ContainerConfig(entrypoint=[""], cmd=["sh"]), ["sh"]),
        (ContainerConfig(entrypoint=["a", "b"], cmd=["c"]), ["a", "b", "c"]),
    ],
)
def test_command(user: ContainerConfig, line: list[str]) -> None:
    path, args = command_line(merge_config(user, IMAGE))
    assert [path, *args] == line


def test_nothing_to_run() -> None:
    with pytest.raises(InvalidParameter, match="no command specified"):
        merge_config(ContainerConfig(), ImageConfig())


def test_environment() -> None:
    merged = merge_config(ContainerConfig(env=["A=mine", "PATH"]), IMAGE)
    assert merged.env == ["A=mine", "PATH", "B=image"]
    assert environment(merged, "host", []) == ["HOSTNAME=host", "A=mine", "B=image"]


def test_health_check_is_completed() -> None:
    image = ImageConfig(cmd=["x"], healthcheck=HealthConfig(test=["CMD", "probe"], retries=5))
    merged = merge_config(ContainerConfig(healthcheck=HealthConfig(retries=2)), image)
    assert merged.healthcheck is not None
    assert (merged.healthcheck.test, merged.healthcheck.retries) == (["CMD", "probe"], 2)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("/srv:/data", {"type": "bind", "source": "/srv", "destination": "/data"}),
        ("/srv:/data/:ro", {"destination": "/data", "writable": False, "create_source": True}),
        ("vol:/data:nocopy", {"type": "volume", "name": "vol", "copy_up": False}),
        ("/data", {"type": "volume", "name": "", "anonymous": True}),
        ("/a:/b:ro,rslave,Z", {"writable": False, "propagation": "rslave"}),
    ],
)
def test_bind(text: str, fields: dict[str, object]) -> None:
    found = mountspec.parse_bind(text)
    assert {name: getattr(found, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        ("/a:relative", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b:rw,ro", "invalid mode: rw,ro"),
        ("/a:/b:frob", "invalid mode: frob"),
        ("vol:ro", "invalid volume specification"),
        ("a/b:/c", "includes invalid characters for a local volume name"),
        ("vol:/c:rshared", "invalid volume specification"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
    ],
)
def test_bind_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        mountspec.parse_bind(text)
    assert message in raised.value.message


def test_mount_refused() -> None:
    for mount, message in (
        (Mount(type="bind", target="/x"), "field Source must not be empty"),
        (Mount(type="bind", source="x", target="/x"), "mount path must be absolute"),
        (Mount(type="magic", target="/x"), "mount type unknown: 'magic'"),
        (Mount(type="tmpfs", source="a", target="/x"), "field Source must not be specified"),
        (
            Mount(type="tmpfs", target="/x", volume_options=MountVolumeOptions()),
            "field VolumeOptions must not be specified",
        ),
        (
            Mount(type="volume", target="/x", volume_options=MountVolumeOptions(subpath="../y")),
            "subpath must be a relative path",
        ),
    ):
        with pytest.raises(InvalidParameter) as raised:
            mountspec.parse_mount(mount)
        assert message in raised.value.message


def test_mounts_combined() -> None:
    inherited = [MountRecord(type="bind", source="/old", destination="/a")]
    mine = mountspec.parse_bind("/new:/a")
    found = mountspec.combine(inherited, [mine], [], ["/t"], ["/a", "/v", "/t"])
    assert [(m.destination, m.source, m.anonymous) for m in found] == [
        ("/a", "/new", False),
        ("/v", "", True),
    ]
    with pytest.raises(InvalidParameter, match="Duplicate mount point: /a"):
        mountspec.combine([], [mine, mine], [], [], [])


def test_volumes_from() -> None:
    assert mountspec.parse_volumes_from("other:ro") == ("other", "ro")
    [taken] = mountspec.inherit([mountspec.parse_bind("/srv:/data")], "ro")
    assert (taken.writable, taken.create_source) == (False, False)


def test_capabilities() -> None:
    assert capabilities.effective([], [], privileged=False) == capabilities.DEFAULT
    assert capabilities.effective(["net_admin"], ["ALL"], privileged=False) == ("CAP_NET_ADMIN",)
    everything = capabilities.effective(["ALL"], ["CHOWN"], privileged=False)
    assert set(capabilities.ALL) - set(everything) == {"CAP_CHOWN"}
    with pytest.raises(InvalidParameter, match="not supported by your kernel"):
        capabilities.effective(["BPF"], [], privileged=False, available=("CAP_CHOWN",))


def test_security_options() -> None:
    found = security.parse_security_options(
        ["no-new-privileges", "seccomp=unconfined", "label:disable", "systempaths=unconfined"]
    )
    assert (found.no_new_privileges, found.seccomp) == (True, "unconfined")
    assert (found.labels, found.system_paths_confined) == (("disable",), False)
    for option in ("apparmor=mine", "label=type:x"):
        with pytest.raises(Unsupported):
            security.parse_security_options([option])


def test_names() -> None:
    random = Random(1)
    taken: set[str] = set()
    for _ in range(500):
        taken.add(names.check_name(names.random_name(random, taken)))
    assert len(taken) == 500
    assert names.check_name("/web.1") == "web.1"
    for bad in ("", "-x", "a/b", "x"):
        with pytest.raises(InvalidParameter, match="Invalid container name"):
            names.check_name(bad)


def test_signals_and_sizes() -> None:
    assert [validate.parse_signal(t) for t in ("TERM", "SIGKILL", "9", "rtmin+1")] == [
        15,
        9,
        9,
        35,
    ]
    for bad in ("0", "65", "FROB", "RTMAX+1"):
        with pytest.raises(InvalidParameter, match="invalid signal"):
            validate.parse_signal(bad)
    assert [parse_size(t) for t in ("10m", "1.5k", "-1", "7")] == [10 << 20, 1536, 0, 7]
