"""Tokens without a signature (RFC 7515, appendix A.5), which Kafka accepts for tests."""

from __future__ import annotations

import base64
import json
import time

PRINCIPAL = "token-clerk"
LIFETIME_S = 60.0
SECRET = "planted-token-secret"


def token(config: str) -> tuple[str, float]:
    """A token of ``PRINCIPAL`` and its expiry, in Unix seconds."""
    del config
    now = time.time()
    header, claims = {"alg": "none"}, {"sub": PRINCIPAL, "iat": now, "exp": now + LIFETIME_S}
    return f"{_part(header)}.{_part(claims)}.", now + LIFETIME_S


def expired(config: str) -> tuple[str, float]:
    """A token that expired an hour ago, which the client considers valid."""
    del config
    past = time.time() - 3600
    header, claims = {"alg": "none"}, {"sub": PRINCIPAL, "iat": past, "exp": past + LIFETIME_S}
    return f"{_part(header)}.{_part(claims)}.", time.time() + LIFETIME_S


def broken(config: str) -> tuple[str, float]:
    """Fail as a token service may, with a secret in the error."""
    raise OSError(f"{config}: the service says {SECRET}")


def no_token(config: str) -> str:
    """Return something that is not a token with an expiry."""
    return config


def _part(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
