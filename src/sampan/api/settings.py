"""What sampand's options mean: the engine's configuration and the server's, or a refusal.

An option that this engine cannot honour is refused by its name, never ignored.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from sampan.api.options import Value
from sampan.build import gcpolicy, retention
from sampan.build.gcpolicy import Settings as BuildGarbage
from sampan.build.retention import Retention
from sampan.engine.config import AddressPool, EngineConfig, ExternalRuntime, ImageGarbage, Ulimit
from sampan.engine.filters import parse_duration
from sampan.errors import InvalidParameter, Unsupported

DEFAULT_SOCKET = "unix:///run/sampan.sock"
DEFAULT_PIDFILE = "/run/sampan.pid"
DEFAULT_CONFIG_FILE = Path("/etc/sampan/daemon.json")
#: ``--firewall``: published ports work whatever the host drops by default, or only as it lets
FIREWALLS = ("open", "respect-host")
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Certificates of the TCP sockets; with ``verify`` clients must show one ``ca`` signed."""

    verify: bool
    ca: str
    certificate: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything the daemon is started with."""

    engine: EngineConfig
    hosts: tuple[str, ...] = (DEFAULT_SOCKET,)
    group: str = "docker"
    group_required: bool = False
    pidfile: Path = Path(DEFAULT_PIDFILE)
    log_level: str = "info"
    log_format: str = "text"
    metrics_address: str = ""
    tls: Tls | None = None
    proxies: Mapping[str, str] = field(default_factory=dict)
    buildkit: bool = True
    authorization_plugins: tuple[str, ...] = ()


#: options that are refused whatever they say, with the reason
_REFUSED = {
    "allow-direct-routing": "published ports are the only way in",
    "bridge-accept-fwmark": "firewall marks are not looked at",
    "containerd": "there is no containerd",
    "containerd-namespace": "there is no containerd",
    "containerd-plugins-namespace": "there is no containerd",
    "cpu-rt-period": "set it per container",
    "cpu-rt-runtime": "set it per container",
    "init-path": "the init is built in",
    "network-control-plane-mtu": "swarm mode is not supported",
    "node-generic-resource": "swarm mode is not supported",
    "storage-opt": "the storage drivers have no options",
    "swarm-default-advertise-addr": "swarm mode is not supported",
    "userland-proxy-path": "ports are forwarded by the kernel, there is no proxy",
}
#: switches that can only be one way, with the reason
_FIXED: dict[str, tuple[bool, str]] = {
    "cri-containerd": (False, "there is no containerd"),
    "rootless": (False, "rootless mode is chosen by running as a user"),
    "selinux-enabled": (False, "SELinux labels are not set"),
    "userland-proxy": (False, "ports are forwarded by the kernel, there is no proxy"),
    "live-restore": (True, "containers never depend on the daemon"),
    "ip-forward-no-drop": (True, "the FORWARD policy is never changed"),
    "raw-logs": (True, "logs are never coloured"),
}
_FEATURES = {"cdi": True, "containerd-snapshotter": False}
_STORAGE = {"": "auto", "overlay": "overlay", "overlay2": "overlay", "overlayfs": "overlay"}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)


def interpret(values: Mapping[str, Value]) -> Settings:
    """The settings that options (by flag name) ask for.

    Raises :class:`Unsupported` or :class:`InvalidParameter`, naming the option.
    """
    options = _Options(values)
    _refuse(options)
    engine = _engine(options)
    tls = _tls(options)
    hosts = options.strings("host")
    level = "debug" if engine.debug else (options.text("log-level") or "info")
    return Settings(
        engine=engine,
        hosts=hosts or (DEFAULT_SOCKET,),
        group=options.text("group") or "docker",
        group_required="group" in values,
        pidfile=Path(options.text("pidfile") or DEFAULT_PIDFILE),
        log_level=_one_of("log-level", level, LOG_LEVELS),
        log_format=_one_of("log-format", options.text("log-format") or "text", ("text", "json")),
        metrics_address=options.text("metrics-addr"),
        tls=tls,
        proxies={
            name: options.text(name)
            for name in ("http-proxy", "https-proxy", "no-proxy")
            if options.text(name)
        },
        authorization_plugins=options.strings("authorization-plugin"),
        buildkit=_on(options.table("feature").get("buildkit", True)),
    )


def _on(wanted: object) -> bool:
    return wanted is True or str(wanted).lower() == "true"


def with_environment(settings: Settings, environment: Mapping[str, str]) -> Settings:
    """``settings`` with the engine's proxies: the options', else the environment's; and the system
    bus (``DBUS_SYSTEM_BUS_ADDRESS``, where it is a socket with a name)."""

    def proxy(name: str) -> str:
        variable = name.upper().replace("-", "_")
        known = settings.proxies.get(name) or environment.get(variable)
        return known or environment.get(variable.lower(), "")

    engine = replace(
        settings.engine,
        http_proxy=proxy("http-proxy"),
        https_proxy=proxy("https-proxy"),
        no_proxy=proxy("no-proxy"),
    )
    kind, _, path = environment.get("DBUS_SYSTEM_BUS_ADDRESS", "").partition(",")[0].partition("=")
    if kind == "unix:path":
        engine = replace(engine, system_bus=path)
    return replace(settings, engine=engine)


class _Options:
    """Typed look-ups in a mapping of options."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        self.values = values

    def text(self, name: str) -> str:
        return str(self.values.get(name, ""))

    def switch(self, name: str, default: bool) -> bool:
        return bool(self.values.get(name, default))

    def number(self, name: str, default: int, minimum: int = 1) -> int:
        value = self.values.get(name, default)
        if not isinstance(value, int) or value < minimum:
            raise InvalidParameter(f"{name}: expected a number from {minimum} on, got {value!r}")
        return value

    def strings(self, name: str) -> tuple[str, ...]:
        value = self.values.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidParameter(f"{name}: expected a list of strings")
        return tuple(str(item) for item in value)

    def table(self, name: str) -> dict[str, object]:
        value = self.values.get(name, {})
        if not isinstance(value, dict):
            raise InvalidParameter(f"{name}: expected an object")
        return value


def _refuse(options: _Options) -> None:
    for name, reason in _REFUSED.items():
        if options.values.get(name):
            raise Unsupported(f"option {name} is not supported: {reason}")
    for name, (only, reason) in _FIXED.items():
        if name in options.values and options.values[name] is not only:
            raise Unsupported(f"option {name} can only be {str(only).lower()}: {reason}")
    for feature, wanted in options.table("feature").items():
        on = _on(wanted)
        if feature != "buildkit" and _FEATURES.get(feature) is not on:
            raise Unsupported(f"feature {feature}={str(on).lower()} is not supported")
    for item in options.strings("exec-opt"):
        if item.removeprefix("native.cgroupdriver=") not in ("cgroupfs", "systemd"):
            raise Unsupported(f"exec-opt {item} is not supported")
    if options.text("firewall-backend") not in ("", "nftables"):
        raise Unsupported("option firewall-backend can only be nftables")


def _engine(options: _Options) -> EngineConfig:
    default = EngineConfig()
    bridge = options.text("bridge")
    storage = options.text("storage-driver")
    if storage not in (*_STORAGE, "vfs"):
        raise Unsupported(f"storage-driver {storage} is not supported: use overlay2 or vfs")
    config = EngineConfig(
        data_root=_directory(options, "data-root", default.data_root),
        exec_root=_directory(options, "exec-root", default.exec_root),
        cgroup_parent=options.text("cgroup-parent"),
        cgroup_driver=next(
            (item.partition("=")[2] for item in reversed(options.strings("exec-opt"))),
            default.cgroup_driver,
        ),
        storage_driver=_STORAGE.get(storage, "copy"),
        bridge=bridge if bridge not in ("", "none") else default.bridge,
        bridge_enabled=bridge != "none",
        bridge_address=options.text("bip"),
        fixed_cidr=options.text("fixed-cidr"),
        default_gateway=options.text("default-gateway"),
        bridge_ipv6=options.switch("ipv6", False),
        bridge_address6=options.text("bip6"),
        fixed_cidr6=options.text("fixed-cidr-v6"),
        default_gateway6=options.text("default-gateway-v6"),
        bridge_mtu=options.number("mtu", default.bridge_mtu, 68),
        icc=options.switch("icc", True),
        ip_forward=options.switch("ip-forward", True),
        ip_masquerade=options.switch("ip-masq", True),
        firewall=options.switch("iptables", True) and options.switch("ip6tables", True),
        respect_host=_one_of("firewall", options.text("firewall") or "open", FIREWALLS)
        == "respect-host",
        publish_address=options.text("ip") or default.publish_address,
        address_pools=_pools(options),
        dns=options.strings("dns"),
        dns_options=options.strings("dns-opt"),
        dns_search=options.strings("dns-search"),
        host_gateway_address=_host_gateway(options),
        default_init=options.switch("init", False),
        userns_remap=options.text("userns-remap"),
        no_new_privileges=options.switch("no-new-privileges", False),
        experimental=options.switch("experimental", False),
        build_gc=_build_gc(options, _directory(options, "data-root", default.data_root)),
        build_history=_build_history(options),
        cdi_spec_dirs=options.strings("cdi-spec-dir") or default.cdi_spec_dirs,
        plugin_directories=(
            *(Path(text).absolute() for text in options.strings("plugin-dir")),
            *default.plugin_directories,
        ),
    )
    return _containers(reloadable(config, options.values), options)


def _network_options(options: _Options) -> dict[str, dict[str, str]]:
    """By driver."""
    name, found = "default-network-opt", {}
    for driver, given in options.table(name).items():
        if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
            raise InvalidParameter(f"{name}: expected an object of strings for driver {driver}")
        found[driver] = {str(key): str(value) for key, value in given.items()}
    return found


def _containers(config: EngineConfig, options: _Options) -> EngineConfig:
    """Defaults of new containers and networks."""
    driver = options.text("log-driver") or config.log_driver
    given = {key: str(value) for key, value in options.table("log-opt").items()}
    seccomp = options.text("seccomp-profile")
    return replace(
        config,
        log_driver=driver,
        log_options={**config.log_options, **given},
        network_options=_network_options(options),
        default_ulimits=_ulimits(options),
        default_shm_size=_size(options, "default-shm-size", config.default_shm_size),
        default_ipc_mode=options.text("default-ipc-mode") or config.default_ipc_mode,
        default_cgroupns_mode=options.text("default-cgroupns-mode"),
        seccomp_profile="" if seccomp == "builtin" else seccomp,
    )


def reloadable(config: EngineConfig, values: Mapping[str, Value]) -> EngineConfig:
    """``config`` with what SIGHUP may change taken from ``values`` (dockerd.md, "reload")."""
    options = _Options(values)
    default = EngineConfig()
    runtimes = _runtimes(options)
    chosen = options.text("default-runtime") or default.default_runtime
    if chosen not in runtimes and chosen not in (default.default_runtime, "runc", "crun"):
        raise InvalidParameter(f"default-runtime: specified runtime {chosen} is not registered")
    return replace(
        config,
        debug=options.switch("debug", False),
        labels=_labels(options),
        runtimes=runtimes,
        default_runtime=chosen,
        insecure_registries=options.strings("insecure-registry"),
        registry_mirrors=options.strings("registry-mirror"),
        image_gc=_image_gc(options),
        registries_conf=options.text("registries-conf"),
        signature_policy=options.text("signature-policy"),
        signing_key=options.text("signing-key"),
        keep_referrers=options.switch("keep-referrers", False),
        max_concurrent_downloads=options.number(
            "max-concurrent-downloads", default.max_concurrent_downloads
        ),
        max_concurrent_uploads=options.number(
            "max-concurrent-uploads", default.max_concurrent_uploads
        ),
        max_download_attempts=options.number(
            "max-download-attempts", default.max_download_attempts
        ),
        shutdown_timeout=options.number("shutdown-timeout", default.shutdown_timeout, 0),
    )


def _labels(options: _Options) -> tuple[str, ...]:
    labels = options.strings("label")
    for label in labels:
        if "=" not in label:
            raise InvalidParameter(f"label: bad attribute format: {label}")
    return labels


def _directory(options: _Options, name: str, default: Path) -> Path:
    text = options.text(name)
    return Path(text).absolute() if text else default


def _host_gateway(options: _Options) -> str:
    found = options.strings("host-gateway-ip")
    if len(found) > 1:
        raise Unsupported("host-gateway-ip: only one address is supported")
    return found[0] if found else ""


def _runtimes(options: _Options) -> dict[str, ExternalRuntime]:
    return {name: _runtime(name, spec) for name, spec in options.table("add-runtime").items()}


def _runtime(name: str, spec: object) -> ExternalRuntime:
    if isinstance(spec, str):
        return ExternalRuntime(path=spec)
    if not isinstance(spec, dict) or spec.keys() - {"path", "runtimeArgs"}:
        raise InvalidParameter(f"runtimes: {name}: expected an object with path and runtimeArgs")
    path, arguments = spec.get("path"), spec.get("runtimeArgs", [])
    if not isinstance(path, str) or not isinstance(arguments, list):
        raise InvalidParameter(f"runtimes: {name}: expected a path and a list of arguments")
    return ExternalRuntime(path=path, args=tuple(map(str, arguments)))


def _ulimits(options: _Options) -> tuple[Ulimit, ...]:
    found: list[Ulimit] = []
    for name, spec in options.table("default-ulimit").items():
        if isinstance(spec, dict):
            soft, hard = spec.get("Soft"), spec.get("Hard")
        else:
            soft_text, _, hard_text = str(spec).partition(":")
            soft, hard = _whole(soft_text), _whole(hard_text or soft_text)
        if not isinstance(soft, int) or not isinstance(hard, int):
            raise InvalidParameter(f"default-ulimits: {name}: expected soft and hard limits")
        found.append(Ulimit(name=name, soft=soft, hard=hard))
    return tuple(found)


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"-?[0-9]+", text) else None


def _pools(options: _Options) -> tuple[AddressPool, ...]:
    given = options.values.get("default-address-pool", [])
    found: list[AddressPool] = []
    for spec in given if isinstance(given, list) else [given]:
        if isinstance(spec, str):
            spec = dict(part.partition("=")[::2] for part in spec.split(","))
        if not isinstance(spec, dict) or set(spec) != {"base", "size"}:
            raise InvalidParameter("default-address-pools: expected base and size")
        size = _whole(str(spec["size"]))
        if size is None:
            raise InvalidParameter("default-address-pools: size: expected a number")
        found.append(AddressPool(base=str(spec["base"]), size=size))
    return tuple(found)


def _build_gc(options: _Options, root: Path) -> BuildGarbage:
    """daemon.json's ``builder.gc``; percentages are of the disk the data root is on."""
    builder = options.table("builder")
    for name in builder:
        if name not in ("gc", "entitlements", "history"):
            raise InvalidParameter(f"builder: unknown key {name!r}")
    if builder.get("entitlements"):
        raise Unsupported("builder.entitlements is not supported: builds name what they may do")
    document = builder.get("gc") or {}
    if not isinstance(document, dict):
        raise InvalidParameter("builder.gc: expected an object")
    while not root.exists():
        root = root.parent
    status = os.statvfs(root)
    return gcpolicy.parse(document, status.f_blocks * status.f_frsize)


def _build_history(options: _Options) -> Retention:
    """daemon.json's ``builder.history``."""
    document = options.table("builder").get("history") or {}
    if not isinstance(document, dict):
        raise InvalidParameter("builder.history: expected an object")
    return retention.parse(document)


def _image_gc(options: _Options) -> ImageGarbage:
    table = {name: str(value) for name, value in options.table("image-gc").items()}
    if unknown := sorted(table.keys() - {"max-age", "max-size", "keep-last"}):
        raise InvalidParameter(f"image-gc: unknown key {unknown[0]!r}")
    keep = _whole(table.get("keep-last", "0"))
    if keep is None or keep < 0:
        raise InvalidParameter("image-gc: keep-last: expected a number from 0 on")
    age, size = table.get("max-age"), table.get("max-size")
    try:
        return ImageGarbage(
            max_age=parse_duration(age) if age is not None else None,
            max_size=_bytes("max-size", size) if size is not None else None,
            keep_last=keep,
        )
    except InvalidParameter as error:
        raise InvalidParameter(f"image-gc: {error.message}") from None


def _size(options: _Options, name: str, default: int) -> int:
    text = options.text(name)
    if not text:
        return default
    return _bytes(name, text)


def _bytes(name: str, text: str) -> int:
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise InvalidParameter(f"{name}: invalid size: {text!r}")
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _tls(options: _Options) -> Tls | None:
    verify = options.switch("tlsverify", False)
    if not (verify or options.switch("tls", False)):
        return None
    home = Path.home() / ".docker"
    return Tls(
        verify=verify,
        ca=options.text("tlscacert") or str(home / "ca.pem"),
        certificate=options.text("tlscert") or str(home / "cert.pem"),
        key=options.text("tlskey") or str(home / "key.pem"),
    )


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InvalidParameter(f"{name}: invalid value {value!r}: expected {' or '.join(known)}")
    return value
