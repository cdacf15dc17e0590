"""Asking a worker how it is, for a container's health check: standard library alone."""

from __future__ import annotations

import http.client
import json
import sys
from urllib.parse import urlsplit


def ask(url: str, timeout_s: float) -> int:
    """Print what the worker says; return 0 when it is well and 1 when not, or there is no answer.

    No proxy is asked, whatever the environment says: it is the worker beside us.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        print(f"error: {url} is not http://HOST:PORT/PATH", file=sys.stderr)
        return 2
    try:
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)
        connection.request("GET", parts.path or "/readyz")
        answer = connection.getresponse()
        body = answer.read().decode("utf-8", "replace")
    except (OSError, ValueError, http.client.HTTPException) as error:
        print(f"{url}: no answer: {error}", file=sys.stderr)
        return 1
    well = answer.status == http.HTTPStatus.OK
    print(_say(url, body), file=sys.stdout if well else sys.stderr)
    return 0 if well else 1


def _say(url: str, body: str) -> str:
    try:
        verdict = json.loads(body)
        return f"{url}: {'well' if verdict['ok'] else '; '.join(verdict['why'])}"
    except (ValueError, TypeError, KeyError):
        return f"{url}: {body.strip()[:200]}"
