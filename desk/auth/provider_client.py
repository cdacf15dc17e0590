"""Requests to an OpenID provider. The only file that knows how they are sent."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client

from desk.auth.provider_config import ProviderConfig
from desk.errors import ProviderAway, ProviderWrong, SignInFailed


class ProviderClient:
    """Speaks to the provider. Safe from any thread."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._trust = ssl.create_default_context(cafile=config.ca_file)

    def get(self, url: str, access_token: str | None = None) -> Mapping[str, Any]:
        """Return the JSON object at an address. Raises ProviderAway, ProviderWrong."""
        headers = {"Authorization": f"Bearer {access_token}"} if access_token else {}
        with (
            _named(url),
            httpx2.Client(verify=self._trust, timeout=self._config.timeout_s) as client,
        ):
            answer = client.get(url, headers={"Accept": "application/json", **headers})
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise ProviderWrong(f"{url}: is no JSON object")
        return found

    def authorization_url(self, endpoint: str, *, state: str, nonce: str, verifier: str) -> str:
        """Return the address at which a person proves who they are."""
        with self._session("none") as session:
            url, _ = session.create_authorization_url(
                endpoint, state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url)

    def exchange(
        self, endpoint: str, method: str, *, code: str, verifier: str
    ) -> Mapping[str, Any]:
        """Return the tokens that a code stands for. ``method`` is how the desk proves who it is.

        Raises SignInFailed for a code that is not valid, ProviderAway, ProviderWrong.
        """
        try:
            with _named(endpoint), self._session(method) as session:
                tokens = session.fetch_token(
                    endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
                )
        except OAuthError as error:
            if error.error == "invalid_grant":
                raise SignInFailed("code", "the provider does not take the code") from None
            raise ProviderWrong(
                f"{endpoint}: answers {error.error!r} to the desk: see oidc.client_id and the "
                "client's secret"
            ) from None
        return dict(tokens)

    def _session(self, method: str) -> Any:
        config = self._config
        return OAuth2Client(
            client_id=config.client_id,
            client_secret=config.client_secret,
            token_endpoint_auth_method=method,
            scope=" ".join(config.scopes),
            redirect_uri=config.callback_url,
            code_challenge_method="S256",
            verify=self._trust,
            timeout=config.timeout_s,
        )


@contextmanager
def _named(url: str) -> Iterator[None]:
    """Turn what goes wrong with a request into the desk's errors, with the address in them."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            raise ProviderAway(f"{url}: answers with status {status}") from None
        raise ProviderWrong(f"{url}: answers with status {status}") from None
    except httpx2.TransportError as error:
        raise ProviderAway(f"{url}: {type(error).__name__}: {error}") from None
    except httpx2.InvalidURL as error:
        raise ProviderWrong(f"{url}: {error}") from None
    except (httpx2.HTTPError, ValueError) as error:
        raise ProviderWrong(f"{url}: cannot be read: {type(error).__name__}") from None
