"""dockerd's flags and daemon.json: what is understood, what conflicts, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sampan.api.options import UsageError, merge, parse_flags, read_file, usage
from sampan.api.settings import Tls, interpret
from sampan.engine.config import AddressPool, ExternalRuntime, Ulimit
from sampan.errors import InvalidParameter, SampanError, Unsupported


def test_flags_are_read_as_pflag_reads_them() -> None:
    assert parse_flags(
        ["-D", "-H", "unix:///a", "--host=tcp://b", "-lwarn", "--icc=false", "--log-opt", "a=b=c"]
    ) == {
        "debug": True,
        "host": ["unix:///a", "tcp://b"],
        "log-level": "warn",
        "icc": False,
        "log-opt": {"a": "b=c"},
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nope"], "unknown flag: --nope"),
        (["-X"], "unknown shorthand flag: 'X' in -X"),
        (["--label"], "flag needs an argument: --label"),
        (["--icc=maybe"], 'invalid argument "maybe" for "--icc" flag: expected true or false'),
        (["--mtu", "x"], 'invalid argument "x" for "--mtu" flag: expected a whole number'),
        (["--log-opt", "x"], 'invalid argument "x" for "--log-opt" flag: expected key=value'),
        (["run"], '"sampand" accepts no arguments'),
    ],
)
def test_flags_that_cannot_be_understood(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_flags(arguments)
    assert caught.value.message == message


def write(directory: Path, value: object) -> Path:
    path = directory / "daemon.json"
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_the_example_of_dockers_documentation_is_understood(tmp_path: Path) -> None:
    file = read_file(
        write(
            tmp_path,
            {
                "hosts": ["unix:///a"],
                "proxies": {"http-proxy": "http://p:80"},
                "runtimes": {"custom": {"path": "/x", "runtimeArgs": ["--debug"]}},
                "default-ulimits": {"nofile": {"Hard": 2, "Name": "nofile", "Soft": 1}},
                "default-address-pools": [{"base": "172.30.0.0/16", "size": 24}],
                "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1234"}},
                "default-shm-size": "1.5G",
                "features": {"cdi": True},
                "dns": ["1.1.1.1"],
                "host-gateway-ip": "10.0.0.1",
                "tlsverify": True,
                "tlscacert": "/ca",
                "tlscert": "/cert",
                "tlskey": "/key",
                "storage-driver": "overlay2",
                "log-opts": {"max-file": "5"},
                "live-restore": True,
            },
        )
    )
    settings = interpret(file)
    engine = settings.engine
    assert settings.hosts == ("unix:///a",)
    assert settings.proxies == {"http-proxy": "http://p:80"}
    assert engine.runtimes == {"custom": ExternalRuntime(path="/x", args=("--debug",))}
    assert engine.default_ulimits == (Ulimit(name="nofile", soft=1, hard=2),)
    assert engine.address_pools == (AddressPool(base="172.30.0.0/16", size=24),)
    assert engine.network_options == {"bridge": {"com.docker.network.driver.mtu": "1234"}}
    assert engine.default_shm_size == 3 << 29
    assert engine.host_gateway_address == "10.0.0.1"
    assert engine.log_options == {"max-file": "5"}
    assert settings.tls == Tls(verify=True, ca="/ca", certificate="/cert", key="/key")


def test_flags_say_the_same() -> None:
    flags = parse_flags(
        [
            "--add-runtime=custom=/x",
            "--default-ulimit=nofile=1:2",
            "--default-ulimit=nproc=3",
            "--default-address-pool=base=172.30.0.0/16,size=24",
            "--default-network-opt=bridge=a=1=2",
            "--default-network-opt=bridge=b=",
            "--default-network-opt=ipvlan=c=3",
            "--iptables=false",
            "--bridge=none",
            "--group=0",
            "--seccomp-profile=builtin",
        ]
    )
    settings = interpret(flags)
    assert settings.engine.runtimes == {"custom": ExternalRuntime(path="/x")}
    assert [limit.hard for limit in settings.engine.default_ulimits] == [2, 3]
    assert settings.engine.address_pools == (AddressPool(base="172.30.0.0/16", size=24),)
    assert settings.engine.network_options == {
        "bridge": {"a": "1=2", "b": ""},
        "ipvlan": {"c": "3"},
    }
    assert not settings.engine.firewall
    assert not settings.engine.bridge_enabled
    assert settings.engine.seccomp_profile == ""
    assert (settings.group, settings.group_required) == ("0", True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"foo": 1, "bar": 2}, "the following directives don't match any configuration option: "
         "bar, foo"),
        ({"debug": "x"}, 'debug: expected a bool, got "x"'),
        ({"mtu": True}, "mtu: expected a int, got true"),
        ({"labels": 5}, "labels: expected a list, got 5"),
        ("[]", "expected a JSON object"),
        ("{", "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
    ],
)  # fmt: skip
def test_faulty_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InvalidParameter) as caught:
        read_file(write(tmp_path, content))
    assert caught.value.message == message


def test_an_option_given_twice_is_a_conflict() -> None:
    with pytest.raises(InvalidParameter) as caught:
        merge({"host": ["unix:///b"], "debug": True}, {"host": ["unix:///a"], "debug": False})
    assert caught.value.message == (
        "the following directives are specified both as a flag and in the configuration file: "
        "hosts: (from flag: [unix:///b], from file: [unix:///a]), "
        "debug: (from flag: true, from file: false)"
    )


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--containerd=/x", "containerd"),
        ("--live-restore=false", "live-restore"),
        ("--selinux-enabled", "selinux-enabled"),
        ("--userland-proxy=true", "userland-proxy"),
        ("--feature=windows-dns-proxy=true", "windows-dns-proxy"),
        ("--exec-opt=native.cgroupdriver=none", "exec-opt"),
        ("--storage-driver=zfs", "storage-driver"),
        ("--firewall-backend=iptables", "firewall-backend"),
        ("--host-gateway-ip=", "nothing"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(flag: str, name: str) -> None:
    if name == "nothing":
        interpret(parse_flags([flag]))
        return
    with pytest.raises(Unsupported, match=name):
        interpret(parse_flags([flag]))


@pytest.mark.parametrize(
    "flag",
    [
        "--log-level=loud",
        "--log-format=xml",
        "--mtu=5",
        "--label=x",
        "--default-runtime=nope",
        "--default-ulimit=nofile=many",
        "--default-shm-size=big",
        "--default-address-pool=base=1",
        "--default-ipc-mode=host",
        "--default-network-opt=bridge=x",
        "--default-network-opt==x=y",
        "--max-concurrent-downloads=0",
    ],
)
def test_values_out_of_range_are_refused(flag: str) -> None:
    with pytest.raises(SampanError):
        interpret(parse_flags([flag]))


def test_usage_lists_every_option() -> None:
    text = usage()
    assert "  -H, --host list" in text
    assert "--tlsverify" in text
