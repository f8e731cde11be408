"""Registries: the client that pulls and pushes, and (in ``server``) the registry itself.

The client is :class:`Registry`; protocol conversations are generators without I/O (``auth``,
``upload``), performed by ``session``. OCI distribution spec 1.1; Docker token specification.
"""

from sampan.registry.client import Registry, Settings
from sampan.registry.cosign import Signer
from sampan.registry.credentials import ConfigFile, Credentials, decode_header
from sampan.registry.http import TooManyRequests
from sampan.registry.lookaside import Lookaside
from sampan.registry.manifest import Manifest
from sampan.registry.policy import Policy
from sampan.registry.progress import (
    Completed,
    Event,
    LayerProgress,
    Listener,
    Message,
    Step,
    Warned,
    as_docker,
)
from sampan.registry.pull import Pulled
from sampan.registry.registries import Endpoint, Registries
from sampan.registry.repository import Repository
from sampan.registry.search import Found
from sampan.registry.session import Patience
from sampan.registry.tls import Certificates, Proxies

__all__ = [
    "Certificates",
    "Completed",
    "ConfigFile",
    "Credentials",
    "Endpoint",
    "Event",
    "Found",
    "LayerProgress",
    "Listener",
    "Lookaside",
    "Manifest",
    "Message",
    "Patience",
    "Policy",
    "Proxies",
    "Pulled",
    "Registries",
    "Registry",
    "Repository",
    "Settings",
    "Signer",
    "Step",
    "TooManyRequests",
    "Warned",
    "as_docker",
    "decode_header",
]
