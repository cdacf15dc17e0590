"""An owner's hour at the desk in a real browser, by keys alone: files of the trainer, a batch of
tasks, advice and its messages, a proposal and its answer.

Around it is what tests/desk/test_browser_day.py has. CLERK_TEST_PICTURES names a folder for
pictures of the pages.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import FileChooser, Page

from desk.service import circle
from desk.service.context import Desk, Policy, open_desk
from tests.support.desk_chromium import GUARD_MS, item_of, press
from tests.support.desk_day import MODES, next_or_nothing, picture, violations
from tests.support.desk_files import make_advice, make_proposal, make_task, task_file
from tests.support.desk_site import Site
from tests.support.processes import PATIENCE_S
from worker.contract.codec import encode
from worker.contract.exchange import AdapterName, Advice, Neighbour

MOST_TABS = 80
CHECKED = (
    "I sent the lamp back three weeks ago and the money is still not on my account.",
    "Where do I find the voucher that you promised me for the broken kettle?",
    "My parcel says delivered, and nobody in the house has it. " * 6,
    "مرحبا، أين طلبي؟ Where is my order 4711?",
    "Please cancel the second chair, one is enough.",
    "<b>The invoice</b> has my old address on it.",
)
LEARNT = tuple(f"Is the toaster number {n} still to be had in red, and when?" for n in range(3))
AUDITED = tuple(f"The jacket of order {n} is too small, what can I do?" for n in range(2))


def tasks_of_monday() -> str:
    """What ``clerk-trainer tasks`` writes: doubted labels, new messages, a blind sample."""
    near = (
        Neighbour("The money for the returned chair has not come yet.", "refund", "row-9"),
        Neighbour("I was promised my money back on Monday.", "refund", "row-12"),
    )
    check = [make_task(text, label="payment", suggested="refund", neighbours=near,
                       scores={"refund": 0.9, "payment": 0.1}) for text in CHECKED]  # fmt: skip
    learn = [make_task(text, "learn") for text in LEARNT]
    audit = [make_task(text, "audit") for text in AUDITED]
    return task_file([*check, *learn, *audit])


def advice_of_wednesday() -> Advice:
    """Two findings; the messages of the second are of two parts."""
    first = make_advice(*CHECKED[:3], None).findings[0]
    messages = make_advice(*LEARNT, *AUDITED).findings[0].messages
    parts = tuple(replace(each, part=at % 2) for at, each in enumerate(messages))
    second = replace(first, kind="split", labels=("order_tracking",), messages=parts, p_value=None)
    return make_advice(guideline="4", findings=(first, second))


def desk_of(site: Site) -> Desk:
    """The functions of the desk on the site's database."""
    return open_desk(site.database, taxonomy=site.taxonomy, policy=Policy())


def reach(page: Page, element: str) -> None:
    """Go to an element by the tab key, as somebody without a pointer does."""
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if page.evaluate("element => document.activeElement.matches(element)", element):
            return
    raise AssertionError(f"{page.url}: the tab key does not reach {element}")


def follow(page: Page, element: str, to: str) -> None:
    """Go to a link or button by the tab key, press Enter, and be on another page."""
    reach(page, element)
    with page.expect_navigation(url=re.compile(to)):
        page.keyboard.press("Enter")


def bring(page: Page, name: str, content: str, to: str) -> None:
    """Load a file of the trainer."""
    choosers: list[FileChooser] = []

    def take(chooser: FileChooser) -> None:
        choosers.append(chooser)

    page.on("filechooser", take)  # well before the key: a busy browser may hear of it too late
    follow(page, "header a[href='/']", "/$")
    follow(page, "a[href='/load']", "/load")
    reach(page, "input[type=file]")
    page.keyboard.press("Space")
    until = time.monotonic() + PATIENCE_S
    while not choosers:
        assert time.monotonic() < until, "the file input opens nothing"
        page.wait_for_timeout(50)
    page.remove_listener("filechooser", take)
    choosers[0].set_files(
        {"name": name, "mimeType": "application/octet-stream", "buffer": content.encode()}
    )
    follow(page, "button.main", to)


def decide_all(page: Page, keys: str) -> int:
    """Decide until nothing waits in this queue; return how many that were."""
    count = 0
    while page.query_selector(".task"):
        item = item_of(page)
        page.wait_for_timeout(GUARD_MS + 30)
        page.keyboard.press(keys[count % len(keys)])
        next_or_nothing(page, item)
        count += 1
        assert count < 50
    return count


@dataclass
class Onlooker:
    """Somebody else of the same rights, who looks at each page in light, dark and on a phone."""

    shown: Mapping[str, Page]
    folder: Path
    found: list[str] = field(default_factory=list)

    def look(self, address: str, name: str) -> None:
        """Take a picture, and keep what axe finds serious or worse; nothing is cut off."""
        for mode, page in self.shown.items():
            page.goto(address)
            picture(page, self.folder, f"circle-{name}-{mode}")
            self.found += violations(page)
            wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, (name, mode, wide)
            here = page.locator(".top nav [aria-current]")
            if here.count():
                assert here.evaluate("here => here.getBoundingClientRect().right <= innerWidth"), (
                    name,
                    mode,
                )


@pytest.mark.timeout(300)
def test_an_hour_of_the_owner_by_keys_alone(site: Site, folder: Path) -> None:
    """Files loaded, a batch decided, a finding followed to its messages and asked about, a
    proposal answered with yes and one with no; axe finds nothing serious on any of the pages.
    Signing out leaves the provider too, and ends at the desk."""
    page = site.page()
    scripts: list[str] = []
    page.on("dialog", lambda dialog: scripts.append(dialog.message))
    page.on("pageerror", lambda error: scripts.append(str(error)))
    site.sign_in(page, "dora")
    signed_in = page.context.storage_state()
    shown = {mode: site.page(**options, storage_state=signed_in) for mode, options in MODES}
    beside = Onlooker(shown, folder)
    decide_a_batch(site, page, beside)
    follow_advice(site, page, beside)
    answer_proposals(site, page, beside)
    leave(site, page)
    assert beside.found == []
    assert scripts == []


def decide_a_batch(site: Site, page: Page, beside: Onlooker) -> None:
    """The tasks of Monday become three queues; the first is decided to its end, with an undo."""
    home = site.addresses[0]
    beside.look(home + "/load", "load")
    bring(page, "tasks.jsonl", tasks_of_monday(), "/$")
    assert page.locator(".batches li").count() == 3
    follow(page, ".batches a[href*='order=doubtful']", "/review")
    page.wait_for_selector("text=my money back on Monday")
    query = page.url.partition("/review")[2]
    beside.look(home + f"/review{query}", "check")
    first = item_of(page)
    press(page, "1")
    press(page, "u")
    page.wait_for_selector(f".task[data-item='{first}']")
    assert decide_all(page, "3n1") == len(CHECKED)
    follow(page, "header a[href='/']", "/$")
    page.wait_for_selector(f".batches small:has-text('of {len(CHECKED)} decided')")
    beside.look(home + "/", "batches")
    standing = {each.purpose: each for each in circle.all_progress(desk_of(site))}
    blind = standing["audit"].id
    beside.look(home + f"/review?batch={blind}", "audit")
    done = standing["check"].progress
    assert (done.decided + done.waiting + done.disputes) == len(CHECKED)


def follow_advice(site: Site, page: Page, beside: Onlooker) -> None:
    """From a finding to its messages by its number, from there to a queue by ``d``."""
    home = site.addresses[0]
    bring(page, "advice.json", json.dumps(encode(advice_of_wednesday())), "/advice")
    beside.look(home + "/advice", "advice")
    page.keyboard.press("2")
    page.wait_for_url(re.compile("/advice/messages"))
    assert page.locator(".found li").count() == len(LEARNT) + len(AUDITED)
    query = page.url.partition("/advice/")[2]
    beside.look(home + f"/advice/{query}", "advice-messages")
    follow(page, "main a[href^='/advice?']", r"/advice\?")
    page.keyboard.press("1")
    page.wait_for_selector("text=money is still not on my account")
    assert page.locator(".found li").count() == 3  # one text is not here
    page.keyboard.press("d")
    page.wait_for_url(re.compile("/review"))
    page.wait_for_selector(".task")
    assert decide_all(page, "4") == 3
    asked = circle.all_progress(desk_of(site))[0]
    assert asked.name == circle.all_advice(desk_of(site))[0].advice.findings[0].title
    assert asked.progress.tasks == 3


def answer_proposals(site: Site, page: Page, beside: Onlooker) -> None:
    """Yes with a reason, and no; what the gate refuses has no key for yes."""
    home = site.addresses[0]
    yes = make_proposal()
    no = make_proposal(
        id="2" * 32, verdict="refused", adapter=AdapterName("shop-worse", "5" * 64, "encoder")
    )
    bring(page, "proposal.json", json.dumps(encode(yes)), "/proposals")
    beside.look(home + "/proposals", "proposal")
    page.keyboard.press("m")
    page.keyboard.type("few messages, yet all of them are clear")
    page.keyboard.press("Escape")
    page.wait_for_timeout(GUARD_MS + 30)
    page.keyboard.press("y")
    page.wait_for_selector(".decided")
    assert "few messages, yet all of them are clear" in page.content()
    beside.look(home + "/proposals", "proposal-answered")
    bring(page, "proposal.json", json.dumps(encode(no)), "/proposals")
    beside.look(home + "/proposals", "proposal-refused")
    page.wait_for_timeout(GUARD_MS + 30)
    page.keyboard.press("y")
    assert page.query_selector(".decided") is None
    page.keyboard.press("n")
    page.wait_for_selector(".decided")
    answers = {each.proposal.id: each.decision for each in circle.all_proposals(desk_of(site))}
    said = [answers[each.id] for each in (yes, no)]
    assert [each.publish for each in said if each is not None] == [True, False]


def leave(site: Site, page: Page) -> None:
    """Sign out here and, by its own form, at the provider, which then asks for a name again."""
    page.click("text=Sign out")
    page.click("button[name=logout]")
    page.wait_for_url(re.compile("/signed-out"))
    page.goto(f"{site.addresses[0]}/")
    page.wait_for_selector("input[name=login]")
