"""One request to one address, by the standard library."""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from desk.errors import SettingsError, TryAgain


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """What is signed for one address goes to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Take the redirect for the answer."""


_TIMEOUT_S = 10.0


def make_post(
    url: str, *, ca_file: Path | None = None, timeout_s: float = _TIMEOUT_S
) -> Callable[[bytes, Mapping[str, str]], None]:
    """Return a function that posts a body with headers to ``url`` and raises TryAgain for anything
    but a success. Neither redirects nor the environment's proxies are followed. Raises
    SettingsError for an address or a file that cannot be used."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise SettingsError("webhook.url: write http(s)://HOST/PATH, without user and password")
    try:
        tls = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except OSError as error:
        raise SettingsError(f"webhook.ca_file: {ca_file} cannot be used: {error}") from error
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls), _NoRedirect()
    )

    def post(body: bytes, headers: Mapping[str, str]) -> None:
        request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310
        try:
            with opener.open(request, timeout=timeout_s):
                return  # what it says is of no interest; that it is 2xx is
        except urllib.error.HTTPError as error:
            error.close()
            raise TryAgain(f"the webhook's receiver answers {error.code}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = type(reason).__name__
            raise TryAgain(f"the webhook's receiver cannot be reached: {why}") from None

    return post
