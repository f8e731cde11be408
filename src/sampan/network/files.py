"""The three files of a container that name things: hosts, resolv.conf, hostname (pure).

The engine writes what these return into the container's directory and binds them over /etc.
Rules are dockerd's (libnetwork's resolvconf and etchosts); formats are hosts(5), resolv.conf(5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from sampan.errors import InvalidParameter
from sampan.network.model import IPAddress

#: Where the embedded resolver listens in every container on a user-defined network.
EMBEDDED_RESOLVER = "127.0.0.11"

_DEFAULT_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
_DEFAULT_NAMESERVERS_IPV6 = ("2001:4860:4860::8888", "2001:4860:4860::8844")

_LOOPBACK_HOSTS = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """The meaning of a resolv.conf."""

    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def render(self) -> str:
        """The file's text."""
        lines = [f"nameserver {server}" for server in self.nameservers]
        if self.search:
            lines.append(f"search {' '.join(self.search)}")
        if self.options:
            lines.append(f"options {' '.join(self.options)}")
        return "".join(f"{line}\n" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerDns:
    """A container's name resolution: its file, and what the embedded resolver forwards to.

    ``upstream`` is empty when the container asks its nameservers itself (default bridge).
    ``from_host`` is true when ``upstream`` came from the host's own file and is therefore asked
    from the host's network namespace.
    """

    file: ResolvConf
    upstream: tuple[str, ...] = ()
    from_host: bool = True


def parse_resolv_conf(text: str) -> ResolvConf:
    """Read a resolv.conf(5); unknown lines are skipped, the last ``search`` or ``domain`` wins."""
    nameservers: list[str] = []
    search: tuple[str, ...] = ()
    options: list[str] = []
    for line in text.splitlines():
        words = line.split("#")[0].split(";")[0].split()
        if len(words) < 2:
            continue
        if words[0] == "nameserver" and _is_address(words[1]):
            nameservers.append(words[1])
        elif words[0] in ("search", "domain"):
            search = tuple(words[1:])
        elif words[0] == "options":
            options.extend(words[1:])
    return ResolvConf(nameservers=tuple(nameservers), search=search, options=tuple(options))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _is_loopback(server: str) -> bool:
    return ip_address(server.partition("%")[0]).is_loopback


def _asked(servers: Sequence[str]) -> tuple[str, ...]:
    """Servers that a container's resolver asks from beside it, where it itself is not another."""
    return tuple(server for server in servers if server != EMBEDDED_RESOLVER)


def container_dns(
    host: ResolvConf,
    *,
    embedded: bool,
    servers: Sequence[str] = (),
    search: Sequence[str] = (),
    options: Sequence[str] = (),
    ipv6: bool = False,
    host_network: bool = False,
) -> ContainerDns:
    """A container's resolv.conf and its resolver's upstream.

    ``host`` is the host's file; ``embedded`` whether the container is on a user-defined network
    (its file then names only 127.0.0.11); ``servers``, ``search``, ``options`` are ``--dns``,
    ``--dns-search`` (``.`` empties it) and ``--dns-option``; ``ipv6`` whether it has IPv6;
    ``host_network`` whether it shares the host's network namespace (nothing is filtered then).
    Raises :class:`InvalidParameter` for a server that is not an address.
    """
    for server in servers:
        if not _is_address(server):
            raise InvalidParameter(f"bad parameter: --dns {server}: not an IP address")
    nameservers = tuple(servers) or host.nameservers
    chosen_search = tuple(search) or host.search
    if chosen_search == (".",):
        chosen_search = ()
    chosen_options = tuple(options) or host.options
    if host_network:
        return ContainerDns(
            file=ResolvConf(nameservers=nameservers, search=chosen_search, options=chosen_options)
        )
    if embedded:
        # ndots:0 lets one-label names reach the resolver before the search list is tried.
        if not any(option.startswith("ndots:") for option in chosen_options):
            chosen_options = (*chosen_options, "ndots:0")
        return ContainerDns(
            file=ResolvConf(
                nameservers=(EMBEDDED_RESOLVER,), search=chosen_search, options=chosen_options
            ),
            upstream=_asked(servers) if servers else host.nameservers or _DEFAULT_NAMESERVERS,
            from_host=not servers,
        )
    # The host's loopback is not the container's: a resolver there cannot be reached.
    reachable = tuple(
        server
        for server in nameservers
        if (servers or not _is_loopback(server))
        and (ipv6 or ip_address(server.partition("%")[0]).version == 4)
    )
    if not reachable:
        reachable = _DEFAULT_NAMESERVERS + (_DEFAULT_NAMESERVERS_IPV6 if ipv6 else ())
    return ContainerDns(
        file=ResolvConf(nameservers=reachable, search=chosen_search, options=chosen_options)
    )


def hostname(name: str) -> str:
    """The text of /etc/hostname."""
    return f"{name}\n"


def parse_extra_host(
    text: str, host_gateway: Sequence[IPAddress] = ()
) -> tuple[tuple[str, str], ...]:
    """``--add-host NAME:ADDRESS`` (or ``NAME=ADDRESS``) as (address, name) pairs.

    ``host-gateway`` becomes the addresses in ``host_gateway``. Raises :class:`InvalidParameter`.
    """
    name, separator, address = text.partition("=" if "=" in text else ":")
    if not separator or not name or any(character.isspace() for character in name):
        raise InvalidParameter(f'bad format for add-host: "{text}"')
    if address == "host-gateway":
        if not host_gateway:
            raise InvalidParameter(
                "unable to derive the IP value for host-gateway: the container's network has none"
            )
        return tuple((str(gateway), name) for gateway in host_gateway)
    bare = address.removeprefix("[").removesuffix("]")
    if not _is_address(bare):
        raise InvalidParameter(f'invalid IP address in add-host: "{address}"')
    return ((bare, name),)


def hosts(
    hostname: str,
    *,
    domainname: str = "",
    addresses: Sequence[IPAddress] = (),
    extra: Sequence[tuple[str, str]] = (),
    ipv6: bool = True,
) -> str:
    """The text of /etc/hosts.

    ``addresses`` are the container's own, each given its host name; ``extra`` (address, names)
    pairs come from :func:`parse_extra_host` and links; ``ipv6`` False leaves the IPv6 loopback
    names out, as dockerd does for containers that have IPv6 disabled.
    """
    own = f"{hostname}.{domainname} {hostname}" if domainname else hostname
    if "." in hostname and not domainname:
        own = f"{hostname} {hostname.partition('.')[0]}"
    lines = [(address, names) for address, names in _LOOPBACK_HOSTS if ipv6 or ":" not in address]
    lines.extend(extra)
    lines.extend((str(address), own) for address in addresses)
    return "".join(f"{address}\t{names}\n" for address, names in lines)
