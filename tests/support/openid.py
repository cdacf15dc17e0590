"""An OpenID provider on loopback that behaves correctly until a test changes it.

It checks the client's secret, the redirect, the code verifier, and that a code is used once. ``make
test-desk`` logs in through a real provider.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import hashlib
import hmac
import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from desk.clock import Clock
from tests.support.processes import answering, running, serving

CLIENT_ID = "desk"
SECRET = "a secret: of 100 % + more/characters"


@functools.cache
def _usual_key() -> RSAKey:
    return RSAKey.generate_key(2048)


def _unchanged(claims: dict[str, Any]) -> dict[str, Any]:
    return claims


@dataclass
class OpenIdProvider:
    """The provider, and what tests change of it. ``tokens`` holds what it gave out, newest last."""

    clock: Clock
    issuer: str = ""
    keys: KeySet = field(default_factory=lambda: KeySet([_usual_key()]))
    published: KeySet | None = None
    algorithm: str = "RS256"
    person: dict[str, Any] = field(default_factory=lambda: {"sub": "u-1", "name": "Ada Byron"})
    userinfo: dict[str, Any] = field(default_factory=dict)
    change: Callable[[dict[str, Any]], dict[str, Any]] = _unchanged
    metadata: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)

    def consent(self, address: str) -> str:
        """Do as a person who agrees: return the path and query that the browser is sent back to."""
        asked = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = asked
        back = urlsplit(asked["redirect_uri"])
        return f"{back.path}?code={code}&state={asked['state']}"

    def describe(self) -> dict[str, Any]:
        """What it says of itself."""
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/auth",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/me",
            "end_session_endpoint": f"{self.issuer}/end",
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            **self.metadata,
        }

    def redeem(self, form: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Answer at the token endpoint."""
        given = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        if given != f"{CLIENT_ID}:{SECRET}":
            return 401, {"error": "invalid_client"}
        asked = self.codes.pop(form.get("code", ""), None)
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(verifier).decode().rstrip("=")
        if (
            asked is None
            or asked["code_challenge"] != challenge
            or asked["redirect_uri"] != form.get("redirect_uri")
        ):
            return 400, {"error": "invalid_grant"}
        now_s = self.clock() // 1000
        claims = {"iss": self.issuer, "aud": CLIENT_ID, "iat": now_s, "exp": now_s + 300}
        claims |= {"nonce": asked["nonce"], **self.person}
        self.tokens.append(self.sign(self.change(claims)))
        return 200, {"access_token": "access", "token_type": "Bearer", "id_token": self.tokens[-1]}

    def sign(self, claims: dict[str, Any]) -> str:
        """An ID token, by the algorithm of now."""
        key = self.keys.keys[0]
        if self.algorithm in {"none", "HS256"}:  # HS256 with a key that everybody can read
            parts = [json.dumps(each).encode() for each in ({"alg": self.algorithm}, claims)]
            signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
            public = key.as_pem(private=False)  # type: ignore[union-attr]
            mac = hmac.new(public, signed, hashlib.sha256).digest()
            mac = b"" if self.algorithm == "none" else mac
            return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()
        key.ensure_kid()
        return jwt.encode({"alg": self.algorithm, "kid": key.kid}, claims, key)

    def answer(self, path: str, form: dict[str, str], authorization: str) -> tuple[int, bytes]:
        """Return status and body."""
        self.asked.append(path)
        if path in self.broken:
            return self.broken[path]
        if path == "/token":
            status, found = self.redeem(form, authorization)
            return status, json.dumps(found).encode()
        if path == "/me":
            return 200, json.dumps({"sub": self.person["sub"], **self.userinfo}).encode()
        if path == "/keys":
            keys = self.published or self.keys
            for key in keys.keys:
                key.ensure_kid()
            return 200, json.dumps(keys.as_dict(private=False)).encode()
        return 200, json.dumps(self.describe()).encode()


@contextmanager
def open_provider(clock: Clock) -> Iterator[OpenIdProvider]:
    """Run a provider on loopback."""
    provider = OpenIdProvider(clock)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply({})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.reply({key: values[0] for key, values in parse_qs(body).items()})

        def reply(self, form: dict[str, str]) -> None:
            path = urlsplit(self.path).path
            status, body = provider.answer(path, form, self.headers.get("Authorization", ""))
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as provider.issuer:
        yield provider


# A real OpenID provider for the desk's tests: npm's oidc-provider, by the lock file next to it.


FOLDER = Path(__file__).parents[1] / "desk" / "openid"
AXE = FOLDER / "node_modules" / "axe-core" / "axe.min.js"
SERVER_SECRET = "a secret of the day"
PEOPLE = {
    "ada": {"name": "Ada Byron", "groups": ["support"]},
    "bo": {"name": "Bo Diddley", "groups": ["support"]},
    "cleo": {"name": "Cleo Laine", "groups": ["support", "leads"]},
    "dora": {"name": "Dora Maar", "groups": ["managers"]},
    "eve": {"name": "Eve Arden", "groups": ["sales"]},
}
"""The people it knows: two reviewers, an adjudicator, an owner, somebody of another department."""


@contextlib.contextmanager
def openid_server(port: int, desk: str) -> Iterator[str]:
    """Run the provider for the desk at this address; yields the issuer, which is another site."""
    if not AXE.exists():
        command = ["npm", "ci", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=FOLDER, check=True, timeout=300)
    given = json.dumps({"port": port, "desk": desk, "people": PEOPLE})
    issuer = f"http://localhost:{port}"
    with (
        running(["node", "provider.js", given], cwd=FOLDER) as process,
        answering(f"{issuer}/.well-known/openid-configuration", process),
    ):
        yield issuer
