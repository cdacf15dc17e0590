"""What people do at the desk in a browser, and what is measured and checked meanwhile."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.support.desk_chromium import GUARD_MS, is_ahead, item_of, press
from tests.support.desk_site import Site
from tests.support.openid import AXE

# From the key press to the first frame that shows the next message, by the browser's clock.
WATCH = """
(() => {
  let pressed = null, last = null;
  window.took = [];
  addEventListener("keydown", () => { pressed = performance.now(); }, true);
  new MutationObserver(() => {
    const task = document.querySelector("[data-stage] .task");
    if (!task || task.dataset.item === last) return;
    const from = last === null ? null : pressed;
    last = task.dataset.item;
    pressed = null;
    if (from === null) return;
    requestAnimationFrame(() => {
      const channel = new MessageChannel();  // after the frame has been painted
      channel.port1.onmessage = () => window.took.push(performance.now() - from);
      channel.port2.postMessage(0);
    });
  }).observe(document, { childList: true, subtree: true });
})();
"""

# All of a task except the message, the buttons, which are the same for every message, and what the
# reviewer answered to others.
AROUND = """
() => {
  const copy = document.querySelector(".task").cloneNode(true);
  const left = ".labels, .descriptions, .text, .meta, .last";
  copy.querySelectorAll(left).forEach((each) => each.remove());
  return copy.innerHTML;
}
"""
MODES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("light", {"color_scheme": "light"}),
    ("dark", {"color_scheme": "dark"}),
    ("phone", {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}),
)


class Reviewer:
    """Somebody at the page where messages are decided, by keys alone."""

    def __init__(self, site: Site, name: str, address: str) -> None:
        self.site, self.name = site, name
        self.page = site.page()
        self.page.add_init_script(WATCH)
        self.scripts: list[str] = []
        self.page.on("dialog", lambda dialog: self.scripts.append(dialog.message))
        self.page.on("pageerror", lambda error: self.scripts.append(str(error)))
        site.sign_in(self.page, name)
        self.address = address
        self.blind_buttons: set[str] = set()
        self.seen: dict[str, str] = {}  # texts by item

    def start(self) -> None:
        """Go to the queue of everything."""
        with self.page.expect_response(is_ahead):  # and have the next message as well
            self.page.goto(f"{self.address}/review")
        self.look()

    @property
    def item(self) -> str:
        """The item on screen, "" where there is none."""
        return item_of(self.page)

    def press(self, key: str) -> None:
        """Press a key that decides, skips, flags or undoes."""
        press(self.page, key)
        self.look()

    def choose(self, place: int) -> None:
        """Decide for the label at this place on the page."""
        *first, last = keys_of(self.page, place)
        if first:
            self.page.wait_for_timeout(GUARD_MS + 30)
        for key in first:
            self.page.keyboard.press(key)
        self.press(last)

    def note(self, words: str) -> None:
        """Write a note, and go back to the keys."""
        self.page.keyboard.press("m")
        self.page.keyboard.type(words)
        self.page.keyboard.press("Escape")

    def look(self) -> None:
        """Where the message is a blind one, nothing on the page may tell what the machine said."""
        if self.item:
            self.seen[self.item] = self.page.locator(".task .text").inner_text()
        if not self.page.query_selector(".task .blind"):
            return
        around = self.page.evaluate(AROUND)
        for label in self.site.taxonomy.names:
            words = label.replace("_", " ")
            assert not re.search(rf"\b({label}|{words})\b", around, re.IGNORECASE), around
        assert "%" not in around
        assert "<meter" not in around
        buttons = self.page.locator(".task .labels").inner_html()
        # After an undo the reviewer sees their own answer.
        buttons = re.sub(r' earlier|<small class="before">.*?</small>', "", buttons)
        assert "machine" not in re.sub(r"<span class=.description.*?</span>", "", buttons)
        self.blind_buttons.add(buttons)

    def took_ms(self) -> Sequence[float]:
        """How long each next message took to be on screen."""
        took: list[float] = self.page.evaluate("window.took")
        return took


def keys_of(page: Page, place: int) -> Sequence[str]:
    """The keys that decide for the label at this place: its own, or l, its two letters, Enter."""
    button = page.locator(".choices button").nth(place)
    if key := button.get_attribute("data-key"):
        return (key,)
    return ("l", *(button.get_attribute("data-code") or ""), "Enter")


def next_or_nothing(page: Page, item: str) -> None:
    """Wait for another message, or the page that says that there is none."""
    page.wait_for_function(
        "item => { const task = document.querySelector('.task');"
        " return task ? task.dataset.item !== item : document.querySelector('.calm'); }",
        arg=item,
    )


def pages(
    site: Site, name: str, mode: dict[str, Any], signed_in: Any
) -> Iterator[tuple[str, Page]]:
    """Yield every page of the desk as this person sees it, loaded, with its name."""
    page = site.page(**mode, storage_state=signed_in)
    for path in (
        "/", "/review", "/adjudicate", "/search?q=parcel", "/clusters", "/guidelines",
        "/guidelines/edit", "/my-day", "/accuracy", "/people", "/log", "/load", "/export",
        "/sign-in/callback", "/signed-out", "/nowhere",
    ):  # fmt: skip
        page.goto(site.addresses[0] + path)
        yield path.strip("/").split("?")[0].replace("/", "-") or "queues", page
        if path == "/clusters" and (link := page.query_selector("main a[href^='/cluster?']")):
            link.click()
            page.wait_for_selector("form.cluster")
            yield "cluster", page
    page.context.close()


def violations(page: Page) -> list[str]:
    """What axe finds that is serious or worse."""
    page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{page.url} {each['id']}: {each['nodes'][0]['html'][:200]} "
        f"{each['nodes'][0]['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
    ]


def picture(page: Page, folder: Path, name: str) -> None:
    """Keep what is on screen, to be looked at."""
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)
