"""The page where messages are decided, in a real browser: pauses, mistakes, hostile messages, keys.

Needs chromium alone: the desk is in this process, on SQLite.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from desk.auth.passwords import hash_password
from desk.service import people
from desk.store.database import Database
from tests.support.desk_chromium import (
    GUARD_MS,
    Window,
    is_ahead,
    is_decision,
    item_of,
    open_chromium,
    open_window,
    press,
)
from tests.support.desk_taxonomy import MANY
from tests.support.desk_world import DeskWorld
from worker.contract.taxonomy import Label, Taxonomy

PASSWORD = "correct horse battery"
MEGABYTE = 1_000_000
HOSTILE = {
    "zero width": "My parcel is late" + "\u200b" * MEGABYTE + " please help",
    "alternating": "a\u200b" * (MEGABYTE // 2),
    "combining": "z" + "\u0301" * MEGABYTE,
    "lines": "a\n" * (MEGABYTE // 2),
}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def window(world: DeskWorld, chromium: Browser) -> Iterator[Window]:
    with open_window(world, chromium) as opened:
        yield opened


def opened(window: Window, query: str = "", name: str = "ada") -> Page:
    """The deciding page, with the next message fetched."""
    page = window.page(name)
    with page.expect_response(is_ahead):
        page.goto(f"{window.address}/review{query}")
    return page


def type_key(page: Page, key: str, code: str) -> None:
    """Press a key of another layout."""
    page.wait_for_timeout(GUARD_MS + 30)
    page.evaluate(
        "([key, code]) => document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key, code, bubbles: true, cancelable: true}))",
        [key, code],
    )


def tap_twice(page: Page, tap: str) -> None:
    """Do something of the document's twice, as fast as a nervous finger, on a slow machine too."""
    with page.expect_response(is_decision):
        page.evaluate(f"() => {{ const tap = () => document.{tap}; tap(); setTimeout(tap, 50); }}")


def label_of(world: DeskWorld, item: str) -> str | None:
    return world.item(int(item)).outcome_label


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_does_not_stop_the_page(window: Window, name: str) -> None:
    """Neither while it is fetched early, nor when it is shown, nor when all of it is."""
    window.world.add("An ordinary one")
    item = window.world.add(HOSTILE[name])
    page = opened(window)
    press(page, "1")
    assert item_of(page) == str(item.id)
    assert page.evaluate("document.querySelectorAll('*').length") < 1_000
    assert page.evaluate("document.querySelector('.text').textContent.length") < 25_000
    link = page.locator(".rest a")
    if link.count():
        with page.context.expect_page() as whole:
            link.click()
        assert whole.value.locator(".chunk").count() >= 1
        assert whole.value.evaluate("document.querySelectorAll('*').length") < 4_000
    press(page, "2")
    expect(page.locator(".empty")).to_be_visible()
    assert window.world.item(item.id).outcome_label == "delivery"


def test_a_double_tap_decides_one_message(window: Window) -> None:
    """The second tap comes before anybody has read the next message; the page says that it did not
    count. Also by pointer, and for the first message of a page."""
    for n in range(4):
        window.world.add(f"Message number {n}")
    page = opened(window)
    page.wait_for_timeout(GUARD_MS + 30)
    first = item_of(page)
    tap_twice(page, "body.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true}))")
    second = item_of(page)
    assert second != first
    expect(page.locator("[data-status]")).to_contain_text("had just appeared")
    page.wait_for_timeout(GUARD_MS + 30)
    tap_twice(page, "querySelector('.labels button').click()")
    third = item_of(page)
    page.wait_for_timeout(500)
    assert item_of(page) == third
    made = [label_of(window.world, item) for item in (first, second, third)]
    assert made == ["refund", "refund", None]


def test_a_message_that_somebody_else_decided_is_not_a_blank_page(window: Window) -> None:
    """The page says so, and shows what is left: another message, or that nothing is."""
    world = window.world
    taken = world.add("Taken by Bo")
    page = opened(window)
    world.clock.move(3_600)
    bo = world.person("bo")
    world.decide(bo, "payment", taken.id, request_id="bo-1")
    press(page, "1")
    expect(page.locator(".empty")).to_be_visible()
    expect(page.locator("[data-status]")).to_contain_text("somebody else has decided")
    assert world.item(taken.id).outcome_label == "payment"


def test_a_decision_that_fails_comes_back(window: Window) -> None:
    """To the screen, with its note, after an error of the desk; pressed again, it counts once."""
    window.world.add("The only one")
    page = opened(window)
    page.fill("[data-note]", "a note that took a minute")
    page.keyboard.press("Escape")
    page.route("**/review", lambda route: route.fulfill(status=500, body="The desk made a mistake"))
    press(page, "1")
    expect(page.locator("[data-status]")).to_contain_text("Not saved: refund")
    expect(page.locator(".task:not([aria-busy]) [data-note]")).to_have_value(
        "a note that took a minute"
    )
    page.unroute("**/review")
    press(page, "1")
    expect(page.locator(".empty")).to_be_visible()
    assert window.world.item(1).outcome_label == "refund"


def test_an_ended_session_loses_no_decision(window: Window) -> None:
    """The page keeps message, answer and note, leads to the sign-in, comes back and saves them."""
    world = window.world
    for n in range(3):
        world.add(f"Message number {n}")
    world.person("ada")
    people.give_password(world.desk, "ada", hash_password(PASSWORD))
    page = opened(window)
    first = item_of(page)
    window.end_sessions("ada")
    page.fill("[data-note]", "as on Monday")
    page.keyboard.press("Escape")
    press(page, "3")
    expect(page.locator("[data-status]")).to_contain_text("Your answer is kept: payment")
    assert page.locator(".task").get_attribute("data-item") == first
    page.click("[data-sign-in] a")
    page.fill("input[name=name]", "ada")
    page.fill("input[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("[data-stage]")
    expect(page.locator("[data-status]")).to_contain_text("Saved, after you signed in again")
    assert label_of(world, first) == "payment"
    expect(page.locator(".task:not([aria-busy])")).not_to_have_attribute("data-item", first)
    day = people_notes(world)
    assert day == ["as on Monday"]


def people_notes(world: DeskWorld) -> list[str]:
    with world.database.read() as tx:
        query = "SELECT note FROM decisions WHERE undone_ms IS NULL"
        return [row[0] for row in tx.exec_driver_sql(query)]


def test_skipped_messages_come_back_last(window: Window) -> None:
    """And the page says so; the queue, the place in it and the rest are above each message."""
    for n in range(3):
        window.world.add(f"Message number {n}")
    page = opened(window)
    where = page.locator(".task .where")
    expect(where).to_contain_text("Everything, oldest first")
    expect(where).to_contain_text("2 left")
    skipped = item_of(page)
    press(page, "s")
    expect(where).to_contain_text("message 2")
    press(page, "1")
    press(page, "1")
    assert item_of(page) == skipped
    expect(where).to_contain_text("You skipped this message. Nothing else is left.")
    expect(where).to_contain_text("0 left")
    press(page, "s")
    page.wait_for_selector(".task:not([aria-busy])")
    assert item_of(page) == skipped
    press(page, "2")
    expect(page.locator(".empty")).to_be_visible()
    press(page, "u")
    expect(page.locator(".labels .earlier")).to_contain_text("delivery")


def test_enter_accepts_the_machines_label_and_never_a_blind_one(window: Window) -> None:
    """Where it is shown; a focused button is pressed as ever."""
    first = window.world.add("One that the machine doubted")
    blind = window.world.add("One of the sample", origin="audit", sample_share=0.1)
    page = opened(window)
    press(page, "Enter")
    assert window.world.item(first.id).outcome_label == "delivery"
    assert item_of(page) == str(blind.id)
    page.wait_for_timeout(GUARD_MS + 30)
    page.keyboard.press("Enter")
    page.wait_for_timeout(300)
    assert window.world.item(blind.id).state == "open"
    assert page.locator("[data-enter]").count() == 0
    page.locator(".labels button").nth(2).focus()
    press(page, "Enter")
    assert window.world.item(blind.id).outcome_label == "payment"


def test_keys_work_on_other_layouts(window: Window) -> None:
    """Digits on a French keyboard, letters on a Russian one; a shifted key stays what it says."""
    items = [window.world.add(f"Message number {n}") for n in range(3)]
    page = opened(window)
    type_key(page, "é", "Digit2")
    page.wait_for_selector(f".task[data-item='{items[1].id}']")
    type_key(page, "т", "KeyN")
    page.wait_for_selector(f".task[data-item='{items[2].id}']")
    type_key(page, "ь", "KeyM")
    expect(page.locator("[data-note]")).to_be_focused()
    page.keyboard.press("Escape")
    page.wait_for_timeout(300)
    made = [(each.outcome, each.outcome_label) for each in map(window.world.item, (1, 2, 3))]
    assert made == [("label", "delivery"), ("none", None), (None, None)]


def test_single_keys_can_be_turned_off(window: Window) -> None:
    """In the list of keys; it is remembered, and pointer and buttons go on working (WCAG 2.1.4)."""
    item = window.world.add("The only one")
    page = opened(window)
    page.keyboard.press("?")
    listed = page.locator("dialog[open] dt").all_inner_texts()
    assert {"1", "4", "Enter", "n", "s", "f", "u", "m", "d", "/", "?", "Esc"} <= {
        each.strip() for each in listed
    }
    page.uncheck("[data-single]")
    page.click("dialog[open] form button")
    for key in ("1", "n", "Enter", "?"):
        page.wait_for_timeout(GUARD_MS + 30)
        page.keyboard.press(key)
    page.reload()
    page.wait_for_timeout(GUARD_MS + 30)
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    assert window.world.item(item.id).state == "open"
    expect(page.locator(".labels kbd").first).to_be_hidden()
    with page.expect_response(is_decision):
        page.locator(".labels button").first.click()
    assert window.world.item(item.id).outcome_label == "refund"


def test_keys_decide_nothing_on_a_page_that_is_being_left(window: Window) -> None:
    item = window.world.add("The only one")
    page = opened(window)
    page.wait_for_timeout(GUARD_MS + 30)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/search", hold)
    page.keyboard.press("/")
    page.keyboard.press("1")
    page.wait_for_timeout(300)
    held[0].continue_()
    page.wait_for_selector("input[name=q]:focus")
    assert window.world.item(item.id).state == "open"


def test_among_many_labels_each_is_found_by_four_keys(
    database: Database, chromium: Browser
) -> None:
    """The likely ones have a digit, and l, the two letters beside it and Enter find any. What is
    decided with is always in view."""
    world = DeskWorld(database, taxonomy=MANY)
    likely = dict.fromkeys(MANY.names[40:50], 0.05)
    for n in range(9):
        world.add(f"Message {n}", label=MANY.names[40], scores=likely)
    with open_window(world, chromium) as window:
        page = opened(window)
        press(page, "2")
        assert world.item(1).outcome_label == MANY.names[41]
        for item, name in enumerate(MANY.names[5::11], start=2):
            button = page.locator(f'.choices button[value="label:{name}"]')
            code = button.get_attribute("data-code") or ""
            assert len(code) == 2
            page.wait_for_timeout(GUARD_MS + 30)
            for key in ("l", *code):
                page.keyboard.press(key)
            expect(button).to_be_in_viewport()
            press(page, "Enter")
            assert world.item(item).outcome_label == name
        for width, height in ((1280, 900), (390, 844)):
            page.set_viewport_size({"width": width, "height": height})
            for each in ("skip", "flag", "undo"):
                expect(page.locator(f".actions [value={each}]")).to_be_in_viewport()


def test_what_is_typed_need_not_be_exact(database: Database, chromium: Browser) -> None:
    """Words in part, spaces or not, one slip of the finger; where no name fits, the description.
    Arrows go on from there."""
    world = DeskWorld(database, taxonomy=MANY)
    world.add("One", label="card_refund", scores={"card_refund": 0.6})
    with open_window(world, chromium) as window:
        page = opened(window)
        shown = page.locator(".choices button:visible .label")
        for typed, found in (
            ("card fee", "card fee"),
            ("topup lim", "top up limit"),
            ("top_up limit", "top up limit"),
            ("crad refnd", "card refund"),
            ("about thing 17", "loan close"),
        ):
            page.keyboard.press("l")
            page.keyboard.type(typed)
            assert shown.first.inner_text() == found, typed
            page.keyboard.press("Escape")
            assert shown.count() == 77
            page.keyboard.press("Escape")
        page.keyboard.press("l")
        page.keyboard.type("nothing like it")
        expect(page.get_by_text("No label matches.")).to_be_visible()
        page.keyboard.press("Escape")
        page.keyboard.press("l")
        page.keyboard.type("card")
        for key in ("ArrowDown", "ArrowRight", "ArrowRight", "ArrowLeft"):
            page.keyboard.press(key)
        second = shown.nth(1).inner_text()
        assert page.evaluate("document.activeElement.querySelector('.label').innerText") == second
        press(page, "Enter")
        assert (world.item(1).outcome_label or "").replace("_", " ") == second


def test_descriptions_can_be_read_in_full(database: Database, chromium: Browser) -> None:
    long = "All that customers write about parcels, and about what is in them. " * 5
    labels = (Label("parcel", long + "The end."), Label("other", "Anything else."))
    world = DeskWorld(database, taxonomy=Taxonomy("long", "1", "", labels))
    for n in range(2):
        world.add(f"Message {n}", label="parcel", scores={"parcel": 0.6, "other": 0.4})
    with open_window(world, chromium) as window:
        page = opened(window)
        cut = (
            "() => [...document.querySelectorAll('.labels .description')]"
            ".some((each) => each.scrollHeight > each.clientHeight + 1)"
        )
        assert page.evaluate(cut)
        page.keyboard.press("d")
        assert not page.evaluate(cut)
        press(page, "1")
        assert not page.evaluate(cut)


def test_an_earlier_answer_is_changed_by_keys(window: Window) -> None:
    """The list is up to date although the next message came before; arrows go there and back."""
    for n in range(6):
        window.world.add(f"Message {n}")
    page = opened(window)
    for _ in range(3):
        press(page, "2")
    answers = page.locator("[data-last] li")
    expect(answers).to_have_count(3)
    assert "Message 2" in answers.first.inner_text()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.classList.contains('text')")
    for key in ("ArrowLeft", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    expect(page.locator(".text")).to_have_text("Message 1")
    expect(page.locator(".labels .before")).to_have_count(1)
    press(page, "1")
    expect(page.locator(".text")).to_have_text("Message 3")
    said = [window.world.item(n).outcome_label for n in (1, 2, 3)]
    labels = window.world.taxonomy.names
    assert said == [labels[1], labels[0], labels[1]]
