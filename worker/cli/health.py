"""Asking a worker for its health, for a container's health check: standard library only."""

from __future__ import annotations

import http.client
import json
import sys
from urllib.parse import urlsplit


def ask(url: str, timeout_s: float) -> int:
    """Print what the worker answers; return 0 when it is healthy, 1 when not or without an answer.

    No proxy is used, whatever the environment says: the worker is on this machine.
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
    healthy = answer.status == http.HTTPStatus.OK
    print(_describe(url, body), file=sys.stdout if healthy else sys.stderr)
    return 0 if healthy else 1


def _describe(url: str, body: str) -> str:
    try:
        verdict = json.loads(body)
        return f"{url}: {'ok' if verdict['ok'] else '; '.join(verdict['why'])}"
    except (ValueError, TypeError, KeyError):
        return f"{url}: {body.strip()[:200]}"
