"""Proving who one is, staying so for a while, and leaving."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from desk.auth.passwords import Attempts, SignInQueue, hash_password, is_password
from desk.auth.rules import check_sign_in, is_trusted
from desk.errors import Refused, SettingsError
from desk.service import people
from desk.store.types import Person
from desk.web.application import build_application
from desk.web.visit import WebOptions
from tests.support.desk_browser import LOCAL, Browser, NewBrowser, field, visit
from tests.support.desk_world import DeskWorld, FakeClock

pytestmark = pytest.mark.slow

PASSWORD = "a long enough password"
SECURED = replace(LOCAL, secure=True, host="10.0.0.1")
PROXY = WebOptions(method="proxy", proxy_addresses=("testclient",), owners=("ada",))


@pytest.fixture(scope="module")
def hashed() -> str:
    return hash_password(PASSWORD)


def sign_in(visitor: Browser, name: str, password: str, **headers: str) -> int:
    """Fill the form in and send it."""
    page = visitor.get("/sign-in").text
    values = {"csrf": field(page, "csrf"), "name": name, "password": password}
    return visitor.client.post("/sign-in", data=values, headers=headers).status_code


def test_a_password_lets_in_and_another_does_not(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """What is said does not tell whether there is somebody by that name."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    visitor = browser()
    assert visitor.get("/").headers["location"] == "/sign-in"
    assert sign_in(visitor, "ada", "not it at all") == 401
    assert sign_in(visitor, "nobody", PASSWORD) == 401
    assert sign_in(visitor, "ada", PASSWORD) == 303
    assert visitor.get("/people").status_code == 200
    with pytest.raises(Refused, match="already"):
        people.add_local(world.desk, "ada", "ada", "owner", hashed)


def test_the_form_leads_nowhere_else(world: DeskWorld, browser: NewBrowser, hashed: str) -> None:
    """A link that ends at another site after signing in is a trap."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    for path in ("//elsewhere.example", "https://elsewhere.example", "/\\elsewhere.example", ""):
        visitor = browser()
        page = visitor.get("/sign-in").text
        values = {"csrf": field(page, "csrf"), "name": "ada", "password": PASSWORD, "next": path}
        assert visitor.client.post("/sign-in", data=values).headers["location"] == "/"


def test_cookies_are_for_this_host_and_no_script(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """HttpOnly and SameSite always; Secure, and the prefix that binds it, beyond this machine."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    cookie = browser(options=LOCAL).get("/sign-in").headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "secure" not in cookie
    visitor = browser(options=SECURED)
    cookie = visitor.get("/sign-in").headers["set-cookie"]
    assert cookie.startswith("__Host-")
    assert "Secure" in cookie
    assert "strict-transport-security" in visitor.get("/sign-in").headers


@pytest.mark.parametrize(
    ("options", "origin", "says"),
    [
        (SECURED, "http://10.0.0.1:8090", "TLS is missing"),
        (SECURED, "https://10.0.0.1:8090", "earlier session"),  # a proxy with TLS, cookie lost
        (LOCAL, "http://10.0.0.1:8090", "earlier session"),
    ],
)
def test_over_plain_http_a_sign_in_names_the_missing_tls(
    browser: NewBrowser, options: WebOptions, origin: str, says: str
) -> None:
    """The browser drops the cookie of the form, so each reload would fail in the same way."""
    visitor = browser(options=options)
    host = "10.0.0.1:8090"
    csrf = field(visitor.get("/sign-in", Host=host).text, "csrf")
    visitor.client.cookies.clear()
    values = {"csrf": csrf, "name": "ada", "password": PASSWORD}
    sent = visitor.client.post("/sign-in", data=values, headers={"Host": host, "Origin": origin})
    assert sent.status_code == 403
    assert says in sent.text


def test_a_session_ends_by_age_and_by_rest(world: DeskWorld, browser: NewBrowser) -> None:
    options = replace(LOCAL, longest_ms=3_600_000, idle_ms=600_000)
    idle, busy = browser("ada", options=options), browser("bo", options=options)
    for _ in range(11):
        world.clock.move(300)
        assert busy.get("/my-day").status_code == 200
    assert idle.get("/my-day").status_code == 303
    world.clock.move(301)
    assert busy.get("/my-day").status_code == 303


def test_leaving_ends_the_session(world: DeskWorld, browser: NewBrowser) -> None:
    world.add()
    ada = browser("ada")
    ada.open("/review")
    token = ada.client.cookies[LOCAL.session_cookie]
    assert ada.post("/sign-out", {}).status_code == 303
    ada.client.cookies.set(LOCAL.session_cookie, token)
    assert ada.get("/").status_code == 303
    assert browser("bo").open("/review").text.count('class="task"') == 1


def test_the_database_holds_no_token_and_no_password(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """Anyone who reads it cannot sign in with what is there."""
    people.add_local(world.desk, "bo", "bo", "reviewer", hashed)
    token = browser("ada").client.cookies[LOCAL.session_cookie]
    with world.database.read() as tx:
        rows = [*tx.exec_driver_sql("SELECT * FROM sessions")]
        rows += tx.exec_driver_sql("SELECT * FROM passwords")
    assert len(rows) == 2
    assert token not in str(rows)
    assert PASSWORD not in str(rows)


NEW_PASSWORD = "another long password"


def change_password(visitor: Browser, old: str, new: str, again: str | None = None) -> Any:
    """Send the form of the page Change password."""
    repeated = new if again is None else again
    return visitor.post("/password", {"old": old, "new": new, "again": repeated})


def test_users_change_their_own_password(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """The other sessions end, this browser stays signed in, and the log has no password."""
    people.add_local(world.desk, "ada", "ada", "reviewer", hashed)
    here, elsewhere, owner = browser(), browser(), browser("bo", "owner")
    assert sign_in(here, "ada", PASSWORD) == sign_in(elsewhere, "ada", PASSWORD) == 303
    token = here.client.cookies[LOCAL.session_cookie]
    assert 'href="/password"' in here.get("/my-day").text
    with capture_logs() as logged:
        changed = change_password(here, PASSWORD, NEW_PASSWORD)
    assert (changed.status_code, changed.headers["location"]) == (303, "/password?changed=1")
    assert "is changed" in here.get("/password?changed=1").text
    assert here.client.cookies[LOCAL.session_cookie] != token
    assert elsewhere.get("/").status_code == 303
    assert sign_in(elsewhere, "ada", PASSWORD) == 401
    assert sign_in(elsewhere, "ada", NEW_PASSWORD) == 303
    page, entries = owner.get("/log").text, world.log()
    [entry] = [each for each in entries if each["action"] == "password.changed"]
    ada = account(world, "ada")
    assert entry["pseudonym"] == ada.pseudonym
    assert entry["detail"] == {"person": ada.pseudonym}
    for secret in (PASSWORD, NEW_PASSWORD):
        assert secret not in page + str(entries) + str(logged)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("not it at all", (NEW_PASSWORD, NEW_PASSWORD), "Wrong password"),
        ("", (NEW_PASSWORD, NEW_PASSWORD), "Wrong password"),
        (PASSWORD, (NEW_PASSWORD, "another long passwort"), "differ"),
        (PASSWORD, ("short", "short"), "12 to 256 characters"),
    ],
)
def test_a_password_is_not_changed_by_a_wrong_form(
    world: DeskWorld, browser: NewBrowser, hashed: str, old: str, new: tuple[str, str], says: str
) -> None:
    people.add_local(world.desk, "ada", "ada", "reviewer", hashed)
    here = browser()
    sign_in(here, "ada", PASSWORD)
    refused = change_password(here, old, *new)
    assert refused.status_code == 409
    assert says in refused.text
    assert people.password_hash(world.desk, "ada") == hashed
    assert here.get("/my-day").status_code == 200


def test_guessing_the_old_password_becomes_slow(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """An unattended browser must not serve to find the password out. Guesses are in the log."""
    people.add_local(world.desk, "ada", "ada", "reviewer", hashed)
    here = browser()
    sign_in(here, "ada", PASSWORD)
    csrf = here.csrf()
    form = {"csrf": csrf, "old": "x" * 300, "new": NEW_PASSWORD, "again": NEW_PASSWORD}
    codes = [here.client.post("/password", data=form).status_code for _ in range(8)]
    assert codes == [409] * 6 + [429] * 2
    assert change_password(here, PASSWORD, NEW_PASSWORD).status_code == 429
    entry = world.log()[0]
    assert (entry["action"], entry["detail"]["reason"]) == ("sign_in.failed", "old_password")


def test_an_owner_too_needs_the_old_password(
    world: DeskWorld, browser: NewBrowser, hashed: str
) -> None:
    """The page People resets the others' passwords without it."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    here = browser()
    sign_in(here, "ada", PASSWORD)
    own = {"action": "password", "person": account(world, "ada").id, "password": NEW_PASSWORD}
    refused = here.post("/people", own)
    assert refused.status_code == 409
    assert "Change password" in refused.text
    assert people.password_hash(world.desk, "ada") == hashed


def test_no_password_to_change_where_users_sign_in_elsewhere(browser: NewBrowser) -> None:
    visitor = browser(options=WebOptions())
    page = visitor.get("/my-day").text
    assert 'href="/password"' not in page
    assert visitor.get("/password").headers["location"] == "/"
    form = {"csrf": field(page, "csrf"), "old": "", "new": NEW_PASSWORD, "again": NEW_PASSWORD}
    assert visitor.client.post("/password", data=form).headers["location"] == "/"


def account(world: DeskWorld, subject: str) -> Person:
    """The account with this name."""
    return next(each for each in world.people() if each.subject == subject)


HERE, ELSEWHERE = "192.0.2.1", "198.51.100.7"


def fails(attempts: Attempts, address: str, name: str) -> float:
    """Guess wrong; return the seconds to wait, 0 if the guess was checked."""
    wait_s = attempts.begin(address, name)
    if not wait_s:
        attempts.end(address, name, right=False)
    return wait_s


def test_guessing_a_name_from_one_address_becomes_slow() -> None:
    clock = FakeClock()
    attempts = Attempts(clock)
    assert [fails(attempts, HERE, "ada") for _ in range(6)] == [0] * 6
    for wait_s in (1, 2, 4, 8, 16, 32, 60, 60):
        assert fails(attempts, HERE, "ada") == wait_s
        clock.move(wait_s)
        assert fails(attempts, HERE, "ada") == 0
    assert fails(attempts, HERE, "bo") == 0
    assert fails(attempts, ELSEWHERE, "ada") == 0
    clock.move(60)
    assert attempts.begin(HERE, "ada") == 0
    attempts.end(HERE, "ada", right=True)
    assert [fails(attempts, HERE, "ada") for _ in range(6)] == [0] * 6


def test_guessing_many_names_from_one_address_becomes_slow() -> None:
    """A success of one name does not reset it: the guesser may have an account."""
    attempts = Attempts(FakeClock())
    waits = []
    for n in range(30):
        waits.append(fails(attempts, HERE, f"person{n}"))
        if attempts.begin(HERE, "mallory") == 0:
            attempts.end(HERE, "mallory", right=True)
    assert waits[:21] == [0] * 21
    assert min(waits[21:]) >= 1
    assert fails(attempts, ELSEWHERE, "person29") == 0


def test_addresses_of_one_ipv6_network_are_one_guesser() -> None:
    attempts = Attempts(FakeClock())
    waits = [fails(attempts, f"2001:db8::{n:x}", "ada") for n in range(8)]
    assert waits == [0] * 6 + [1] * 2
    assert fails(attempts, "2001:db8:0:1::1", "ada") == 0


def test_failures_are_forgotten_after_a_quarter_of_an_hour() -> None:
    """The typing mistakes of an office behind one address do not add up for days."""
    clock = FakeClock()
    attempts = Attempts(clock)
    for n in range(100):
        assert fails(attempts, HERE, f"person{n % 10}") == 0
        clock.move(901)


def test_parallel_guesses_are_limited_like_sequential_ones() -> None:
    """An attempt counts while it is being checked: forty connections would be forty guesses."""
    attempts = Attempts(FakeClock())
    assert [attempts.begin(HERE, "ada") for _ in range(8)] == [0] * 6 + [1] * 2


def test_sign_ins_of_one_address_wait_in_line() -> None:
    """24 connections that guess took every check, and all right passwords were refused. Now two run
    for one address, others are not delayed, and the line has an end."""

    async def scene() -> None:
        queue = SignInQueue()
        running: list[str] = []
        most: list[int] = []
        release = asyncio.Event()

        async def sign_in_from(address: str) -> bool:
            async with queue.turn(address) as in_turn:
                if in_turn:
                    running.append(address)
                    most.append(running.count(HERE))
                    await release.wait()
                    running.remove(address)
                return in_turn

        guesses = [asyncio.ensure_future(sign_in_from(HERE)) for _ in range(60)]
        await asyncio.sleep(0)
        right = [asyncio.ensure_future(sign_in_from(f"198.51.100.{n}")) for n in range(6)]
        for _ in range(10):
            await asyncio.sleep(0)
        assert running.count(HERE) == 2
        assert len(running) == 8
        release.set()
        assert await asyncio.gather(*right) == [True] * 6
        assert await asyncio.gather(*guesses) == [True] * 50 + [False] * 10
        assert max(most) == 2
        assert await sign_in_from(HERE)

    asyncio.run(scene())


def test_behind_a_proxy_the_forwarded_address_counts(world: DeskWorld, hashed: str) -> None:
    """If the proxy is named. Otherwise the header is anybody's, and the log says what to set."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    named = build_application(world.desk, replace(LOCAL, proxy_addresses=("10.0.0.0/8",)))
    proxy = Browser(visit(named, "10.1.2.3"), None)
    for _ in range(8):
        code = sign_in(proxy, "ada", "x" * 300, **{"X-Forwarded-For": f"{ELSEWHERE}, {HERE}"})
    assert code == 429
    # A guesser can only prepend addresses: the proxy adds the last one.
    assert sign_in(proxy, "ada", PASSWORD, **{"X-Forwarded-For": f"10.9.9.9, {HERE}"}) == 429
    assert sign_in(proxy, "ada", PASSWORD, **{"X-Forwarded-For": ELSEWHERE}) == 303
    unnamed = Browser(visit(build_application(world.desk, LOCAL), "10.1.2.3"), None)
    with capture_logs() as logged:
        codes = [
            sign_in(unnamed, "ada", "x" * 300, **{"X-Forwarded-For": f"192.0.2.{n}"})
            for n in range(8)
        ]
    assert codes == [401] * 6 + [429] * 2
    assert "sign_in.proxy_addresses" in logged[0]["hint"]


def test_passwords_are_hashed_with_the_low_memory_profile_of_rfc_9106() -> None:
    """The other tests hash with less work (tests/unit/desk/conftest.py)."""
    words = "from desk.auth import passwords; print(passwords.hash_password('x' * 12))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_passwords_are_checked() -> None:
    assert not is_password(None, "nobody has this password")
    assert not is_password("no hash", PASSWORD)
    with pytest.raises(ValueError, match="12 to 256"):
        hash_password("short")


def test_a_proxy_is_believed_by_its_address_alone(
    world: DeskWorld, browser: NewBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("desk.web.identity.is_trusted", lambda peer, known: peer in known)
    visitor = browser(options=PROXY)
    assert visitor.get("/").status_code == 401
    assert visitor.get("/people", **{"X-Forwarded-User": "ada"}).status_code == 200
    assert visitor.get("/people", **{"X-Forwarded-User": "bo"}).status_code == 403
    assert visitor.get("/").status_code == 401
    stranger = browser(options=replace(PROXY, proxy_addresses=("10.0.0.1",)))
    assert stranger.get("/", **{"X-Forwarded-User": "ada"}).status_code == 401


def test_a_header_that_is_there_twice_is_nobodys(
    browser: NewBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that adds its header to the visitor's own has not said who it is."""
    monkeypatch.setattr("desk.web.identity.is_trusted", lambda peer, known: peer in known)
    client = browser(options=PROXY).client
    name = PROXY.proxy_header
    assert client.get("/my-day", headers=[(name, "bo")]).status_code == 200
    assert client.get("/my-day", headers=[(name, "ada"), (name, "bo")]).status_code == 401


def test_addresses_of_a_proxy() -> None:
    """Single ones and networks, also where IPv4 comes in IPv6's clothes."""
    assert is_trusted("10.1.2.3", ["10.1.0.0/16"])
    assert is_trusted("::ffff:10.1.2.3", ["10.1.0.0/16"])
    assert not is_trusted("10.2.2.3", ["10.1.0.0/16"])
    assert not is_trusted("", ["0.0.0.0/0"])


@pytest.mark.parametrize(
    ("method", "host", "trusted", "words"),
    [
        ("none", "0.0.0.0", (), "anyone who reaches it"),
        ("none", "desk.example.com", (), "anyone who reaches it"),
        ("proxy", "0.0.0.0", (), "proxy_addresses is empty"),
        ("proxy", "0.0.0.0", ("nowhere",), "neither an address"),
    ],
)
def test_unsafe_ways_are_refused(
    method: str, host: str, trusted: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        check_sign_in(method, host, trusted)  # type: ignore[arg-type]
    for fine in ("127.0.0.1", "::1", "localhost"):
        check_sign_in("none", fine, ())


def test_without_sign_in_only_this_machines_names_are_answered(browser: NewBrowser) -> None:
    """A page elsewhere could point a name of its own at this machine."""
    visitor = browser(options=WebOptions())
    assert visitor.get("/").status_code == 200
    assert visitor.get("/people").status_code == 200
    assert visitor.get("/", Host="elsewhere.example:8090").status_code == 400
    assert visitor.get("/livez", Host="10.0.0.7").status_code == 200


def test_arrivals_and_failures_are_in_the_log(world: DeskWorld, hashed: str) -> None:
    """A failure has the name of the account and the address. An unknown name is left out: users
    type passwords into that field."""
    people.add_local(world.desk, "ada", "ada", "owner", hashed)
    visitor = Browser(visit(build_application(world.desk, LOCAL), HERE), None)
    with capture_logs() as logged:
        sign_in(visitor, "my password by mistake", "x")
        sign_in(visitor, "ada", "not it at all")
        sign_in(visitor, "ada", PASSWORD)
    entries = world.log()
    assert [entry["action"] for entry in entries[:3]] == [
        "person.arrived",
        "sign_in.failed",
        "sign_in.failed",
    ]
    assert [entry["detail"] for entry in entries[1:3]] == [
        {"method": "local", "name": "ada", "address": HERE},
        {"method": "local", "name": "", "address": HERE},
    ]
    failures = [each for each in logged if each["event"] == "sign_in.failed"]
    assert [(each["name"], each["address"]) for each in failures] == [("", HERE), ("ada", HERE)]
    assert "mistake" not in str(entries) + str(logged)
    assert people.find(world.desk, 1).role == "owner"
