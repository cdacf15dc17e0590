"""Which ways of signing in are safe where the desk listens."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Literal

from desk.errors import SettingsError

Method = Literal["none", "proxy", "local", "oidc"]


def is_loopback(host: str) -> bool:
    """Tell whether nobody but this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_sign_in(method: Method, host: str, trusted: Sequence[str]) -> None:
    """Raise SettingsError for a way of signing in that is not safe here."""
    if method == "none" and not is_loopback(host):
        raise SettingsError(
            f"sign_in.method is none and web.host is {host}: whoever reaches it could read and "
            "decide. Listen on 127.0.0.1, or use oidc, proxy or local"
        )
    if method == "proxy" and not trusted:
        raise SettingsError(
            "sign_in.method is proxy and sign_in.proxy_addresses is empty: name the addresses "
            "that the proxy calls from, or anybody could send its header"
        )
    networks(trusted)


def networks(
    addresses: Sequence[str],
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return addresses and networks (10.0.0.0/8) as networks. Raises SettingsError."""
    found = []
    for address in addresses:
        try:
            found.append(ipaddress.ip_network(address))
        except ValueError:
            raise SettingsError(
                f"sign_in.proxy_addresses: {address} is no address and no network like 10.0.0.0/8"
            ) from None
    return tuple(found)


def is_trusted(peer: str, addresses: Sequence[str]) -> bool:
    """Tell whether a connection comes from one of these addresses."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks(addresses))
