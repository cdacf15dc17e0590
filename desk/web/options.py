"""What the pages need to know of the settings, as flat values."""

from __future__ import annotations

from dataclasses import dataclass

from desk.auth.rules import Method, is_loopback


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Where the pages are served, and how people sign in. Times in milliseconds."""

    host: str = "127.0.0.1"
    port: int = 8090
    metrics_port: int | None = None
    hostnames: tuple[str, ...] = ("*",)
    secure: bool = False
    method: Method = "none"
    proxy_header: str = "X-Forwarded-User"
    proxy_addresses: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    longest_ms: int = 12 * 3_600_000
    idle_ms: int = 2 * 3_600_000

    @property
    def session_cookie(self) -> str:
        """Its name; the prefix keeps other hosts of the domain from setting it."""
        return "__Host-clerk_desk" if self.secure else "clerk_desk"

    @property
    def form_cookie(self) -> str:
        """The name of what the form for signing in is tied to."""
        return "__Host-clerk_desk_form" if self.secure else "clerk_desk_form"

    @property
    def provider_cookie(self) -> str:
        """The name of what a browser keeps while somebody is with the OpenID provider."""
        return "__Host-clerk_desk_provider" if self.secure else "clerk_desk_provider"

    @property
    def hint_cookie(self) -> str:
        """The name of what the provider is shown when somebody signs out; for that page alone."""
        return "__Secure-clerk_desk_hint" if self.secure else "clerk_desk_hint"

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Names in the Host header that are answered. Without sign-in it is this machine's own
        alone: else a page elsewhere could point a name of its own at it and be let in."""
        if self.method == "none" and self.hostnames == ("*",) and is_loopback(self.host):
            return ("localhost", "127.0.0.1", "[::1]", self.host)
        return self.hostnames
