"""A role that sees texts masked sees no personal data on any page, and cannot find it by search."""

from __future__ import annotations

import re
import time

import pytest

from desk.core.items import Queue
from desk.service import browsing, people, reviewing
from desk.service.context import Policy
from desk.service.viewing import SHOWN_CHARS
from desk.store.database import Database
from desk.web.application import find_pages
from tests.support.desk_browser import Browser, field, open_browser
from tests.support.desk_world import DeskWorld

MAIL, PHONE = "anna.planted@example.com", "+49 170 1234567"
TEXT = f"Wo ist mein Paket? Mail an {MAIL}, oder Telefon {PHONE}."
PLANTED = ("anna.planted", "1234567")


@pytest.fixture
def masked(database: Database) -> DeskWorld:
    """A desk whose reviewers and adjudicators see texts masked; owners do not."""
    roles = frozenset({"reviewer", "adjudicator"})
    policy = Policy(publish_delay_ms=0, masked_roles=roles)  # type: ignore[arg-type]
    return DeskWorld(database, policy)


def everything(browser: Browser, item_id: int, key: str) -> list[str]:
    """Every page that can be loaded, with what makes it show messages."""
    asked = {
        "/review": f"?item={item_id}",
        "/search": "?q=Paket",
        "/cluster": f"?key={key}",
    }
    paths = [page.path for page in find_pages() if page.method == "GET" and "{" not in page.path]
    return [browser.open(path + asked.get(path, "")).text for path in paths]


def test_no_page_shows_a_masked_role_personal_data(masked: DeskWorld) -> None:
    """Of a message that waits, of a decided one next to it, of a cluster, of a dispute and its
    notes; an owner sees them as they came."""
    first, *others = masked.add_all([(TEXT, {}) for _ in range(5)])
    disputed = masked.add(TEXT, opinions_wanted=2)
    for name, label in (("bob", "refund"), ("eve", "delivery")):
        person = masked.person(name)
        masked.decide(person, label, disputed.id, note=f"is {MAIL}")
    owner = masked.person("olga", "owner")
    masked.decide(owner, "delivery", others[0].id)
    key = first.cluster_key or ""
    seen = "".join(everything(open_browser(masked, "ann", "adjudicator"), first.id, key))
    assert "Wo ist mein Paket" in seen
    assert seen.count("[mail]") >= 4
    assert "is [mail]" in seen
    for planted in PLANTED:
        assert planted not in seen
    whole = "".join(everything(open_browser(masked, "olga", "owner"), others[1].id, key))
    for planted in PLANTED:
        assert planted in whole


def test_a_search_finds_what_is_seen_and_nothing_that_is_masked(masked: DeskWorld) -> None:
    """Or it would tell whose message it is; further pages do not either."""
    for number in range(12):
        masked.add(TEXT if number % 3 else f"Paket {number}")
    ann, olga = masked.person("ann"), masked.person("olga", "owner")
    for query in (MAIL, "1234567", "Paket anna", "planted", "123"):
        assert browsing.search(masked.desk, ann, query) == []
        assert browsing.search(masked.desk, olga, query) or query == "123"
    found = browsing.search(masked.desk, ann, "wo paket")
    assert len(found) == 8
    assert all(PLANTED[0] not in each.task.text for each in found)
    pages = [browsing.search(masked.desk, ann, "paket", limit=5, offset=at) for at in (0, 5, 10)]
    assert [len(page) for page in pages] == [5, 5, 2]
    assert len({each.task.item_id for page in pages for each in page}) == 12


def test_the_log_says_who_saw_what_unmasked(masked: DeskWorld) -> None:
    """Each time a text was shown, and only where roles differ in it."""
    item = masked.add(TEXT)
    ann, olga = masked.person("ann"), masked.person("olga", "owner")
    reviewing.claim_item(masked.desk, ann, item.id)
    reviewing.release_item(masked.desk, ann, item.id)
    reviewing.claim_item(masked.desk, olga, item.id)
    browsing.search(masked.desk, olga, "paket")
    seen = [
        (entry["pseudonym"], entry["action"], entry["detail"]["unmasked"])
        for entry in people.audit_log(masked.desk, olga).entries
        if "unmasked" in (entry["detail"] or {})
    ]
    assert seen == [
        (olga.pseudonym, "search", True),
        (olga.pseudonym, "item.seen", True),
        (ann.pseudonym, "item.seen", False),
    ]


def test_undoing_and_the_scripts_next_one_are_masked_too(masked: DeskWorld) -> None:
    """What comes to the page by the script is what a page would show."""
    masked.add_all([(TEXT, {}) for _ in range(2)])
    browser = open_browser(masked, "ann")
    page = browser.open("/review").text
    sent = {name: field(page, name) for name in ("item", "request")}
    browser.post("/review", {**sent, "action": "label:refund"})
    part = browser.post("/review", {"action": "next", "part": "1"}).text
    again = browser.post("/review", {**sent, "request": "another", "action": "undo"})
    for shown in (page, part, again.text, browser.open("/review").text):
        for planted in PLANTED:
            assert planted not in shown


def test_of_a_long_message_what_is_shown_is_masked_and_the_rest_is_counted(
    masked: DeskWorld,
) -> None:
    """Masking all of a megabyte took two seconds for each page. The cut may divide a number."""
    head = "Wo ist mein Paket? " + "x" * (SHOWN_CHARS - 25) + " "
    text = f"{head}{PHONE} {'Noch etwas. ' * 80_000}{MAIL}"
    item = masked.add(text)
    ann = masked.person("ann")
    began = time.process_time()
    task = reviewing.claim_item(masked.desk, ann, item.id)
    assert time.process_time() - began < 0.3
    assert task.text.endswith("[number]") or task.text.endswith("[phone]")
    assert task.more_chars == len(text) - SHOWN_CHARS
    page = open_browser(masked, "ann").open(f"/review?item={item.id}").text
    told = re.search(r"([\d,]+) more characters are not shown", page)
    assert told is not None
    assert int(told[1].replace(",", "")) == pytest.approx(task.more_chars, abs=10)
    for planted in PLANTED:
        assert planted not in page


def test_a_queue_of_words_holds_what_is_seen_and_nothing_that_is_masked(masked: DeskWorld) -> None:
    """Getting a message by somebody's number would tell whose it is."""
    masked.add(TEXT)
    ann, olga = masked.person("ann"), masked.person("olga", "owner")
    for person, words, waits in (
        (ann, "1234567", False),
        (ann, "wo paket", True),
        (olga, "1234567", True),
    ):
        assert reviewing.waiting_item(masked.desk, person, Queue(words=words)) == waits
        left = reviewing.count_left(masked.desk, person, Queue(words=words), excluding=(), most=9)
        assert left == waits
    assert reviewing.next_item(masked.desk, ann, Queue(words="1234567")) is None
    task = reviewing.next_item(masked.desk, ann, Queue(words="wo paket"))
    assert task is not None
    masked.decide(ann, "refund", task.item_id)
    (answer,) = reviewing.last_answers(masked.desk, ann)
    assert answer.text.startswith("Wo ist mein Paket? Mail an [mail]")
    assert all(planted not in answer.text for planted in PLANTED)
