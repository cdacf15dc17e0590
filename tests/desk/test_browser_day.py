"""A working day at the desk in a real browser, with everything around it as a company has it.

Sign-in by a real OpenID provider (oidc-provider), two replicas on PostgreSQL, real Kafka, Debian's
Chromium driven by Playwright. Needs chromium, npm and PostgreSQL's programs; the provider and axe
come by tests/desk/openid/package-lock.json. CLERK_TEST_PICTURES names a folder for pictures of the
pages.
"""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from tests.support.desk_chromium import GUARD_MS, is_decision, item_of
from tests.support.desk_day import (
    MODES,
    Reviewer,
    keys_of,
    next_or_nothing,
    pages,
    picture,
    violations,
)
from tests.support.desk_site import Site
from tests.support.desk_taxonomy import MANY, as_toml
from tests.support.processes import PATIENCE_S
from tests.support.topics import labels_of, read_corrections

DOUBTS = ("low_confidence", "off_label_mass")
HOSTILE = (
    "<script>window.hit = 1; alert(1)</script> <b>parcel</b>",
    '"><img src=x onerror="window.hit = 1">\' onmouseover=\'x parcel',
    "</textarea></title></article></body></html><!-- parcel ]]>",
    "{{ 7 * 7 }} ${window.hit = 1} parcel javascript:alert(1)",
    "مرحبا، أين طلبي رقم 123؟ שלום \u202e parcel \u2066",
    "p\u200ba\u200br\u200bc\u200be\u200bl " + "\u200b" * 300,
    "parcel " + "x" * 100_000,
    "parcel " + "my lamp is late and wet. " * 4_000,
)
MESSAGES = 250
DECISIONS = 200


def messages() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What came overnight: doubtful ones, and some that were sure."""
    for text in HOSTILE:
        yield text, {"reasons": ["low_confidence"]}
    things = ("lamp", "kettle", "jacket", "parcel", "invoice", "voucher", "toaster", "chair")
    moods = ("is late", "came broken", "was charged twice", "does not fit", "is missing a part")
    for n in range(MESSAGES):
        text = f"My {things[n % 8]} {moods[n % 5]}. Reference {n * 7919 % 100_003}: what now, {n}?"
        yield text, {"reasons": [DOUBTS[n % 2]]}
    for n in range(50):
        yield (
            f"All is well with number {n}, I only wanted to thank you for the {things[n % 8]}.",
            {},
        )


def ask(site: Site, query: str, **values: Any) -> list[Any]:
    """Ask the database."""
    with site.database.read() as tx:
        return list(tx.execute(sa.text(query), values))


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < until
        time.sleep(0.3)


@pytest.fixture(scope="module")
def taxonomy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank's."""
    path = tmp_path_factory.mktemp("taxonomy") / "many.toml"
    path.write_text(as_toml(MANY), encoding="utf-8")
    return path


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_a_working_day(site: Site, folder: Path) -> None:
    """Signed in, 200 messages decided among 77 labels, two people at once, disputes settled; in the
    end each decision is in Kafka once."""
    site.publish(list(messages()))
    people = len(HOSTILE) + MESSAGES
    wait_for(lambda: ask(site, "SELECT count(*) FROM items WHERE state = 'open'")[0][0] >= people)
    ada = Reviewer(site, "ada", site.addresses[0])
    bo = Reviewer(site, "bo", site.addresses[1])  # who signed in at the other replica
    decide_together(ada, bo)
    hostile = [text for text in ada.seen.values() if "parcel" in text and "Reference" not in text]
    assert len(hostile) >= len(HOSTILE) - 3  # the rest is bo's
    took = sorted(ada.took_ms())
    print(
        f"\nfrom the key to the next message on screen, {len(took)} decisions: "
        f"median {statistics.median(took):.0f} ms, p99 {took[int(len(took) * 0.99)]:.0f} ms"
    )
    assert len(took) >= DECISIONS // 2
    look_at_every_page(site, folder)
    finish(bo)
    settle(site)
    for each in (ada, bo):
        assert each.scripts == []
        assert each.page.evaluate("window.hit") is None
        assert len(each.blind_buttons) <= 1
    assert ada.blind_buttons
    check_decisions(site)
    check_corrections(site)


def decide_together(ada: Reviewer, bo: Reviewer) -> None:
    """Ada decides 200, Bo now and then one next to her."""
    ada.start()
    bo.start()
    for turn in range(DECISIONS):
        if turn % 20 == 5:
            bo.choose(30)
            assert bo.item != ada.item
        decide(ada, turn)


def decide(ada: Reviewer, turn: int) -> None:
    """One decision; with what else a day brings."""
    before = ada.item
    if turn % 25 == 3:
        ada.press("s")
        before = ada.item
    if turn % 40 == 9:
        ada.note("is this ours at all?")
        ada.press("f")
        before = ada.item
    if turn % 10 == 7:
        ada.note("as agreed on Monday")
    if turn % 30 == 12:
        ada.page.wait_for_timeout(GUARD_MS + 30)
        with ada.page.expect_response(is_decision):
            ada.page.locator(".labels button").nth(2).click()
    elif turn % 17 == 4:
        ada.press("n")
    else:
        ada.choose(turn * 7 % len(ada.site.taxonomy.names) if turn % 3 else 0)
    assert ada.item != before
    if turn % 50 == 20:
        ada.press("u")
        assert ada.item == before
        ada.choose(3)


def look_at_every_page(site: Site, folder: Path) -> None:
    """axe finds nothing serious, in light, dark and on a phone, where nothing is cut off."""
    page = site.page()
    site.sign_in(page, "dora")
    signed_in = page.context.storage_state()
    page.context.close()
    found: list[str] = []
    for mode, options in MODES:
        for name, shown in pages(site, "dora", options, signed_in):
            picture(shown, folder, f"{name}-{mode}")
            found += violations(shown)
            wide = shown.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (name, mode, wide)
    assert found == []


def finish(bo: Reviewer) -> None:
    """Bo decides all that is left for him; of what two people decide he thinks otherwise."""
    bo.page.goto(f"{bo.address}/review")
    while bo.page.query_selector(".task"):
        bo.look()
        item = bo.item
        bo.page.wait_for_timeout(GUARD_MS + 30)
        for key in keys_of(bo.page, 30):
            bo.page.keyboard.press(key)
        next_or_nothing(bo.page, item)
    assert "Nothing is left for you here" in bo.page.content()


def settle(site: Site) -> None:
    """Cleo settles the disputes and the flags, and sees how right the machine is."""
    page = site.page()
    site.sign_in(page, "cleo", "/adjudicate")
    page.click("main form button")  # the provider's site led here, so nothing was claimed yet
    page.wait_for_selector(".task")
    settled = 0
    while page.query_selector(".task"):
        item = item_of(page)
        page.wait_for_timeout(GUARD_MS + 30)
        for key in keys_of(page, 1):
            page.keyboard.press(key)
        next_or_nothing(page, item)
        settled += 1
    assert settled >= 3
    assert "There are no disputes for you" in page.content()
    page.goto(f"{site.addresses[0]}/accuracy")
    assert "of all labels were right" in page.content()
    page.context.close()


def check_decisions(site: Site) -> None:
    """No item twice, unless two were wanted; those then disagreed, and were adjudicated."""
    rows = ask(
        site,
        "SELECT i.id, i.opinions_wanted, count(*) FROM items i "
        "JOIN decisions d ON d.item_id = i.id "
        "WHERE d.undone_ms IS NULL AND d.kind IN ('label', 'none') AND NOT d.final "
        "GROUP BY i.id, i.opinions_wanted",
    )
    assert len(rows) >= DECISIONS
    assert all(count <= wanted for _, wanted, count in rows)
    final = "SELECT count(*) FROM decisions WHERE final AND undone_ms IS NULL"
    assert ask(site, final)[0][0] >= 3
    undone = "SELECT count(*) FROM decisions WHERE undone_ms IS NOT NULL"
    assert ask(site, undone)[0][0] >= DECISIONS // 50


def check_corrections(site: Site) -> None:
    """The topic has the labels of the database. Undone within the delay, none is retracted."""
    query = "SELECT result_id, outcome_label FROM items WHERE outcome = 'label'"
    expected = {row[0]: row[1] for row in ask(site, query)}
    topic = site.topics["corrections"]
    wait_for(lambda: ask(site, "SELECT count(*) FROM outbox WHERE published_ms IS NULL")[0][0] == 0)
    corrections = read_corrections(site.servers, topic)
    assert Counter(each.id for each in corrections) == Counter(expected.keys())
    assert labels_of(corrections) == expected
    names = {row[0] for row in ask(site, "SELECT pseudonym FROM people")}
    assert {each.decided_by for each in corrections} <= names
