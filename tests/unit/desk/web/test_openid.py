"""Signing in by an OpenID provider, and what somebody could try against it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc.jwk import KeySet, RSAKey
from structlog.testing import CapturingLogger

from desk.app import provider_config, sign_in_provider, web_options
from desk.auth.provider import Provider
from desk.auth.rules import ProviderConfig
from desk.errors import SettingsError
from desk.service import people
from desk.settings import effective, load_settings
from desk.web.application import build_application
from desk.web.pages import signing
from desk.web.visit import WebOptions
from tests.support.desk_browser import ADDRESS, Browser, visit
from tests.support.desk_world import DeskWorld
from tests.support.openid import CLIENT_ID, SECRET, OpenIdProvider, open_provider

pytestmark = pytest.mark.slow

OPTIONS = WebOptions(method="oidc", owners=("u-owner",))


@pytest.fixture
def provider(world: DeskWorld) -> Iterator[OpenIdProvider]:
    with open_provider(world.clock) as running:
        yield running


class Desk:
    """A desk whose people sign in by this provider. ``visit`` opens another browser."""

    def __init__(self, world: DeskWorld, provider: OpenIdProvider, **changes: Any) -> None:
        config = ProviderConfig(provider.issuer, CLIENT_ID, ADDRESS, SECRET, timeout_s=2.0)
        self.provider, self.world = provider, world
        self.client = Provider(replace(config, **changes), world.clock)
        self.options = OPTIONS

    def visit(self) -> Browser:
        app = build_application(self.world.desk, self.options, self.client)
        return Browser(visit(app), None)

    def go(self, visitor: Browser, path: str = "/sign-in") -> str:
        """Go to the provider; return where it sends the browser back to."""
        return self.provider.consent(visitor.get(path).headers["location"])

    def enter(self, visitor: Browser | None = None) -> tuple[Browser, Any]:
        visitor = visitor or self.visit()
        return visitor, visitor.get(self.go(visitor))


@pytest.fixture
def desk(world: DeskWorld, provider: OpenIdProvider) -> Desk:
    return Desk(world, provider)


def test_somebody_signs_in_and_is_where_they_wanted_to_be(desk: Desk) -> None:
    """From any page, over the provider, back to that page, with a pseudonym of the desk's own."""
    visitor = desk.visit()
    to_sign_in = visitor.get("/my-day").headers["location"]
    assert to_sign_in == f"{ADDRESS}/sign-in?next=%2Fmy-day"
    back = visitor.get(desk.go(visitor, to_sign_in))
    assert back.headers["location"] == "/my-day"
    assert "Ada Byron" in visitor.get("/my-day").text
    (person,) = [each for each in desk.world.people() if each.name == "Ada Byron"]
    assert person.subject == f"{desk.provider.issuer} u-1"
    assert person.role == "reviewer"
    assert person.pseudonym.startswith("annotator-")
    assert desk.world.log()[0]["action"] == "person.arrived"
    assert visitor.get("/people").status_code == 403
    desk.enter()
    assert len(desk.world.people()) == 1


def test_what_is_asked_of_the_provider_binds_the_answer(desk: Desk) -> None:
    """Code flow, PKCE by S256, and a state, nonce and challenge of its own for each attempt."""
    asked = [
        parse_qs(urlsplit(desk.visit().get("/sign-in").headers["location"]).query) for _ in range(2)
    ]
    assert asked[0]["scope"] == ["openid profile"]
    assert asked[0]["redirect_uri"] == [f"{ADDRESS}/sign-in/callback"]
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[0][name][0]) >= 43
        assert asked[0][name] != asked[1][name]
    assert len({asked[0][name][0] for name in ("state", "nonce", "code_challenge")}) == 3


def test_the_cookies_are_for_this_host_and_no_script(desk: Desk) -> None:
    """What is kept meanwhile goes after ten minutes; the hint goes to the page of leaving alone."""
    desk.options = replace(OPTIONS, secure=True, host="10.0.0.1")
    visitor = desk.visit()
    leaving = visitor.get("/sign-in")
    kept = leaving.headers["set-cookie"]
    assert kept.startswith("__Host-clerk_desk_provider=")
    for word in ("HttpOnly", "Secure", "SameSite=lax", "Max-Age=600"):
        assert word in kept
    value = kept.partition("=")[2].partition(";")[0]
    back = desk.provider.consent(leaving.headers["location"])
    given = visitor.get(back, Cookie=f"__Host-clerk_desk_provider={value}").headers.get_list(
        "set-cookie"
    )
    (hint,) = [each for each in given if "hint" in each]
    assert "Path=/sign-out" in hint
    assert any(each.startswith("__Host-clerk_desk=") for each in given)


def refused(desk: Desk, answer: Any, status: int, reason: str, name: str = "") -> None:
    """Nobody is let in, and the log says why, from where, and who if the provider named a user."""
    assert answer.status_code == status
    assert "Sign in again" in answer.text
    assert "clerk_desk=" not in str(answer.headers.get("set-cookie"))
    assert desk.world.people() == []
    failures = [each for each in desk.world.log() if each["action"] == "sign_in.failed"]
    if status == 400:
        assert failures == []  # anyone who sends a browser here with nothing fills no log
    else:
        detail = {"method": "oidc", "name": name, "address": "testclient", "reason": reason}
        assert failures[0]["detail"] == detail


def test_an_answer_to_another_browser_is_refused(desk: Desk) -> None:
    """Or somebody would work under a stranger's name: nor does an answer nobody asked for count."""
    back = desk.go(desk.visit())
    refused(desk, desk.visit().get(back), 400, "state")
    other = desk.visit()
    desk.go(other)
    refused(desk, other.get(back), 400, "state")
    refused(desk, desk.visit().get("/sign-in/callback"), 400, "state")
    refused(desk, desk.visit().get("/sign-in/callback?state=&code=x"), 400, "state")


def test_an_answer_counts_once(desk: Desk) -> None:
    """Neither the address, nor the address with the cookie that belonged to it, lets in again."""
    visitor = desk.visit()
    leaving = visitor.get("/sign-in")
    kept = visitor.client.cookies[OPTIONS.provider_cookie]
    back = desk.provider.consent(leaving.headers["location"])
    assert visitor.get(back).status_code == 303
    assert visitor.get(back).status_code == 400
    again = desk.visit()
    again.client.cookies.set(OPTIONS.provider_cookie, kept)
    assert again.get(back).status_code == 403
    assert desk.world.log()[0]["detail"]["reason"] == "code"


def test_a_code_of_somebody_elses_sign_in_is_refused(desk: Desk) -> None:
    """Put into one's own answer: its verifier is another browser's."""
    stolen = parse_qs(urlsplit(desk.go(desk.visit())).query)["code"][0]
    visitor = desk.visit()
    mine = parse_qs(urlsplit(desk.go(visitor)).query)["state"][0]
    answer = visitor.get(f"/sign-in/callback?code={stolen}&state={mine}")
    refused(desk, answer, 403, "code")


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "another client"},
        {"aud": [CLIENT_ID, "another"], "azp": "another"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"sub": ""},
        {"sub": 7},
        {"at_hash": "x"},
    ],
    ids=str,
)
def test_a_token_with_other_claims_is_refused(desk: Desk, changed: dict[str, Any]) -> None:
    def change(claims: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in (claims | changed).items() if value is not None}

    desk.provider.change = change
    refused(desk, desk.enter()[1], 403, "token")


@pytest.mark.parametrize("algorithm", ["none", "HS256"])
def test_a_token_that_anybody_could_sign_is_refused(desk: Desk, algorithm: str) -> None:
    """Also where the provider says that it signs so: with no key, or with what it publishes."""
    desk.provider.algorithm = algorithm
    desk.provider.metadata = {"id_token_signing_alg_values_supported": [algorithm, "RS256"]}
    refused(desk, desk.enter()[1], 403, "token")


def test_a_token_by_another_key_is_refused(desk: Desk) -> None:
    desk.provider.published = desk.provider.keys
    desk.provider.keys = KeySet([RSAKey.generate_key(2048)])
    refused(desk, desk.enter()[1], 403, "token")
    desk.provider.published.keys[0].ensure_kid()
    kid = desk.provider.published.keys[0].kid
    assert kid is not None
    forged = RSAKey.generate_key(2048, {"kid": kid})
    desk.provider.keys = KeySet([forged])
    refused(desk, desk.enter()[1], 403, "token")


def test_new_keys_of_the_provider_are_fetched(desk: Desk, world: DeskWorld) -> None:
    """Providers change them; but tokens by unknown keys make no flood of requests."""
    desk.enter()
    desk.provider.keys = KeySet([RSAKey.generate_key(2048)])
    assert desk.enter()[1].status_code == 403
    world.clock.move(11)
    assert desk.enter()[1].status_code == 303
    assert desk.provider.asked.count("/keys") == 2


def test_signing_in_leads_nowhere_else(desk: Desk) -> None:
    """A link that ends at another site after signing in is a trap; nor is a cookie believed that
    was written by hand."""
    visitor = desk.visit()
    back = desk.go(visitor, "/sign-in?next=//elsewhere.example")
    assert visitor.get(back).headers["location"] == "/"
    visitor = desk.visit()
    back = desk.go(visitor)
    secret = visitor.client.cookies[OPTIONS.provider_cookie].partition(".")[0]
    visitor.client.cookies.clear()
    visitor.client.cookies.set(OPTIONS.provider_cookie, f"{secret}.Ly9lbHNld2hlcmUuZXhhbXBsZQ")
    assert visitor.get(back).headers["location"] == "/"


def test_another_providers_answer_is_refused(desk: Desk) -> None:
    """Where it says whose it is (RFC 9207)."""
    visitor = desk.visit()
    back = desk.go(visitor)
    refused(desk, visitor.get(f"{back}&iss=https://elsewhere.example"), 403, "issuer")
    visitor = desk.visit()
    back = desk.go(visitor)
    assert visitor.get(f"{back}&iss={desk.provider.issuer}").status_code == 303


def test_whoever_turns_back_is_told(desk: Desk) -> None:
    visitor = desk.visit()
    state = parse_qs(urlsplit(desk.go(visitor)).query)["state"][0]
    answer = visitor.get(f"/sign-in/callback?error=access_denied&state={state}")
    refused(desk, answer, 403, "denied")
    assert "did not let you in" in answer.text


ROLES = {"owner": ("desk-owners",), "adjudicator": ("leads",), "reviewer": ("support",)}


def test_roles_come_from_a_claim_at_each_sign_in(
    world: DeskWorld, provider: OpenIdProvider
) -> None:
    """The highest that the claim holds; a change there is a change here, and is in the log."""
    desk = Desk(world, provider, role_claim="realm.groups", roles=ROLES)
    provider.person = {"sub": "u-1", "name": "Ada", "realm": {"groups": ["support", "leads", 7]}}
    visitor, _ = desk.enter()
    assert visitor.get("/accuracy").status_code == 200
    assert visitor.get("/people").status_code == 403
    provider.person["realm"] = {"groups": "desk-owners"}
    desk.enter()
    assert visitor.get("/people").status_code == 200
    changed = [each["detail"] for each in desk.world.log() if each["action"] == "person.changed"]
    assert [each["role"] for each in changed] == ["owner"]
    provider.person["realm"] = {"groups": ["support"]}
    desk.enter()
    assert visitor.get("/people").status_code == 403


def test_roles_that_come_from_the_provider_are_not_given_here(
    world: DeskWorld, provider: OpenIdProvider
) -> None:
    """The next sign-in would take them back; accounts can be closed all the same."""
    desk = Desk(world, provider, role_claim="groups", roles=ROLES)
    provider.person = {"sub": "u-1", "name": "Ada", "groups": ["support"]}
    visitor, _ = desk.enter()
    provider.person = {"sub": "u-2", "name": "Dora", "groups": ["desk-owners"]}
    owner, _ = desk.enter()
    page = owner.get("/people").text
    assert "The sign-in service gives roles" in page
    assert 'name="role"' not in page
    ada = next(each for each in desk.world.people() if each.name == "Ada")
    values = {"person": ada.id, "role": "owner", "action": "role"}
    assert owner.post("/people", values).status_code == 409
    assert owner.post("/people", {**values, "action": "close"}).status_code == 303
    assert visitor.get("/my-day").status_code == 303


@pytest.mark.parametrize("groups", [None, ["others"], "supporters", {"support": True}, [None]])
def test_whoever_has_no_role_is_told_so(
    world: DeskWorld, provider: OpenIdProvider, groups: Any
) -> None:
    desk = Desk(world, provider, role_claim="groups", roles=ROLES)
    provider.person = {"sub": "u-1", "name": "Ada <b>Byron</b>", "groups": groups}
    _, answer = desk.enter()
    assert "knows you as Ada &lt;b&gt;Byron&lt;/b&gt;, with no role at this desk" in answer.text
    refused(desk, answer, 403, "role", "Ada <b>Byron</b>")


def test_a_claim_by_a_name_with_dots_is_found(world: DeskWorld, provider: OpenIdProvider) -> None:
    name = "https://shop.example/roles"
    desk = Desk(world, provider, role_claim=name, roles=ROLES)
    provider.person = {"sub": "u-1", "name": "Ada", name: ["leads"]}
    visitor, _ = desk.enter()
    assert visitor.get("/accuracy").status_code == 200


def test_what_the_token_does_not_say_is_asked_for(
    world: DeskWorld, provider: OpenIdProvider
) -> None:
    """At the userinfo endpoint, which has to speak of the same person."""
    desk = Desk(world, provider, role_claim="groups", roles=ROLES)
    provider.person = {"sub": "u-1"}
    provider.userinfo = {"name": "Ada Byron", "groups": ["leads"]}
    visitor, _ = desk.enter()
    assert "Ada Byron" in visitor.get("/accuracy").text
    provider.userinfo |= {"sub": "u-2", "groups": ["desk-owners"]}
    assert desk.enter()[1].status_code == 403
    assert visitor.get("/people").status_code == 403


def test_without_a_role_claim_the_desk_gives_roles(desk: Desk) -> None:
    """Owners by their sub; a role that an owner gave is kept at the next sign-in."""
    desk.provider.person = {"sub": "u-owner", "preferred_username": "grace"}
    owner, _ = desk.enter()
    assert "grace" in owner.get("/people").text
    desk.provider.person = {"sub": "u-1", "name": "Ada"}
    visitor, _ = desk.enter()
    by = next(each for each in desk.world.people() if each.role == "owner")
    ada = next(each for each in desk.world.people() if each.name == "Ada")
    people.change(desk.world.desk, by, ada.id, role="adjudicator")
    desk.enter(visitor)
    assert visitor.get("/accuracy").status_code == 200
    people.change(desk.world.desk, by, ada.id, active=False)
    _, answer = desk.enter()
    assert answer.status_code == 403
    assert "This account has been closed" in answer.text


def test_leaving_leaves_the_provider_too(desk: Desk) -> None:
    """By a page of the desk, since no form may end elsewhere; with the token as a hint to who."""
    visitor, _ = desk.enter()
    token = visitor.client.cookies[OPTIONS.session_cookie]
    page = visitor.post("/sign-out", {})
    assert page.status_code == 200
    assert "Ada Byron" not in page.text
    found = urlsplit(
        page.text.partition('content="0; url=')[2].partition('"')[0].replace("&amp;", "&")
    )
    assert found.path == "/end"
    assert parse_qs(found.query) == {
        "client_id": [CLIENT_ID],
        "post_logout_redirect_uri": [f"{ADDRESS}/signed-out"],
        "id_token_hint": [desk.provider.tokens[-1]],
    }
    assert visitor.get("/signed-out").status_code == 200
    visitor.client.cookies.set(OPTIONS.session_cookie, token)
    assert visitor.get("/").status_code == 303


@pytest.mark.parametrize("changes", [{"ends_session": False}, {}])
def test_leaving_where_there_is_nothing_to_leave(
    world: DeskWorld, provider: OpenIdProvider, changes: dict[str, Any]
) -> None:
    if not changes:
        provider.metadata = {"end_session_endpoint": None}
    desk = Desk(world, provider, **changes)
    visitor, _ = desk.enter()
    page = visitor.post("/sign-out", {}).text
    assert "Sign in again" in page
    assert "http-equiv" not in page


def test_while_the_provider_is_away_people_are_told(
    world: DeskWorld, provider: OpenIdProvider, desk: Desk
) -> None:
    """It is asked again after some seconds; anyone who is signed in works on."""
    provider.broken = {"/.well-known/openid-configuration": (503, b"")}
    for _ in range(3):
        answer = desk.visit().get("/sign-in")
        assert answer.status_code == 503
        assert "does not answer" in answer.text
    assert len(provider.asked) == 1
    provider.broken = {}
    world.clock.move(6)
    visitor, _ = desk.enter()
    provider.broken = {"/.well-known/openid-configuration": (503, b""), "/token": (502, b"")}
    world.clock.move(3_601)
    assert visitor.get("/my-day").status_code == 200
    assert desk.enter()[1].status_code == 503
    provider.broken = {"/.well-known/openid-configuration": (503, b"")}
    assert desk.enter()[1].status_code == 303


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/.well-known/openid-configuration", b"[]", 200),
        ("/.well-known/openid-configuration", b'{"issuer": "https://elsewhere.example"}', 200),
        ("/keys", b"<html>", 200),
        ("/token", b"{}", 200),
        ("/token", b'{"error": "invalid_client"}', 401),
    ],
)
def test_a_provider_that_is_not_set_up_is_the_operators_to_mend(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes, status: int
) -> None:
    """People are told whom to ask; the log has the address and what is wrong with it."""
    log = CapturingLogger()
    monkeypatch.setattr(signing, "_log", log)
    desk.provider.broken = {path: (status, body)}
    visitor = desk.visit()
    answer = visitor.get("/sign-in")
    if path == "/token":
        answer = visitor.get(desk.provider.consent(answer.headers["location"]))
    assert answer.status_code == 500
    assert "Sign-in is not set up correctly" in answer.text
    assert [call.args for call in log.calls] == [("oidc.misconfigured",)]
    assert desk.world.people() == []
    assert SECRET not in str(log.calls) + answer.text + repr(desk.client.config)


def test_endpoints_without_encryption_are_not_used(desk: Desk) -> None:
    """A provider that says so has been tampered with, or set up for a laptop."""
    desk.provider.metadata = {"token_endpoint": "http://elsewhere.example/token"}
    assert desk.visit().get("/sign-in").status_code == 500


OIDC = {
    "sign_in.method": "oidc",
    "oidc.issuer": "https://id.example.com",
    "oidc.client_id": "desk",
    "oidc.public_url": "https://desk.example.com",
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"oidc.issuer": ""}, "oidc.issuer is empty"),
        ({"oidc.issuer": "http://id.example.com"}, "must begin with https"),
        ({"oidc.public_url": "https://desk.example.com/"}, "without a slash"),
        ({"web.hostnames": "elsewhere.example"}, "not among web.hostnames"),
        ({"oidc.scopes": "profile"}, "lacks openid"),
        ({"oidc.role_claim": "groups"}, "nobody could sign in"),
        ({"oidc.owners": "leads"}, "role_claim is empty"),
        ({"oidc.ca_file": "/nowhere"}, "is not a file"),
        ({"oidc.client_secret_file": "/nowhere"}, "cannot be read: No such file"),
    ],
    ids=str,
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, str], words: str) -> None:
    flags = [f"{key}={value}" for key, value in (OIDC | changes).items()]
    with pytest.raises(SettingsError, match=words):
        web_options(load_settings(None, flags).settings)


def test_the_secret_comes_from_a_file_or_a_setting(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("from the file\n")
    flags = [f"{key}={value}" for key, value in OIDC.items()]
    by_file = load_settings(None, [*flags, f"oidc.client_secret_file={path}"])
    assert provider_config(by_file.settings).client_secret == "from the file"
    by_value = load_settings(None, [*flags, "oidc.client_secret=hush"])
    assert provider_config(by_value.settings).client_secret == "hush"
    assert "hush" not in str(list(effective(by_value))) + repr(by_value.settings)
    both = load_settings(None, [*flags, "oidc.client_secret=x", f"oidc.client_secret_file={path}"])
    with pytest.raises(SettingsError, match="both"):
        provider_config(both.settings)
    path.write_text(" ")
    with pytest.raises(SettingsError, match="is empty"):
        provider_config(by_file.settings)


def test_a_desk_starts_while_its_provider_is_away(provider: OpenIdProvider) -> None:
    flags = [f"{key}={value}" for key, value in OIDC.items()]
    flags += [f"oidc.issuer={provider.issuer}"]
    provider.broken = {"/.well-known/openid-configuration": (503, b"")}
    assert sign_in_provider(load_settings(None, flags).settings) is not None
    provider.broken = {}
    assert sign_in_provider(load_settings(None, flags).settings) is not None
    provider.metadata = {"issuer": "https://elsewhere.example"}
    with pytest.raises(SettingsError, match="exactly the provider"):
        sign_in_provider(load_settings(None, flags).settings)
    assert sign_in_provider(load_settings(None).settings) is None
