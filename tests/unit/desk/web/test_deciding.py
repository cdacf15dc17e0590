"""The deciding page: as a plain form, and in the parts that its script asks for."""

from __future__ import annotations

import re

import pytest

from desk.web.pages.review import keyed_labels
from tests.support.desk_browser import Browser, NewBrowser, field
from tests.support.desk_world import TAXONOMY, DeskWorld
from worker.contract.taxonomy import Label, Taxonomy


def press(visitor: Browser, page: str, action: str, **more: str) -> str:
    """Press a button of the form on a page; return what comes, redirects followed."""
    names = (
        "csrf",
        "item",
        "request",
        *re.findall(r'name="(reason|label|origin|order)" value', page),
    )
    values = {name: field(page, name) for name in names}
    sent = visitor.client.post("/review", data={**values, "action": action, **more})
    if sent.status_code == 303:
        return str(visitor.get(sent.headers["location"]).text)
    assert sent.status_code in {200, 204, 409}, sent.text
    return str(sent.text)


def test_a_day_without_a_script(world: DeskWorld, browser: NewBrowser) -> None:
    """Decide, find none, skip, flag: each button leads to the next message, then there is none."""
    added = [world.add(f"Message number {n}") for n in range(4)]
    ada = browser("ada")
    page = ada.get("/review").text
    for n, action in enumerate(("label:refund", "none", "skip", "flag")):
        assert f"Message number {n}" in page
        world.clock.move(1)
        page = press(ada, page, action, note="why" if action == "flag" else "")
    assert "Nothing waits here" in page
    states = [(world.item(each.id).state, world.item(each.id).outcome_label) for each in added]
    assert states == [("decided", "refund"), ("decided", None), ("open", None), ("dispute", None)]
    day = ada.get("/my-day").text
    assert re.search(r"<dt>decided</dt><dd><strong>2</strong>", day)


def test_undo_brings_the_message_back(world: DeskWorld, browser: NewBrowser) -> None:
    """Also from the page on which nothing is left."""
    item = world.add("The only one")
    ada = browser("ada")
    page = press(ada, ada.get("/review").text, "label:refund")
    assert "Nothing waits here" in page
    assert "The only one" in press(ada, page, "undo")
    assert world.item(item.id).state == "open"
    assert "<strong>1</strong><small>and decided again" in ada.get("/my-day").text


def reopen(visitor: Browser, path: str) -> str:
    """Press the one "Reopen" of a page; return where it leads."""
    page = visitor.get(path).text
    assert page.count(">Reopen</button>") == 1
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    sent = visitor.client.post("/reopen", data=values)
    assert sent.status_code == 303, sent.text
    return str(sent.headers["location"])


def test_a_decided_message_is_reopened_from_search_and_my_day(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Their own comes back on screen; of others' only an adjudicator sees the button, and settles
    it. An audit item goes to an adjudicator, and the page says so."""
    item = world.add("A violet kettle")
    ada, bob, eve = browser("ada"), browser("bob"), browser("eve", "adjudicator")
    press(ada, ada.get("/review").text, "label:refund")
    for path in ("/my-day", "/search?q=violet"):
        back = ada.get(reopen(ada, path)).text
        assert "A violet kettle" in back
        press(ada, back, "label:payment")
    assert world.item(item.id).outcome_label == "payment"
    assert ">Reopen</button>" not in bob.get("/search?q=violet").text
    settling = reopen(eve, "/search?q=violet")
    assert settling.startswith("/adjudicate")
    page = eve.get(settling).text
    assert "A violet kettle" in page
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    eve.client.post("/adjudicate", data={**values, "action": "label:other"})
    assert world.item(item.id).outcome_label == "other"
    assert ">Reopen</button>" not in ada.get("/my-day").text
    world.add("A green lamp", origin="audit", sample_share=0.02)
    press(bob, bob.get("/review").text, "label:refund")
    assert "An adjudicator decides" in bob.get(reopen(bob, "/my-day")).text


def test_the_machines_word_is_shown_and_in_the_sample_it_is_not(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Nowhere on the page of a blind item: not by a mark, an order, or a neighbour."""
    done = world.add("Where is my parcel number 5?")
    world.add("Where is my parcel number 7?")
    ada = browser("ada")
    press(ada, ada.get("/review").text, "label:payment")
    seen = ada.get("/review").text
    assert 'class="machine"' in seen
    assert "40 %" in seen
    assert "Decided before" in seen
    assert "low confidence" in seen
    press(ada, seen, "label:payment")
    assert world.item(done.id).outcome_label == "payment"
    world.add("Where is my parcel number 9?", origin="audit", sample_share=0.02)
    blind = ada.get("/review").text
    assert "number 9" in blind
    for word in ('class="machine"', "<meter", "Decided before", "low confidence", "40 %"):
        assert word not in blind


def test_each_label_has_one_key_and_says_what_it_means() -> None:
    """However many labels; the keys of the other buttons are not among them."""
    keys = [key for key, _ in keyed_labels(TAXONOMY)]
    assert keys == ["1", "2", "3", "4"]
    many = Taxonomy("many", "1", "", tuple(Label(f"l{n}", "") for n in range(60)))
    keys = [key for key, _ in keyed_labels(many)]
    given = [key for key in keys if key]
    assert len(keys) == 60
    assert len(given) == len(set(given)) > 25
    assert not set(given) & set("usfnm/?g")


def test_the_script_is_given_the_next_message_before_it_is_needed(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """Held for the same person; a decision answers with the one after it; nobody else gets it."""
    for n in range(4):
        world.add(f"Message number {n}")
    ada, bo = browser("ada"), browser("bo")
    first = ada.get("/review").text
    second = ada.get(f"/review?part=1&beside={field(first, 'item')}").text
    assert "number 1" in second
    assert "<html" not in second
    third = press(ada, first, "label:refund", part="1", beside=field(second, "item"))
    assert "number 2" in third
    assert "number 3" in bo.get("/review").text
    fourth = press(ada, second, "label:refund", part="1", beside=field(third, "item"))
    assert fourth == ""
    again = press(ada, third, "undo", part="1")
    assert "number 1" in again


def test_a_decision_that_is_sent_twice_decides_once(world: DeskWorld, browser: NewBrowser) -> None:
    """The script sends it again after an answer that was lost."""
    item = world.add()
    ada = browser("ada")
    page = ada.get("/review").text
    assert press(ada, page, "label:refund", part="1") == ""
    assert press(ada, page, "label:refund", part="1") == ""
    assert world.item(item.id).outcome_label == "refund"


def test_what_is_not_ones_own_is_refused_in_words(world: DeskWorld, browser: NewBrowser) -> None:
    """For the script the words alone."""
    world.add()
    ada, bo = browser("ada"), browser("bo")
    page = ada.get("/review").text
    values = {"item": field(page, "item"), "request": "another", "action": "label:refund"}
    assert "not yours" in bo.post("/review", {**values, "part": "1"}).text
    assert bo.post("/review", values).status_code == 409
    for odd in ({"action": "dance"}, {"action": "label:no such label"}, {"item": "-1"}):
        assert ada.post("/review", {**values, **odd}).status_code == 409


@pytest.mark.parametrize(
    "query",
    [
        "reason=nonsense&label=none&age=x&order=upside",
        "age=60&order=doubtful",
        "age=0&order=doubtful",
        "item=99999999999999999999",
        "beside=a,b,,1&part=1",
        "adapter=%00",
    ],
)
def test_odd_addresses_are_no_error(world: DeskWorld, browser: NewBrowser, query: str) -> None:
    """People edit them, and other sites link to them."""
    world.add()
    ada = browser("ada")
    assert ada.get(f"/review?{query}").status_code in {200, 204, 409}
    assert ada.get(f"/search?q=a%00b&{query}").status_code == 200
    assert ada.post("/review", {"action": "undo\x00", "note": "\x00"}).status_code == 409


def test_a_queue_goes_on_after_a_decision(world: DeskWorld, browser: NewBrowser) -> None:
    """Anyone who chose a queue stays in it."""
    world.add("Not of this queue")
    world.add("One of it", label="refund")
    world.add("Two of it", label="refund")
    ada = browser("ada")
    page = ada.get("/review?label=refund").text
    assert "One of it" in page
    page = press(ada, page, "label:payment", label="refund")
    assert "Two of it" in page
    assert "Not of this queue" not in press(ada, page, "skip", label="refund")


def test_the_script_is_told_in_words_that_the_session_ended(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """A page in its place would be shown as one line; a person is sent to sign in."""
    world.add()
    ada = browser("ada")
    page = ada.get("/review").text
    ada.client.cookies.clear()
    values = {name: field(page, name) for name in ("csrf", "item", "request")}
    sent = ada.client.post("/review", data={**values, "action": "none", "part": "1"})
    assert sent.status_code == 401
    assert sent.text == "You are not signed in any more."
    assert ada.client.post("/review", data={**values, "action": "none"}).status_code == 401
