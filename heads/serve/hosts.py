"""Which names of the server are believed, against DNS rebinding and requests of other sites.

A page of a stranger can make a browser send requests to this machine. Where its own name is made to
mean this machine (DNS rebinding), the Host header holds that name; where it is not, the Origin
header differs from the host. Addresses cannot be rebound: there is no name to be changed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import urlsplit

from featcache.errors import UsageError
from featcache.wording import Argument

LOOPBACK = "127.0.0.1"
LONGEST = 300
"""Most characters of a host that are looked at; names of machines have at most 253."""


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts that a request may name.

    Example:
        >>> hosts = Hosts.of("127.0.0.1")
        >>> hosts.allows("localhost:8000"), hosts.allows("evil.example:8000")
        (True, False)
    """

    names: frozenset[str]
    """Lower case, without port."""
    bound: IPv4Address | IPv6Address | None
    """Where the server listens; None for a name."""

    @staticmethod
    def of(host: str, also: Sequence[str] = ()) -> "Hosts":
        """Return the hosts of a server.

        Args:
            host: Address or name on which it listens.
            also: Further names under which it may be reached, without port.

        Raises:
            UsageError: If one of these is no name of a host.
        """
        for name in also:
            if _name_of(name) != name.lower() or not name:
                raise UsageError(
                    Argument("allow_host"),
                    f" takes the name of a machine, such as lab.example.org, without http:// and "
                    f"port; got '{name[:80]}'.",
                )
        names = {_name_of(host) or host, *(name.lower() for name in also)}
        bound = _address(host)
        if bound is None or bound.is_loopback or bound.is_unspecified:
            names.add("localhost")
        return Hosts(frozenset(names), bound)

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine can reach the server."""
        return self.bound.is_loopback if self.bound is not None else self.names == {"localhost"}

    def allows(self, header: str) -> bool:
        """Tell whether a Host header names this server."""
        name = _name_of(header)
        if name is None:
            return False
        address = _address(name)
        if address is None or self.bound is None:
            return name in self.names
        # A name may be made to mean any address, but no address can.
        return address.is_loopback if self.bound.is_loopback else True


def same_origin(origin: str, host: str) -> bool:
    """Tell whether an Origin header is that of a page of this server.

    Args:
        origin: The Origin header; `null` of sandboxed pages and files.
        host: The Host header.
    """
    try:
        parts = urlsplit(origin[:LONGEST])
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _name_of(host: str) -> str | None:
    """Return a host without its port, in lower case; None if it is none."""
    if not host or len(host) > LONGEST or not host.isascii() or set(host) & set("/\\@?# \t,"):
        return None
    try:
        parts = urlsplit(
            f"//{host}" if _address(host) is None or ":" not in host else f"//[{host}]"
        )
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    return (parts.hostname or "").removesuffix(".") or None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host.strip("[]"))
    except ValueError:
        return None
