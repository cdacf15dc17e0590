"""The pages while a file is labelled: the one batch everywhere, and nothing of Kafka."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from desk.service import labelling
from desk.web.visit import WebOptions
from tests.support.desk_browser import LOCAL, NewBrowser, field
from tests.support.desk_world import DeskWorld
from worker.contract.exchange import Suggestion
from worker.contract.text import message_sha256

TEXTS = tuple(f"{number}: where is my parcel?" for number in range(40))


def test_deciding_begins_with_the_file_and_a_random_message_shows_no_suggestion(
    world: DeskWorld, browser: NewBrowser, tmp_path: Path
) -> None:
    file = tmp_path / "m.csv"
    file.write_text("\n".join(["message", *TEXTS]) + "\n")
    batch_id, _ = labelling.load_messages(world.desk, labelling.read_messages(file, None, None))
    labelling.plan(
        world.desk,
        batch_id,
        [Suggestion("suggestions/1", message_sha256(text), "refund", 0.7) for text in TEXTS],
    )
    ann = browser("ann", options=replace(LOCAL, batch=batch_id))
    page = ann.open("/review").text
    for at in range(8):
        is_random = at % 4 == 3
        assert ("Drawn at random: decided without a suggestion." in page) == is_random
        assert ("The model is 70 % sure of that." in page) != is_random
        assert (" data-enter" in page) != is_random
        assert f"<small>{at} of 20 labelled</small>" in page
        names = ("csrf", "batch", "item", "request")
        sent = {name: field(page, name) for name in names}
        assert sent["batch"] == str(batch_id)
        ann.client.post("/review", data={**sent, "action": "label:refund"})
        page = ann.open("/review").text
    queues = ann.get("/").text
    assert "8 of 40 decided" in queues
    assert "Kafka" not in queues
    assert "Kafka" in browser("bob").get("/").text


def test_one_user_sees_only_the_pages_that_a_file_has_a_use_for(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """No disputes between reviewers, no proposals, no accounts, no other files, and nothing to sign
    out of."""
    visitor = browser(options=WebOptions(batch=1))
    page = visitor.get("/my-day").text
    links = re.findall(r'<a href="([^"]+)"', page.partition("<nav")[2].partition("</nav>")[0])
    assert links == ["/", "/review", "/search", "/clusters", "/guidelines", "/my-day"]
    assert "Sign out" not in page
    assert "Sign out" in browser("ann").get("/my-day").text
    assert "/people" in browser("ada", "owner").get("/my-day").text
    for path in ("/load", "/export"):
        assert path not in visitor.get("/").text
        assert path in browser("ada", "owner").get("/").text
