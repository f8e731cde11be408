"""``--add-host``, ``--dns``, ``--dns-search``, ``--link``, ``--attach``, ``--restart``."""

from __future__ import annotations

import re

from sampan.cli.command import Kind
from sampan.cli.fault import CliError
from sampan.cli.kinds import parse_ip

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.document import Document

HOST_GATEWAY = "host-gateway"
_ALPHA = re.compile(r"[a-zA-Z]")
_DOMAIN = re.compile(
    r"(:?(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9]))"
    r"(:?\.(:?[a-zA-Z0-9]|(:?[a-zA-Z0-9][a-zA-Z0-9\-]*[a-zA-Z0-9])))*)\.?\s*"
)


def parse_extra_host(text: str) -> str:
    """``HOST:IP`` or ``HOST=IP`` as the API's ``HOST:IP``. Raises ``ValueError``."""
    name, mark, address = text.partition("=" if "=" in text else ":")
    if not mark or not name:
        raise ValueError(f'bad format for add-host: "{text}"')
    if address.startswith("[") and address.endswith("]"):
        address = address[1:-1]
    if address != HOST_GATEWAY:
        try:
            address = parse_ip(address)
        except ValueError:
            raise ValueError(f'invalid IP address in add-host: "{address}"') from None
    return f"{name}:{address}"


def parse_dns(text: str) -> str:
    """An address of a name server. Raises ``ValueError``."""
    try:
        return parse_ip(text)
    except ValueError:
        raise ValueError(f"IP address is not correctly formatted: {text.strip()}") from None


def parse_dns_search(text: str) -> str:
    """A search domain, or ``.`` for none. Raises ``ValueError``."""
    name = text.strip()
    if name == ".":
        return name
    if not _ALPHA.search(name) or not _DOMAIN.fullmatch(name) or len(name) > 255:
        raise ValueError(f"{name} is not a valid domain")
    return name.rstrip()


def parse_link(text: str) -> str:
    """``NAME[:ALIAS]``. Raises ``ValueError``."""
    parts = text.split(":")
    if not text:
        raise ValueError("empty string specified for links")
    if len(parts) > 2:
        raise ValueError(f"bad format for links: {text}")
    return text


def parse_attach(text: str) -> str:
    """``stdin``, ``stdout`` or ``stderr``. Raises ``ValueError``."""
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return name


#: The sysctls that belong to a container's own namespaces, and the prefixes of such.
_SYSCTLS = (
    "kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
    "kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
)  # fmt: skip
_SYSCTL_PREFIXES = ("net.", "fs.mqueue.")


def parse_sysctl(text: str) -> tuple[str, str]:
    """``name=value``. Raises ``ValueError``."""
    name, equals, value = text.partition("=")
    if not equals or (name not in _SYSCTLS and not name.startswith(_SYSCTL_PREFIXES)):
        raise ValueError(f"sysctl '{text}' is not allowed")
    return name, value


def parse_restart(text: str) -> Document:
    """A restart policy. Raises :class:`CliError`."""
    if not text:
        return {"Name": "", "MaximumRetryCount": 0}
    name, colon, count = text.partition(":")
    if colon and not name:
        raise CliError("invalid restart policy format: no policy provided before colon")
    if not colon:
        return {"Name": name, "MaximumRetryCount": 0}
    if not count.removeprefix("-").isdecimal():
        raise CliError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count)}


ADD_HOST = Kind("list", parse_extra_host, many=True)
DNS = Kind("list", parse_dns, many=True)
DNS_SEARCH = Kind("list", parse_dns_search, many=True)
LINK = Kind("list", parse_link, many=True)
ATTACH = Kind("list", parse_attach, many=True)
SYSCTL = Kind("map", parse_sysctl, many=True)
