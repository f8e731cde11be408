"""How the engine talks to registries: what its configuration says, and the files that names.

``registries.conf``, ``policy.json`` and ``registries.d`` are this engine's own (``/etc/sampan``)
or else the machine's (``/etc/containers``). Of the machine's, aliases and search lists do not
count: names that come by Docker's API mean Docker Hub unless this engine itself is told
otherwise.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sampan import __version__
from sampan.engine.config import EngineConfig
from sampan.errors import InvalidParameter
from sampan.registry.client import Settings
from sampan.registry.cosign import Signer
from sampan.registry.lookaside import Lookaside
from sampan.registry.policy import Policy
from sampan.registry.registries import Registries
from sampan.registry.session import Patience
from sampan.registry.tls import Proxies

OWN, MACHINE = Path("/etc/sampan"), Path("/etc/containers")


def registry_settings(config: EngineConfig) -> Settings:
    """The registry client's settings; reads the files, so call it again to see changes.

    Raises InvalidParameter naming the file that cannot be used.
    """
    registries = _registries(config.registries_conf).with_daemon_options(
        hub_mirrors=config.registry_mirrors, insecure=config.insecure_registries
    )
    return Settings(
        registries=registries,
        proxies=Proxies(http=config.http_proxy, https=config.https_proxy, none=config.no_proxy),
        patience=Patience(attempts=config.max_download_attempts),
        policy=_policy(config.signature_policy),
        lookaside=_lookaside(config.signature_policy),
        signer=_signer(config.signing_key),
        referrers=config.keep_referrers,
        downloads=config.max_concurrent_downloads,
        uploads=config.max_concurrent_uploads,
        user_agent=f"sampan/{__version__}",
    )


def _registries(name: str) -> Registries:
    if name:
        path = Path(name)
        if not path.is_file():
            raise InvalidParameter(f"cannot read {path}: there is no such file")
        return _load(path)
    for directory in (OWN, MACHINE):
        path = directory / "registries.conf"
        if path.exists() or path.with_name("registries.conf.d").is_dir():
            found = _load(path)
            return found if directory is OWN else replace(found, search=(), aliases={})
    return Registries()


def _load(path: Path) -> Registries:
    return Registries.load(path, [path.with_name(f"{path.name}.d")])


def _policy(name: str) -> Policy:
    if name:
        return Policy.load(Path(name))
    for directory in (OWN, MACHINE):
        path = directory / "policy.json"
        if path.exists():
            return Policy.load(path)
    return Policy()


def _lookaside(policy: str) -> Lookaside:
    """What is in ``registries.d`` beside the policy in force, or else of this engine or machine."""
    beside = (Path(policy).parent,) if policy else ()
    for directory in (*beside, OWN, MACHINE):
        path = directory / "registries.d"
        if path.is_dir():
            return Lookaside.load(path)
    return Lookaside()


def _signer(name: str) -> Signer | None:
    if not name:
        return None
    try:
        return Signer.load(Path(name).read_bytes())
    except OSError as error:
        raise InvalidParameter(f"cannot read {name}: {error.strerror}") from error
