"""sampand's options: dockerd's flags and the keys of daemon.json, read into one mapping.

The table is the single list of what there is. An option is given by flag or in the file, never by
both (dockerd refuses that as well). What the values mean is :mod:`sampan.api.settings`' business.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from sampan.errors import InvalidParameter

Value = bool | int | str | list[object] | dict[str, object]


class Kind(Enum):
    """How an option is written."""

    BOOL = "bool"
    INT = "int"
    TEXT = "string"
    LIST = "list"
    MAP = "map"
    MAPS = "map of maps"


@dataclass(frozen=True, slots=True)
class Option:
    """One option: flag name, its kind, key in daemon.json ("" when only a flag), short flag."""

    flag: str
    kind: Kind
    key: str = ""
    short: str = ""
    help: str = ""


_B, _I, _T, _L, _M = Kind.BOOL, Kind.INT, Kind.TEXT, Kind.LIST, Kind.MAP
_MM = Kind.MAPS

OPTIONS: tuple[Option, ...] = (
    Option("add-runtime", _M, "runtimes", help="Register an additional OCI runtime (name=path)"),
    Option("allow-direct-routing", _B, "allow-direct-routing", help="Refused"),
    Option(
        "authorization-plugin", _L, "authorization-plugins", help="Plugins asked of each request"
    ),
    Option("bip", _T, "bip", help="IPv4 address (CIDR) of the default bridge"),
    Option("bip6", _T, "bip6", help="IPv6 address (CIDR) of the default bridge"),
    Option("bridge", _T, "bridge", "b", "Name of the default bridge; none for no default network"),
    Option("bridge-accept-fwmark", _T, "bridge-accept-fwmark", help="Refused"),
    Option(
        "builder",
        _M,
        "builder",
        help="Build cache (gc) and records of builds (history)",
    ),
    Option("cdi-spec-dir", _L, "cdi-spec-dirs", help="CDI specification directories"),
    Option("cgroup-parent", _T, "cgroup-parent", help="Parent cgroup of all containers"),
    Option("config-file", _T, help="Daemon configuration file"),
    Option("containerd", _T, "containerd", help="Refused: there is no containerd"),
    Option("containerd-namespace", _T, "containerd-namespace", help="Refused"),
    Option("containerd-plugins-namespace", _T, "containerd-plugins-namespace", help="Refused"),
    Option("cpu-rt-period", _I, "cpu-rt-period", help="Refused"),
    Option("cpu-rt-runtime", _I, "cpu-rt-runtime", help="Refused"),
    Option("cri-containerd", _B, "cri-containerd", help="Refused"),
    Option("data-root", _T, "data-root", help="Root directory of persistent state"),
    Option("debug", _B, "debug", "D", "Enable debug mode"),
    Option("default-address-pool", _L, "default-address-pools", help="Pools of new networks"),
    Option("default-cgroupns-mode", _T, "default-cgroupns-mode", help="host or private"),
    Option("default-gateway", _T, "default-gateway", help="IPv4 gateway of the default bridge"),
    Option(
        "default-gateway-v6", _T, "default-gateway-v6", help="IPv6 gateway of the default bridge"
    ),
    Option("default-ipc-mode", _T, "default-ipc-mode", help="shareable or private"),
    Option(
        "default-network-opt",
        _MM,
        "default-network-opts",
        help="Option of new networks of a driver (driver=name=value)",
    ),
    Option("default-runtime", _T, "default-runtime", help="Runtime of containers that name none"),
    Option("default-shm-size", _T, "default-shm-size", help="Size of /dev/shm (64m)"),
    Option("default-ulimit", _M, "default-ulimits", help="Default ulimits (name=soft[:hard])"),
    Option("dns", _L, "dns", help="DNS servers of containers"),
    Option("dns-opt", _L, "dns-opts", help="DNS options of containers"),
    Option("dns-search", _L, "dns-search", help="DNS search domains of containers"),
    Option(
        "exec-opt", _L, "exec-opts", help="Runtime options (native.cgroupdriver=cgroupfs|systemd)"
    ),
    Option("exec-root", _T, "exec-root", help="Root directory of execution state, on a tmpfs"),
    Option("experimental", _B, "experimental", help="Enable experimental features"),
    Option("feature", _M, "features", help="Switch features of the daemon"),
    Option("firewall", _T, "firewall", help="open, or respect-host: obey a host that drops"),
    Option("firewall-backend", _T, "firewall-backend", help="nftables is the only one"),
    Option("fixed-cidr", _T, "fixed-cidr", help="IPv4 subnet of the default bridge's containers"),
    Option(
        "fixed-cidr-v6", _T, "fixed-cidr-v6", help="IPv6 subnet of the default bridge's containers"
    ),
    Option("group", _T, "group", "G", "Group of the Unix sockets (docker)"),
    Option("host", _L, "hosts", "H", "Sockets to listen on (unix://, tcp://, fd://)"),
    Option("host-gateway-ip", _L, "host-gateway-ips", help="What host-gateway resolves to"),
    Option("http-proxy", _T, "proxies.http-proxy", help="HTTP proxy of outgoing traffic"),
    Option("https-proxy", _T, "proxies.https-proxy", help="HTTPS proxy of outgoing traffic"),
    Option("icc", _B, "icc", help="Traffic between containers of the default bridge"),
    Option("image-gc", _M, "image-gc", help="Remove unused images: max-age, max-size, keep-last"),
    Option("init", _B, "init", help="Run an init in containers"),
    Option("init-path", _T, "init-path", help="Refused: the init is built in"),
    Option("insecure-registry", _L, "insecure-registries", help="Registries without (valid) TLS"),
    Option("ip", _T, "ip", help="Host address that ports are published on"),
    Option("ip-forward", _B, "ip-forward", help="Enable IP forwarding"),
    Option("ip-forward-no-drop", _B, "ip-forward-no-drop", help="Always so"),
    Option("ip-masq", _B, "ip-masq", help="Masquerade what leaves the default bridge"),
    Option("ip6tables", _B, "ip6tables", help="As --iptables"),
    Option("iptables", _B, "iptables", help="Whether to add firewall rules (nftables)"),
    Option("ipv6", _B, "ipv6", help="IPv6 on the default bridge"),
    Option("label", _L, "labels", help="key=value labels of the daemon"),
    Option("live-restore", _B, "live-restore", help="Always so"),
    Option(
        "keep-referrers", _B, "keep-referrers", help="Pull what refers to images: signatures, SBOMs"
    ),
    Option("log-driver", _T, "log-driver", help="Default log driver of containers"),
    Option("log-format", _T, "log-format", help="text or json"),
    Option("log-level", _T, "log-level", "l", "debug, info, warn, error or fatal"),
    Option("log-opt", _M, "log-opts", help="Default log options of containers"),
    Option("max-concurrent-downloads", _I, "max-concurrent-downloads", help="Layers at once (3)"),
    Option("max-concurrent-uploads", _I, "max-concurrent-uploads", help="Layers at once (5)"),
    Option("max-download-attempts", _I, "max-download-attempts", help="Tries of each layer (5)"),
    Option("metrics-addr", _T, "metrics-addr", help="Address of the metrics API (host:port)"),
    Option("mtu", _I, "mtu", help="MTU of the default bridge network"),
    Option("network-control-plane-mtu", _I, "network-control-plane-mtu", help="Refused"),
    Option("no-new-privileges", _B, "no-new-privileges", help="Set on containers by default"),
    Option("no-proxy", _T, "proxies.no-proxy", help="Hosts that are reached without proxy"),
    Option("node-generic-resource", _L, "node-generic-resources", help="Refused"),
    Option("pidfile", _T, "pidfile", "p", "File for the daemon's process id"),
    Option("plugin-dir", _L, "plugin-dirs", help="Directories plugins are found in"),
    Option("raw-logs", _B, "raw-logs", help="Always so"),
    Option("registries-conf", _T, "registries-conf", help="registries.conf (version 2) to use"),
    Option("registry-mirror", _L, "registry-mirrors", help="Preferred mirrors"),
    Option("rootless", _B, "rootless", help="Refused"),
    Option("seccomp-profile", _T, "seccomp-profile", help="Path, builtin or unconfined"),
    Option("selinux-enabled", _B, "selinux-enabled", help="Refused"),
    Option("shutdown-timeout", _I, "shutdown-timeout", help="Seconds to end requests in (15)"),
    Option("signature-policy", _T, "signature-policy", help="policy.json of what may be pulled"),
    Option("signing-key", _T, "signing-key", help="Private key (PEM) that signs pushed images"),
    Option("storage-driver", _T, "storage-driver", "s", "overlay2 or vfs"),
    Option("storage-opt", _L, "storage-opts", help="Refused"),
    Option("swarm-default-advertise-addr", _T, "swarm-default-advertise-addr", help="Refused"),
    Option("tls", _B, "tls", help="Use TLS; implied by --tlsverify"),
    Option("tlscacert", _T, "tlscacert", help="Trust clients whose certificate this CA signed"),
    Option("tlscert", _T, "tlscert", help="TLS certificate"),
    Option("tlskey", _T, "tlskey", help="TLS key"),
    Option("tlsverify", _B, "tlsverify", help="Use TLS and verify the clients"),
    Option("userland-proxy", _B, "userland-proxy", help="There is none"),
    Option("userland-proxy-path", _T, "userland-proxy-path", help="Refused"),
    Option("userns-remap", _T, "userns-remap", help="User namespace of all containers"),
    Option("validate", _B, help="Check the configuration and exit"),
    Option("version", _B, "", "v", "Print version information and quit"),
    Option("help", _B, "", "h", "Print usage"),
)
_BY_FLAG = {option.flag: option for option in OPTIONS}
_BY_SHORT = {option.short: option for option in OPTIONS if option.short}
_BY_KEY = {option.key: option for option in OPTIONS if option.key}
#: other spellings in daemon.json
_KEY_ALIASES = {"host-gateway-ip": "host-gateway-ips", "graph": "data-root"}
_JSON_TYPES: dict[Kind, type | tuple[type, ...]] = {
    Kind.BOOL: bool,
    Kind.INT: int,
    Kind.TEXT: (str, int),
    Kind.LIST: (list, str),
    Kind.MAP: dict,
    Kind.MAPS: dict,
}


class UsageError(InvalidParameter):
    """The command line cannot be understood (exit status 125, as dockerd)."""


def parse_flags(arguments: Sequence[str]) -> dict[str, Value]:
    """The options on a command line, by flag name; raises :class:`UsageError`.

    Both ``--flag=value`` and ``--flag value`` are understood; a switch takes a value only with
    ``=`` (pflag's rules).
    """
    values: dict[str, Value] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        option, text = _split(word)
        if text is None:
            if option.kind is Kind.BOOL:
                text = "true"
            elif rest:
                text = rest.pop(0)
            else:
                raise UsageError(f"flag needs an argument: {word}")
        try:
            _PARSERS[option.kind](values, option.flag, text)
        except ValueError as error:
            raise UsageError(
                f'invalid argument "{text}" for "{_shown(option)}" flag: {error}'
            ) from None
    return values


def _split(word: str) -> tuple[Option, str | None]:
    if word.startswith("--") and len(word) > 2:
        name, equals, text = word[2:].partition("=")
        option = _BY_FLAG.get(name)
        if option is None:
            raise UsageError(f"unknown flag: --{name}")
        return option, text if equals else None
    if word.startswith("-") and len(word) > 1:
        option = _BY_SHORT.get(word[1])
        if option is None:
            raise UsageError(f"unknown shorthand flag: '{word[1]}' in {word}")
        text = word[2:]
        return option, text.removeprefix("=") if text else None
    raise UsageError('"sampand" accepts no arguments')


def _shown(option: Option) -> str:
    return f"-{option.short}, --{option.flag}" if option.short else f"--{option.flag}"


def _bool(values: dict[str, Value], name: str, text: str) -> None:
    if text.lower() not in ("1", "t", "true", "0", "f", "false"):
        raise ValueError("expected true or false")
    values[name] = text.lower() in ("1", "t", "true")


def _int(values: dict[str, Value], name: str, text: str) -> None:
    try:
        values[name] = int(text)
    except ValueError:
        raise ValueError("expected a whole number") from None


def _text(values: dict[str, Value], name: str, text: str) -> None:
    values[name] = text


def _list(values: dict[str, Value], name: str, text: str) -> None:
    found = values.setdefault(name, [])
    assert isinstance(found, list)
    found.append(text)


def _map(values: dict[str, Value], name: str, text: str) -> None:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise ValueError("expected key=value")
    found = values.setdefault(name, {})
    assert isinstance(found, dict)
    found[key] = value


def _maps(values: dict[str, Value], name: str, text: str) -> None:
    outer, _, pair = text.partition("=")
    key, equals, value = pair.partition("=")
    if not outer or not key or not equals:
        raise ValueError("expected name=key=value")
    found = values.setdefault(name, {})
    assert isinstance(found, dict)
    inner = found.setdefault(outer, {})
    assert isinstance(inner, dict)
    inner[key] = value


_PARSERS: dict[Kind, Callable[[dict[str, Value], str, str], None]] = {
    Kind.BOOL: _bool,
    Kind.INT: _int,
    Kind.TEXT: _text,
    Kind.LIST: _list,
    Kind.MAP: _map,
    Kind.MAPS: _maps,
}


def read_file(path: Path) -> dict[str, Value]:
    """The options in a daemon.json, by flag name; raises :class:`InvalidParameter`.

    OSError comes through when the file cannot be read.
    """
    text = path.read_text(encoding="utf-8")
    try:
        data = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise InvalidParameter(str(error)) from None
    if not isinstance(data, dict):
        raise InvalidParameter("expected a JSON object")
    proxies = data.pop("proxies", {})
    if not isinstance(proxies, dict):
        raise InvalidParameter("proxies: expected an object")
    data.update({f"proxies.{key}": value for key, value in proxies.items()})
    unknown = sorted(key for key in data if _KEY_ALIASES.get(key, key) not in _BY_KEY)
    if unknown:
        raise InvalidParameter(
            f"the following directives don't match any configuration option: {', '.join(unknown)}"
        )
    return dict(_from_file(key, value) for key, value in data.items())


def _from_file(key: str, value: object) -> tuple[str, Value]:
    option = _BY_KEY[_KEY_ALIASES.get(key, key)]
    expected = _JSON_TYPES[option.kind]
    if not isinstance(value, expected) or (
        isinstance(value, bool) and option.kind is not Kind.BOOL
    ):
        raise InvalidParameter(f"{key}: expected a {option.kind.value}, got {json.dumps(value)}")
    if option.kind is Kind.LIST and isinstance(value, str):
        value = [value]
    if option.kind is Kind.TEXT:
        value = str(value)
    assert isinstance(value, bool | int | str | list | dict)
    return option.flag, value


def merge(flags: Mapping[str, Value], file: Mapping[str, Value]) -> dict[str, Value]:
    """Both together; an option given in both is a conflict (:class:`InvalidParameter`)."""
    conflicts = [
        f"{_BY_FLAG[name].key}: (from flag: {_written(flags[name])}, "
        f"from file: {_written(file[name])})"
        for name in file
        if name in flags
    ]
    if conflicts:
        raise InvalidParameter(
            "the following directives are specified both as a flag and in the configuration file: "
            + ", ".join(conflicts)
        )
    return {**file, **flags}


def _written(value: Value) -> str:
    if isinstance(value, list):
        return f"[{' '.join(map(str, value))}]"
    return json.dumps(value) if isinstance(value, bool | dict) else str(value)


def usage() -> str:
    """The text of ``--help``."""
    lines = ["Usage:  sampand [OPTIONS]", "", "A container engine in Python.", "", "Options:"]
    for option in OPTIONS:
        short = f"-{option.short}, " if option.short else "    "
        kind = "" if option.kind is Kind.BOOL else f" {option.kind.value}"
        lines.append(f"  {short}--{option.flag}{kind}".ljust(42) + f" {option.help}")
    return "\n".join(lines) + _SOCKETS


_SOCKETS = """

Sockets (-H), as often as needed:
  unix:///path          a Unix socket, for its owner (root) and the group (-G)
  tcp://host:port       use --tlsverify, or everybody who can reach it is root
  fd://                 sockets handed over by socket activation
  unix:///path?mode=ro            a socket that can only read
  unix:///path?label=KEY=VALUE    a socket that sees and touches only objects with this label
                                  (%3D for further equals signs); no way to the host through it
"""
