"""Messages of a search that are decided at once."""

from __future__ import annotations

import re

import pytest

from desk.service import reviewing
from desk.service.context import Policy
from desk.store.database import Database
from tests.support.desk_browser import NewBrowser, field, open_browser
from tests.support.desk_world import DeskWorld

pytestmark = pytest.mark.slow


def test_messages_of_a_search_are_decided_together(world: DeskWorld, browser: NewBrowser) -> None:
    """After a preview. Blind messages, those for two reviewers and those that others hold are not
    among them."""
    parcels = [world.add(f"Where is parcel {n}?").id for n in range(4)]
    left = [
        world.add("A blind parcel", origin="audit", sample_share=0.02).id,
        world.add("A parcel for two", opinions_wanted=2).id,
    ]
    held = world.add("A parcel that bo has").id
    world.add("Money back")
    reviewing.claim_item(world.desk, world.person("bo"), held)
    ada = browser("ada")
    found = ada.get("/search?q=parcel").text
    assert 'action="/together"' in found
    begun = ada.post("/together", {"action": "next", "q": "parcel"})
    assert begun.headers["location"] == "/together?q=parcel"
    page = ada.get("/together?q=parcel").text
    shown = re.findall(r'name="shown" value="(\d+)"', page)
    assert sorted(map(int, shown)) == parcels
    assert "4 messages, decided together" in page
    values = {"request": field(page, "request"), "q": "parcel", "shown": shown}
    none = ada.post("/together", {**values, "chosen": "refund"})
    assert none.status_code == 409
    form = {**values, "seen": shown[:3], "chosen": "refund"}
    for _ in range(2):  # a repeated form decides once
        done = ada.post("/together", form)
        assert done.headers["location"] == "/search?q=parcel"
    states = [world.item(int(each)).state for each in shown]
    assert states == ["decided"] * 3 + ["open"]
    assert [world.item(each).state for each in left] == ["open", "open"]
    assert reviewing.claim_item(world.desk, world.person("cy"), int(shown[3]))
    assert ada.get("/together?q=parcel").headers["location"] == "/search?q=parcel"
    assert ada.post("/together", {"action": "next", "q": "parcel"}).status_code == 409


def test_a_blind_message_is_not_decided_with_others(world: DeskWorld, browser: NewBrowser) -> None:
    blind = world.add("A blind parcel", origin="audit", sample_share=0.02)
    ada = browser("ada")
    ada.open(f"/review?item={blind.id}")
    form = {"q": "parcel", "shown": blind.id, "seen": blind.id, "chosen": "refund", "request": "r"}
    assert ada.post("/together", form).status_code == 409
    assert world.item(blind.id).state == "open"


def test_masked_words_find_nothing_to_decide(database: Database) -> None:
    policy = Policy(masked_roles=frozenset({"reviewer"}))
    world = DeskWorld(database, policy)
    for n in range(2):
        world.add(f"Call me, parcel {n}, at ada@example.com")
    ann = open_browser(world, "ann")
    assert ann.post("/together", {"action": "next", "q": "ada@example.com"}).status_code == 409
    assert ann.post("/together", {"action": "next", "q": "parcel"}).status_code == 303
    page = ann.get("/together?q=parcel").text
    assert page.count("[mail]") == 2
    assert "ada@example.com" not in page
