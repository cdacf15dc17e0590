"""The other pages, and what holds for all of them."""

from __future__ import annotations

import re
import time
from typing import get_args
from urllib.parse import urlencode

import pytest

from desk.core.items import DecisionKind, Origin, State
from desk.errors import DatabaseRefused, DatabaseUnavailable
from desk.service import upkeep
from desk.service.guidelines import section_for
from desk.store.types import Role
from desk.web import templates
from desk.web.strings import WORDS
from desk.web.templates import blocks, moment
from tests.support.desk_browser import METRICS, NewBrowser, field
from tests.support.desk_world import DeskWorld
from worker.contract.exchange import AdviceKind, Purpose, Verdict
from worker.contract.scoring import ReviewReason

PAGES = (
    "/", "/review", "/adjudicate", "/search?q=parcel", "/clusters", "/guidelines", "/accuracy",
    "/guidelines/edit", "/my-day", "/people", "/log", "/nowhere", "/load", "/export", "/advice",
    "/proposals",
)  # fmt: skip


def test_every_page_holds_to_the_policy(world: DeskWorld, browser: NewBrowser) -> None:
    """Nothing from elsewhere, no inline script or style, one heading, a language, a width."""
    world.add()
    ada = browser("ada", "owner")
    for path in PAGES:
        answer = ada.get(path)
        policy = dict(
            each.split(" ", 1) for each in answer.headers["content-security-policy"].split("; ")
        )
        assert policy.pop("default-src") == "'none'"
        assert set(policy.values()) <= {"'self'", "'none'"}
        assert {"base-uri", "form-action", "frame-ancestors"} <= policy.keys()
        assert answer.headers["cache-control"] == "no-store"
        page = answer.text
        assert len(re.findall("<h1", page)) == 1, path
        assert '<html lang="en">' in page
        assert "width=device-width" in page
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|javascript:", page), path
        assert re.findall(r"<script[^>]*>([^<]*)</script>", page) == [""]
        assert not re.search(r'(?:src|href|action)="(?!/|#)', page), path


def test_every_value_that_a_page_shows_has_words() -> None:
    values = {
        "advice_kind": AdviceKind, "kind": DecisionKind, "origin": Origin, "purpose": Purpose,
        "reason": ReviewReason, "role": Role, "state": State, "verdict": Verdict,
    }  # fmt: skip
    for family, kind in values.items():
        assert {f"{family}.{value}" for value in get_args(kind)} <= WORDS.keys()


def test_static_files_are_kept_and_change_their_address(browser: NewBrowser) -> None:
    ada = browser("ada")
    for name in ("desk.css", "desk.js", "icon.svg"):
        kept = ada.get(templates.static_address(name))
        assert kept.status_code == 200
        assert "immutable" in kept.headers["cache-control"]
        assert kept.headers["x-content-type-options"] == "nosniff"
    assert ada.get("/static/0/desk.css").headers["cache-control"] == "no-store"
    assert ada.get("/static/0/..%2Fvisit.py").status_code == 404


def test_queues_count_what_can_be_chosen(world: DeskWorld, browser: NewBrowser) -> None:
    """The audit sample is in no count by label: it would tell."""
    world.add(label="refund")
    world.add(label="refund", origin="audit", sample_share=0.02)
    world.add(label="delivery", reasons=("out_of_scope", "low_confidence"))
    page = browser("ada").get("/").text
    counts = dict(
        re.findall(
            r'href="([^"]+)"><span>[^/]*?(?:<small>[^<]*</small>)?</span>'
            r'<span class="count">(\d+)<',
            page,
        )
    )
    assert counts["/review?order=oldest"] == "3"
    assert counts["/review?origin=audit"] == "1"
    assert counts["/review?label=refund"] == "1"
    assert counts["/review?reason=low_confidence"] == "2"
    assert counts["/review?reason=out_of_scope"] == "1"


def test_a_dispute_is_settled(world: DeskWorld, browser: NewBrowser) -> None:
    """By somebody who sees what was said and by whom, as pseudonyms."""
    item = world.add("A hard one", opinions_wanted=2)
    for name, label in (("bo", "refund"), ("cy", "payment")):
        person = world.person(name)
        world.decide(person, label, item.id, note=f"{name} thinks")
    ada = browser("ada", "adjudicator")
    page = ada.open("/adjudicate").text
    assert "bo thinks" in page
    assert len(set(re.findall("annotator-[0-9a-f]{8}", page))) == 2
    values = {"item": field(page, "item"), "request": field(page, "request")}
    assert ada.post("/adjudicate", {**values, "action": "label:payment"}).status_code == 303
    assert world.item(item.id).outcome_label == "payment"
    assert "There are no disputes for you" in ada.open("/adjudicate").text


def test_search_finds_and_pages(world: DeskWorld, browser: NewBrowser) -> None:
    world.add_all([(f"A lost umbrella number {n}", {}) for n in range(30)])
    ada = browser("ada")
    page = ada.get("/search?q=umbrella").text
    assert page.count("A lost umbrella") == 25
    more = re.search(r'href="(/search[^"]+page=1[^"]*)"', page)
    assert more is not None
    assert ada.get(more[1].replace("&amp;", "&")).text.count("A lost umbrella") == 5
    assert "Nothing was found" in ada.get("/search?q=umbrella&state=decided").text
    assert ada.get("/search?q=%22%29+OR+*&label=x&state=y&page=-1").status_code == 200


def test_near_duplicates_are_looked_at_and_decided_together(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Only what was ticked is decided; the rest is given back at once."""
    text = "Where is my order {}? It should have come on Tuesday and tracking shows nothing at all."
    added = [world.add(text.format(1000 + n)) for n in range(4)]
    ada, bo = browser("ada"), browser("bo")
    listed = ada.get("/clusters").text
    assert "should have come on Tuesday" in listed
    address = re.search(r'href="(/cluster\?key=[^"]+)"', listed)
    assert address is not None
    page = ada.open(address[1]).text
    assert page.count("should have come on Tuesday") == 4
    assert "checked" not in page
    shown = [str(each.id) for each in added]
    values = {"request": field(page, "request"), "shown": shown, "chosen": "delivery"}
    assert ada.post("/cluster", values).status_code == 409
    assert ada.post("/cluster", {**values, "seen": shown[:3], "chosen": ""}).status_code == 409
    assert ada.post("/cluster", {**values, "seen": shown[:3]}).status_code == 303
    assert [world.item(each.id).state for each in added] == ["decided"] * 3 + ["open"]
    assert "1003" in bo.open("/review").text


def test_guidelines_are_written_and_kept(world: DeskWorld, browser: NewBrowser) -> None:
    """Two who write at once: the second is told, and nothing is lost."""
    world.add(label="refund")
    ada, bo = browser("ada", "adjudicator"), browser("bo", "adjudicator")
    begun = ada.get("/guidelines/edit").text
    assert "## refund" in begun
    first = {"body": "## refund\r\n\r\nMoney **back** <b>only</b>.", "note": "begun"}
    assert ada.post("/guidelines/edit", {**first, "based_on": ""}).status_code == 303
    assert bo.post("/guidelines/edit", {**first, "based_on": ""}).status_code == 409
    shown = bo.get("/guidelines").text
    assert "Money <strong>back</strong> &lt;b&gt;only&lt;/b&gt;." in shown
    assert "Money <strong>back</strong>" in bo.open("/review").text
    assert bo.post("/guidelines/edit", {"body": "New", "based_on": "1"}).status_code == 303
    assert "Money" in bo.get("/guidelines?version=1").text


def test_guidelines_are_headings_lists_and_paragraphs() -> None:
    found = blocks("# A\ntext\nmore\n\n- one\n  and on\n- two\n1. three\n\nend")
    assert [(each.kind, each.lines) for each in found] == [
        ("heading", ["A"]),
        ("paragraph", ["text", "more"]),
        ("list", ["one and on", "two", "three"]),
        ("paragraph", ["end"]),
    ]


def test_a_guideline_of_one_long_line_is_quick() -> None:
    """Anyone who may write it could else hold up everybody's pages."""
    begun = time.process_time()
    line = "# refund" + " " * 30_000 + "x"
    assert blocks(line)[0].kind == "heading"
    assert section_for(f"{line}\ntext", "refund") == ""
    assert time.process_time() - begun < 0.5


def test_the_log_says_who_saw_and_did_what(world: DeskWorld, browser: NewBrowser) -> None:
    world.add("Where is my secret parcel?")
    ada = browser("ada", "owner")
    ada.open("/review")
    ada.get("/search?q=secret")
    page = ada.get("/log").text
    for action in ("item.seen", "search", "person.arrived"):
        assert f"<td>{action}</td>" in page
    assert "secret" not in page


def test_the_log_is_chosen_from(world: DeskWorld, browser: NewBrowser) -> None:
    """By person, action, item and day; the next message that the script has is not seen yet."""
    world.add_all([(f"Message {n}", {}) for n in range(3)])
    bob = browser("bob")
    page = bob.open("/review").text
    bob.post("/review", {"action": "next", "part": "1", "excluding": field(page, "item")})
    world.clock.move(86_400)
    ada = browser("ada", "owner")
    ada.open("/review")
    assert bob.person is not None

    def rows(**chosen: str) -> list[str]:
        shown = ada.get(f"/log?{urlencode(chosen)}").text
        return re.findall(r"<td>([a-z_]+[.][a-z_]+)</td>", shown)

    assert {"item.fetched", "item.seen"} < set(rows(person=str(bob.person.id)))
    assert set(rows(action="item.seen")) == {"item.seen"}
    assert set(rows(item=field(page, "item"), since="2020-01-01")) == {"item.seen"}
    first, second = (moment(ms)[:10] for ms in (world.clock() - 86_400_000, world.clock()))
    before, after = rows(action="item.seen", until=first), rows(action="item.seen", since=second)
    assert 0 < len(before) < len(rows(action="item.seen")) == len(before + after)
    assert rows(since="no day", item="x", action="item.fetched") == ["item.fetched"]
    upkeep.apply_retention(world.desk, 90, 0.5)
    assert rows(person=str(bob.person.id)) == []


def test_probes_and_metrics(world: DeskWorld, browser: NewBrowser) -> None:
    """Open to anyone who can reach the port: counts, no text, no names."""
    world.add("Where is my secret parcel?")
    visitor, ada = browser(), browser("ada")
    assert visitor.get("/livez").text == "ok"
    assert visitor.get("/readyz").text == "ok"
    ada.open("/review")
    ada.get("/search?q=secret")
    for n in range(5):
        ada.client.request(f"ODD{n}", "/review")
    shown = ada.get(METRICS).text
    assert 'clerk_desk_items{state="open"} 1.0' in shown
    assert 'clerk_desk_requests_total{method="GET",page="/review",status="200"} 2.0' in shown
    assert "clerk_desk_database_up 1.0" in shown
    assert "ODD" not in shown
    assert 'method="other"' in shown
    assert "secret" not in shown
    assert "ada" not in re.sub(r"adapter", "", shown)


def test_what_fails_here_is_said_without_its_words(
    world: DeskWorld, browser: NewBrowser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away: try again; ours: so it is said. An error may hold a message, so none is shown."""
    ada = browser("ada")
    for error, status in (
        (DatabaseUnavailable("the database is busy"), 503),
        (DatabaseRefused("secret"), 500),
        (ValueError("secret"), 500),
    ):
        with monkeypatch.context() as patched:

            def fail(*_: object, error: Exception = error) -> None:
                raise error

            patched.setattr("desk.web.pages.queues.queues.waiting", fail)
            answer = ada.get("/")
        assert answer.status_code == status
        assert "secret" not in answer.text
        assert "content-security-policy" in answer.headers


def test_a_desk_without_its_tables_is_alive_and_not_well(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """A restart would not help; metrics say that the database does not answer."""
    ada = browser("ada")
    with world.database.write() as tx:
        tx.exec_driver_sql("ALTER TABLE sessions RENAME TO gone")
        tx.exec_driver_sql("ALTER TABLE offsets RENAME TO gone_too")
    assert ada.get("/").status_code == 500
    assert ada.get("/livez").status_code == 200
    assert "clerk_desk_database_up 0.0" in ada.get(METRICS).text


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"x" * 2_100_000, "application/x-www-form-urlencoded", 413),
        (b"a=1", "multipart/form-data; boundary=x", 415),
        (b"&".join(b"a=1" for _ in range(3000)), "application/x-www-form-urlencoded", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
    ],
)
def test_what_is_no_form_of_ours_is_refused(
    browser: NewBrowser, body: bytes, kind: str, status: int
) -> None:
    sent = browser("ada").client.post("/review", content=body, headers={"content-type": kind})
    assert sent.status_code == status
