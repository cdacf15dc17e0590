"""Sign-in methods that are safe at an address, trusted proxies, and the OpenID configuration."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from desk.errors import SettingsError

Method = Literal["none", "proxy", "local", "oidc"]


def is_loopback(host: str) -> bool:
    """Tell whether an address is reachable from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_sign_in(method: Method, host: str, trusted: Sequence[str]) -> None:
    """Raise SettingsError if this sign-in method is unsafe at this address."""
    if method == "none" and not is_loopback(host):
        raise SettingsError(
            f"sign_in.method is none and web.host is {host}: anyone who reaches it could read and "
            "decide. Set web.host to 127.0.0.1, or sign_in.method to oidc, proxy or local"
        )
    if method == "proxy" and not trusted:
        raise SettingsError(
            "sign_in.method is proxy and sign_in.proxy_addresses is empty: name the addresses "
            "that the proxy calls from, or anyone could send its header"
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
                f"sign_in.proxy_addresses: {address} is neither an address nor a network such as "
                "10.0.0.0/8"
            ) from None
    return tuple(found)


def is_trusted(peer: str, addresses: Sequence[str]) -> bool:
    """Tell whether a connection comes from one of these addresses."""
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    # A socket that serves both families shows an IPv4 peer as ::ffff:10.0.0.1.
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks(addresses))


def client_address(peer: str, forwarded: Sequence[str], proxies: Sequence[str]) -> str:
    """Return the address of the browser.

    ``forwarded`` are the X-Forwarded-For headers. They count only if the peer is one of
    ``proxies``, and then the last address that is not a proxy's counts: each proxy appends the
    address that it sees, and the addresses before that can be invented.
    """
    if not is_trusted(peer, proxies):
        return peer
    address = peer
    for entry in reversed(",".join(forwarded).split(",")):
        try:
            address = str(ipaddress.ip_address(entry.strip()))
        except ValueError:
            break
        if not is_trusted(address, proxies):
            break
    return address


RoleName = Literal["reviewer", "adjudicator", "owner"]
_HIGHEST_FIRST: tuple[RoleName, ...] = ("owner", "adjudicator", "reviewer")


@dataclass(frozen=True, slots=True)
class ProviderConfig:
    """The provider, the desk's registration with it, and which claims give which roles.

    ``roles`` lists the values of ``role_claim`` for each role; ignored if ``role_claim`` is empty.
    """

    issuer: str
    client_id: str
    public_url: str
    client_secret: str | None = field(default=None, repr=False)
    scopes: Sequence[str] = ("openid", "profile")
    name_claim: str = "name"
    role_claim: str = ""
    roles: Mapping[RoleName, Sequence[str]] = field(default_factory=dict)
    ends_session: bool = True
    ca_file: Path | None = None
    timeout_s: float = 10.0

    @property
    def callback_url(self) -> str:
        """The redirect URI, registered with the provider exactly as it is."""
        return f"{self.public_url}/sign-in/callback"

    @property
    def signed_out_url(self) -> str:
        """The post-logout redirect URI, registered with the provider too."""
        return f"{self.public_url}/signed-out"


def check_provider(config: ProviderConfig, hostnames: Sequence[str]) -> ProviderConfig:
    """Return the configuration. Raises SettingsError with the setting at fault."""
    for name in ("issuer", "client_id", "public_url"):
        if not getattr(config, name):
            raise SettingsError(f"sign_in.method is oidc and oidc.{name} is empty")
    for name in ("issuer", "public_url"):
        url = getattr(config, name)
        if not is_safe_url(url):
            raise SettingsError(f"oidc.{name}: {url} must begin with https://, unless it is local")
    parts = urlsplit(config.public_url)
    if parts.path or parts.query or parts.fragment:
        raise SettingsError(
            f"oidc.public_url: {config.public_url} has more than a scheme and a host: write it as "
            "https://desk.example.com, without a slash at the end"
        )
    if "*" not in hostnames and parts.hostname not in {name.lower() for name in hostnames}:
        raise SettingsError(f"oidc.public_url: {parts.hostname} is not among web.hostnames")
    if "openid" not in config.scopes:
        raise SettingsError("oidc.scopes lacks openid: add it, or the provider sends no ID token")
    if config.ca_file is not None and not config.ca_file.is_file():
        raise SettingsError(f"oidc.ca_file: {config.ca_file} is not a file")
    _check_roles(config)
    return config


def _check_roles(config: ProviderConfig) -> None:
    if config.role_claim and not any(config.roles.values()):
        raise SettingsError(
            f"oidc.role_claim is {config.role_claim} and oidc.reviewers, oidc.adjudicators and "
            "oidc.owners are empty: nobody could sign in. Name the claim's values for a role"
        )
    if not config.role_claim and any(config.roles.values()):
        raise SettingsError("oidc.role_claim is empty: set the claim that roles are read from")


def is_safe_url(url: object) -> bool:
    """Tell whether a URL is https, or http to this machine."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        host = parts.hostname if parts else None
    except ValueError:
        return False
    if parts is None or not host:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def read_claim(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim by its name or its dotted path, None if it is not there."""
    if path in claims:  # some names are URLs, which contain dots
        return claims[path]
    found: Any = claims
    for step in path.split("."):
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def read_role(config: ProviderConfig, claims: Mapping[str, Any]) -> RoleName | None:
    """Return the highest role in the claims, None if they hold none."""
    given = read_claim(claims, config.role_claim)
    listed = given if isinstance(given, list) else [given]
    values = {each for each in listed if isinstance(each, str)}
    return next(
        (role for role in _HIGHEST_FIRST if values.intersection(config.roles.get(role, ()))), None
    )


def read_name(config: ProviderConfig, claims: Mapping[str, Any]) -> str:
    """Return the user's display name, at most 200 characters."""
    for path in (config.name_claim, "name", "preferred_username", "email", "sub"):
        value = read_claim(claims, path)
        if isinstance(value, str) and value.strip():
            return value.strip()[:200]
    return ""
