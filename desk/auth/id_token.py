"""Checking what a provider has signed (OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet

from desk.errors import SignInFailed

# By a key that only the provider has. With HS256 whoever knows the client's secret could sign, and
# none is no signature at all.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
_CLOCKS_DIFFER_S = 60


class UnknownKey(Exception):
    """It is signed by a key that is not among these; the provider may have new ones."""


def read_keys(published: Mapping[str, Any]) -> KeySet:
    """Return the keys that sign, of a provider's key set. Those of a kind that is not known here
    are passed over."""
    keys: list[Key] = []
    listed = published.get("keys")
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict) or each.get("kty") == "oct" or each.get("use") == "enc":
            continue
        try:
            keys += KeySet.import_key_set({"keys": [each]}).keys
        except (JoseError, ValueError, TypeError, KeyError):
            continue
    return KeySet(keys)


def read_id_token(
    token: str,
    keys: KeySet,
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str | None,
    now_s: int,
    algorithms: Sequence[str] = ALGORITHMS,
) -> Mapping[str, Any]:
    """Return the claims of an ID token that is signed by one of these keys, for this client, in
    answer to the request with this nonce, and still valid. Raises UnknownKey, SignInFailed."""
    try:
        found = jwt.decode(token, keys, algorithms=list(algorithms))
    except InvalidKeyIdError as error:
        raise UnknownKey from error
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise SignInFailed("token", f"the ID token's signature: {_why(error)}") from None
    claims = CodeIDToken(
        found.claims,
        found.header,
        options={
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": client_id},
            "nonce": {"essential": True, "value": nonce},
        },
        params={"nonce": nonce, "client_id": client_id, "access_token": access_token},
    )
    try:
        claims.validate(now=now_s, leeway=_CLOCKS_DIFFER_S)
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise SignInFailed("token", f"the ID token's claims: {_why(error)}") from None
    if not isinstance(claims.get("sub"), str) or not 0 < len(claims["sub"]) <= 255:
        raise SignInFailed("token", "the ID token's claims: sub is no text of 1 to 255 characters")
    return dict(claims)


def _why(error: Exception) -> str:
    """Say what is wrong, without a value: claims are about a person."""
    if isinstance(error, JoseError):
        claim = getattr(error, "claim", "")
        return f"{error.error}{f' ({claim})' if claim else ''}"
    return type(error).__name__
