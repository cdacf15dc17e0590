"""Sign-in by an OpenID provider: the authorization code flow with PKCE (RFC 6749, RFC 7636).

While the user is at the provider, the browser keeps one secret in a cookie. State, nonce and code
verifier are derived from it: an answer is valid only in that browser, and the desk stores nothing.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import httpx2
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import Key, KeySet

from desk.auth.rules import ProviderConfig, RoleName, is_safe_url, read_claim, read_name, read_role
from desk.clock import Clock
from desk.errors import ProviderUnavailable, ProviderWrong, SignInFailed

_FRESH_MS = 3_600_000  # an hour: an unknown key is fetched before that

_AFTER_FAILURE_MS = 5_000

_NEW_KEYS_MS = 10_000

_AT_ONCE = 8  # of the web server's forty threads

# Only signatures with a private key. Anyone who knows the client's secret could sign with HS256,
# and "none" is not a signature.
ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip

_CLOCKS_DIFFER_S = 60


@dataclass(frozen=True, slots=True)
class SignedIn:
    """A user as the provider describes them. ``role`` is None if the desk assigns roles itself."""

    issuer: str
    sub: str
    name: str
    role: RoleName | None
    id_token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Known:
    """The provider's metadata and keys, and when they were fetched."""

    at_ms: int
    metadata: Mapping[str, Any]
    keys: Any


class Provider:
    """The desk's OpenID provider. Safe from any thread. Metadata and keys are cached an hour."""

    def __init__(self, config: ProviderConfig, clock: Clock) -> None:
        self.config = config
        self._clock = clock
        self._client = ProviderClient(config)
        self._lock = threading.Lock()
        self._known: _Known | None = None
        self._failure: tuple[int, str] | None = None
        # A provider that does not answer must not block every thread of the desk.
        self._at_once = threading.BoundedSemaphore(_AT_ONCE)

    def check(self) -> None:
        """Fetch the provider's metadata. Raises ProviderUnavailable, ProviderWrong."""
        self._ask()

    def begin(self, secret: str) -> str:
        """Return the address to send a browser to that keeps this secret. Raises
        ProviderUnavailable, ProviderWrong."""
        endpoint = _endpoint(self._ask().metadata, "authorization_endpoint")
        state, nonce, verifier = (_derive(secret, use) for use in ("state", "nonce", "verifier"))
        return self._client.authorization_url(endpoint, state=state, nonce=nonce, verifier=verifier)

    def finish(self, secret: str, answer: Mapping[str, str]) -> SignedIn:
        """Return the user who came back. ``answer`` is the query string of the callback.

        Raises SignInFailed, ProviderUnavailable, ProviderWrong.
        """
        state = _derive(secret, "state")
        if not secret or not hmac.compare_digest(state.encode(), answer.get("state", "").encode()):
            raise SignInFailed("state", "the answer belongs to another browser's request")
        if answer.get("iss", self.config.issuer) != self.config.issuer:  # RFC 9207
            raise SignInFailed("issuer", "the answer comes from another provider")
        if "error" in answer:
            raise _error_of(answer["error"])
        if not answer.get("code"):
            raise SignInFailed("code", "the answer has no code")
        if not self._at_once.acquire(timeout=self.config.timeout_s):
            raise ProviderUnavailable("too many sign-ins wait for the provider")
        try:
            return self._redeem(secret, answer["code"])
        finally:
            self._at_once.release()

    def leave(self, id_token: str) -> str | None:
        """Return the address that ends the user's session with the provider, None if it has none.
        Raises ProviderUnavailable, ProviderWrong."""
        endpoint = self._ask().metadata.get("end_session_endpoint")
        if not self.config.ends_session or not is_safe_url(endpoint):
            return None
        values = {
            "client_id": self.config.client_id,
            "post_logout_redirect_uri": self.config.signed_out_url,
        }
        if id_token:
            values["id_token_hint"] = id_token
        return f"{endpoint}{'&' if '?' in str(endpoint) else '?'}{urlencode(values)}"

    def _redeem(self, secret: str, code: str) -> SignedIn:
        known, config = self._ask(), self.config
        tokens = self._client.exchange(
            _endpoint(known.metadata, "token_endpoint"),
            _client_authentication(known.metadata, config),
            code=code,
            verifier=_derive(secret, "verifier"),
        )
        id_token, access_token = tokens.get("id_token"), tokens.get("access_token")
        if not isinstance(id_token, str):
            raise ProviderWrong("the provider sent no ID token: is openid in oidc.scopes?")
        access = access_token if isinstance(access_token, str) else None
        claims = self._verified(known, id_token, access, _derive(secret, "nonce"))
        claims = self._with_more(known, claims, access)
        role = read_role(config, claims) if config.role_claim else None
        name = read_name(config, claims)
        if config.role_claim and role is None:
            raise SignInFailed("role", f"{config.role_claim} has no role of the desk", name=name)
        return SignedIn(config.issuer, claims["sub"], name, role, id_token)

    def _verified(
        self, known: _Known, id_token: str, access_token: str | None, nonce: str
    ) -> Mapping[str, Any]:
        # Every provider must support RS256 (OpenID Connect Discovery 1.0, section 3).
        signing = known.metadata.get("id_token_signing_alg_values_supported", ["RS256"])
        algorithms = [each for each in ALGORITHMS if each in signing]
        if not algorithms:
            raise ProviderWrong("the provider must sign with one of " + ", ".join(ALGORITHMS))

        def read(keys: Any) -> Mapping[str, Any]:
            return read_id_token(
                id_token,
                keys,
                issuer=self.config.issuer,
                client_id=self.config.client_id,
                nonce=nonce,
                access_token=access_token,
                now_s=self._clock() // 1000,
                algorithms=algorithms,
            )

        try:
            return read(known.keys)
        except UnknownKey:  # the provider may have rotated its keys
            keys = self._new_keys(known)
        try:
            return read(keys)
        except UnknownKey:
            raise SignInFailed(
                "token", "the ID token is signed by a key the provider does not publish"
            ) from None

    def _with_more(
        self, known: _Known, claims: Mapping[str, Any], access_token: str | None
    ) -> Mapping[str, Any]:
        """Add the claims of the userinfo endpoint if a configured claim is not in the ID token."""
        config = self.config
        wanted = [path for path in (config.name_claim, config.role_claim) if path]
        missing = any(read_claim(claims, path) is None for path in wanted)
        endpoint = known.metadata.get("userinfo_endpoint")
        if not missing or not access_token or not is_safe_url(endpoint):
            return claims
        more = self._client.get(str(endpoint), access_token)
        if more.get("sub") != claims["sub"]:  # OpenID Connect Core, section 5.3.2
            raise SignInFailed("token", "the userinfo endpoint describes another user")
        return {**more, **claims}  # signed claims win

    def _ask(self) -> _Known:
        """Return the metadata, at most an hour old; older if the provider does not answer.

        After a failure nothing is fetched for some seconds: each attempt can take ``timeout_s``,
        and every sign-in would wait for its own.
        """
        with self._lock:
            # The lock is held while fetching: other sign-ins wait for this answer instead of asking
            # too.
            now_ms, known = self._clock(), self._known
            if known is not None and now_ms - known.at_ms < _FRESH_MS:
                return known
            if self._failure is not None and now_ms - self._failure[0] < _AFTER_FAILURE_MS:
                if known is not None:
                    return known
                raise ProviderUnavailable(self._failure[1])
            try:
                self._known = self._fetch(now_ms)
            except ProviderUnavailable as error:
                self._failure = (self._clock(), str(error))
                if known is None:
                    raise
                return known
            self._failure = None
            return self._known

    def _fetch(self, now_ms: int) -> _Known:
        issuer = self.config.issuer
        url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = self._client.get(url)
        if metadata.get("issuer") != issuer:
            raise ProviderWrong(
                f"{url}: its issuer is {metadata.get('issuer')!r}, and oidc.issuer is {issuer!r}: "
                "set oidc.issuer to exactly the provider's"
            )
        for name in ("authorization_endpoint", "token_endpoint"):
            _endpoint(metadata, name)
        keys = read_keys(self._client.get(_endpoint(metadata, "jwks_uri")))
        return _Known(now_ms, metadata, keys)

    def _new_keys(self, before: _Known) -> Any:
        """Fetch the keys again, at most every ten seconds: tokens with invented key ids must not
        make the desk flood the provider."""
        with self._lock:
            known = self._known or before
            if known is not before or self._clock() - known.at_ms < _NEW_KEYS_MS:
                return known.keys
            self._known = self._fetch(self._clock())
            return self._known.keys


def _derive(secret: str, use: str) -> str:
    """Derive 256 bits for one use. They do not reveal the secret."""
    digest = hmac.new(secret.encode(), f"clerk-desk {use}".encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _endpoint(metadata: Mapping[str, Any], name: str) -> str:
    endpoint = metadata.get(name)
    if not is_safe_url(endpoint):
        raise ProviderWrong(f"the provider's {name} is {endpoint!r}, which is not an https address")
    return str(endpoint)


def _client_authentication(metadata: Mapping[str, Any], config: ProviderConfig) -> str:
    if config.client_secret is None:
        return "none"
    # The default without this entry (OpenID Connect Discovery 1.0, section 3).
    methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    for method in ("client_secret_basic", "client_secret_post"):
        if method in methods:
            return method
    raise ProviderWrong("the provider accepts neither client_secret_basic nor client_secret_post")


def _error_of(error: str) -> Exception:
    """Return the exception for an error code of the provider (RFC 6749, section 4.1.2.1)."""
    if error in {"server_error", "temporarily_unavailable"}:
        return ProviderUnavailable(f"the provider answers {error}")
    if error in {"access_denied", "login_required", "interaction_required", "consent_required"}:
        return SignInFailed("denied", f"the provider answers {error}")
    known = {"invalid_request", "unauthorized_client", "unsupported_response_type", "invalid_scope"}
    what = error if error in known else "an unknown error"  # anyone can send any text here
    return ProviderWrong(f"the provider answers {what}: see oidc.client_id, oidc.scopes")


class ProviderClient:
    """HTTP requests to the provider. Safe from any thread."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._trust = ssl.create_default_context(cafile=config.ca_file)

    def get(self, url: str, access_token: str | None = None) -> Mapping[str, Any]:
        """Return the JSON object at an address. Raises ProviderUnavailable, ProviderWrong."""
        headers = {"Authorization": f"Bearer {access_token}"} if access_token else {}
        with (
            _named(url),
            httpx2.Client(verify=self._trust, timeout=self._config.timeout_s) as client,
        ):
            answer = client.get(url, headers={"Accept": "application/json", **headers})
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise ProviderWrong(f"{url}: is not a JSON object")
        return found

    def authorization_url(self, endpoint: str, *, state: str, nonce: str, verifier: str) -> str:
        """Return the address where the user signs in."""
        with self._session("none") as session:
            url, _ = session.create_authorization_url(
                endpoint, state=state, nonce=nonce, code_verifier=verifier
            )
        return str(url)

    def exchange(
        self, endpoint: str, method: str, *, code: str, verifier: str
    ) -> Mapping[str, Any]:
        """Exchange a code for tokens. ``method`` is how the desk authenticates as a client.

        Raises SignInFailed for a code that is not valid, ProviderUnavailable, ProviderWrong.
        """
        try:
            with _named(endpoint), self._session(method) as session:
                tokens = session.fetch_token(
                    endpoint, grant_type="authorization_code", code=code, code_verifier=verifier
                )
        except OAuthError as error:
            if error.error == "invalid_grant":
                raise SignInFailed("code", "the provider rejects the code") from None
            raise ProviderWrong(
                f"{endpoint}: answers {error.error!r}: check oidc.client_id and the client's secret"
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
    """Turn errors of a request into the desk's, with the address in them."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        if status >= 500 or status == 429:
            raise ProviderUnavailable(f"{url}: answers with status {status}") from None
        raise ProviderWrong(f"{url}: answers with status {status}") from None
    except httpx2.TransportError as error:
        raise ProviderUnavailable(f"{url}: {type(error).__name__}: {error}") from None
    except httpx2.InvalidURL as error:
        raise ProviderWrong(f"{url}: {error}") from None
    except (httpx2.HTTPError, ValueError) as error:
        raise ProviderWrong(f"{url}: cannot be read: {type(error).__name__}") from None


class UnknownKey(Exception):
    """A token is signed by a key that is not in the set; the provider may have new ones."""


def read_keys(published: Mapping[str, Any]) -> KeySet:
    """Return the signing keys of a provider's key set. Keys of unknown types are ignored."""
    keys: list[Key] = []
    listed = published.get("keys")
    for each in listed if isinstance(listed, list) else ():
        # A symmetric key in a public set would let anyone sign.
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
    """Return the claims of a valid ID token: signed by one of these keys, for this client and
    nonce, not expired. Raises UnknownKey, SignInFailed."""
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
        raise SignInFailed(
            "token", "the ID token's claims: sub must be a string of 1 to 255 characters"
        )
    return dict(claims)


def _why(error: Exception) -> str:
    """Name the error without its values: claims are personal data."""
    if isinstance(error, JoseError):
        claim = getattr(error, "claim", "")
        return f"{error.error}{f' ({claim})' if claim else ''}"
    return type(error).__name__
