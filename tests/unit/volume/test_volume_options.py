"""What the local driver's options mean, and which are refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.errors import InvalidParameter
from sampan.kernel import mount as m
from sampan.volume.model import ANONYMOUS_LABEL, Volume, check_name
from sampan.volume.mounting import mount_data
from sampan.volume.options import size_limit, volume_mount
from sampan.volume.prune import prunable


def test_no_options_is_a_plain_directory() -> None:
    assert volume_mount({}) is None
    assert volume_mount({"type": "", "o": "", "device": ""}) is None


def test_options_are_those_of_mount() -> None:
    mount = volume_mount({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,ro,noexec,uid=7"})
    assert mount is not None
    assert mount.options.set_ == m.MOUNT_ATTR_RDONLY | m.MOUNT_ATTR_NOEXEC
    assert mount.options.data == (("size", "1m"), ("uid", "7"))
    nfs = volume_mount({"type": "nfs", "device": ":/srv", "o": "addr=nas.example,rw"})
    assert nfs is not None
    assert nfs.network_address == "nas.example"


@pytest.mark.parametrize(
    ("kind", "device", "words", "data"),
    [
        ("nfs", ":/srv", "addr=localhost,rw", [("addr", "127.0.0.1")]),
        ("nfs4", ":/srv", "addr=10.0.0.1,vers=4.2", [("addr", "10.0.0.1"), ("vers", "4.2")]),
        ("cifs", "//localhost/s", "username=u", [("username", "u"), ("addr", "127.0.0.1")]),
        ("cifs", "//10.0.0.2/s/t", "", [("addr", "10.0.0.2")]),
        ("cifs", "//nas/s", "ip=10.0.0.3", [("ip", "10.0.0.3")]),
        ("tmpfs", "tmpfs", "mode=700", [("mode", "700")]),
    ],
)
def test_servers_are_told_to_the_kernel_by_address(
    kind: str, device: str, words: str, data: list[tuple[str, str]]
) -> None:
    wanted = volume_mount({"type": kind, "device": device, "o": words})
    assert wanted is not None
    assert mount_data(wanted) == data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"typ": "tmpfs"}, 'invalid option: "typ"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"device": "/srv"}, 'missing required option: "type"'),
        ({"o": "ro"}, 'missing required option: "device"'),
        ({"type": "none", "device": "/srv"}, "needs bind"),
        ({"type": "none", "device": "srv", "o": "bind"}, "not an absolute path"),
        ({"type": "none", "device": "/srv", "o": "bind,size=1"}, "'size'"),
        ({"type": "none", "device": "/srv", "o": "bind,remount"}, "remount"),
    ],
)
def test_wrong_options_are_named(options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidParameter, match=message):
        volume_mount(options)


def test_size_of_a_directory() -> None:
    assert volume_mount({"size": "10m"}) is None
    assert [size_limit({"size": text}) for text in ("10m", "1.5K", "7", "1GiB", "")] == [
        10 << 20, 1536, 7, 1 << 30, 0,
    ]  # fmt: skip
    for text in ("0", "-1", "ten", "1x", "m"):
        with pytest.raises(InvalidParameter, match="size"):
            size_limit({"size": text})
    with pytest.raises(InvalidParameter, match="o=size="):
        volume_mount({"size": "10m", "type": "tmpfs", "device": "tmpfs"})


@pytest.mark.parametrize("name", ["", "a", "-ab", "a/b", "..", "a b", "a" * 256])
def test_bad_names(name: str) -> None:
    with pytest.raises(InvalidParameter):
        check_name(name)


def test_prune_takes_unreferenced_anonymous_volumes_only() -> None:
    def volume(name: str, **labels: str) -> Volume:
        return Volume(name=name, mountpoint=Path("/x"), created_at="", labels=labels)

    anonymous = {ANONYMOUS_LABEL: ""}
    volumes = [
        volume("named"),
        volume("anon", **anonymous),
        volume("used", **anonymous),
        volume("kept", keep="1", **anonymous),
    ]

    def names(**arguments: object) -> list[str]:
        return [v.name for v in prunable(volumes, {"used"}, **arguments)]  # type: ignore[arg-type]

    assert names() == ["anon", "kept"]
    assert names(everything=True) == ["named", "anon", "kept"]
    assert names(labels=["keep"]) == ["kept"]
    assert names(labels=["keep=2"]) == []
    assert names(without_labels=["keep=1"]) == ["anon"]
