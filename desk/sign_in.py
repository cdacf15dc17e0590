"""How people sign in, from the settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from desk.auth.provider_config import ProviderConfig, check_provider
from desk.auth.rules import check_sign_in, is_loopback
from desk.clock import Clock, now_ms
from desk.errors import ProviderAway, ProviderWrong, SettingsError
from desk.settings import OidcSettings, Settings
from desk.web.options import WebOptions
from worker.common.settings import read_secret

if TYPE_CHECKING:
    from desk.auth.provider import Provider

_log = structlog.get_logger("desk.app")


def web_options(settings: Settings) -> WebOptions:
    """Return what the pages need. Raises SettingsError for a way of signing in that is not safe."""
    web, sign_in = settings.web, settings.sign_in
    check_sign_in(sign_in.method, web.host, sign_in.proxy_addresses)
    if sign_in.method == "oidc":
        provider_config(settings)
    if web.metrics_port == web.port:
        raise SettingsError("web.metrics_port is web.port: leave it out, or give it another one")
    secure = web.secure_cookies
    return WebOptions(
        host=web.host,
        port=web.port,
        metrics_port=web.metrics_port,
        hostnames=web.hostnames,
        secure=not is_loopback(web.host) if secure is None else secure,
        method=sign_in.method,
        proxy_header=sign_in.proxy_header,
        proxy_addresses=sign_in.proxy_addresses,
        owners=sign_in.owners,
        longest_ms=int(sign_in.session_hours * 3_600_000),
        idle_ms=int(sign_in.idle_minutes * 60_000),
    )


def sign_in_provider(settings: Settings, clock: Clock = now_ms) -> Provider | None:
    """Return the OpenID provider, None where people sign in another way. It is asked what it is;
    one that does not answer now is asked again later. Raises SettingsError."""
    if settings.sign_in.method != "oidc":
        return None
    from desk.auth.provider import Provider

    provider = Provider(provider_config(settings), clock)
    try:
        provider.check()
    except ProviderAway as error:
        _log.warning("oidc.unreachable", reason=str(error))
    except ProviderWrong as error:
        raise SettingsError(f"oidc.issuer: {error}") from error
    return provider


def provider_config(settings: Settings) -> ProviderConfig:
    """Return what is known of the provider. Raises SettingsError."""
    oidc = settings.oidc
    config = ProviderConfig(
        issuer=oidc.issuer,
        client_id=oidc.client_id,
        public_url=oidc.public_url,
        client_secret=_client_secret(oidc),
        scopes=oidc.scopes,
        name_claim=oidc.name_claim,
        role_claim=oidc.role_claim,
        roles={
            "reviewer": oidc.reviewers,
            "adjudicator": oidc.adjudicators,
            "owner": oidc.owners,
        },
        ends_session=oidc.end_session,
        ca_file=oidc.ca_file,
    )
    return check_provider(config, settings.web.hostnames)


def _client_secret(oidc: OidcSettings) -> str | None:
    given = oidc.client_secret.get_secret_value() if oidc.client_secret else None
    return read_secret("oidc.client_secret", given, oidc.client_secret_file, SettingsError)
