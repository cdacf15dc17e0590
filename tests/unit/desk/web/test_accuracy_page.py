"""The accuracy page: what it says, its drawings, and what it says while nothing was decided."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from desk.service import circle
from desk.store import items
from tests.support.desk_browser import NewBrowser
from tests.support.desk_files import make_task, task_file
from tests.support.desk_world import START_MS, DeskWorld

DAY = START_MS // 86_400_000


def audit(world: DeskWorld, decided: str | None = None, **changes: object) -> None:
    """An item of the audit sample, of traffic of a hundred results like it; ``decided`` by Ann."""
    given = {"label": "delivery", "origin": "audit", "sample_share": 0.02, "reasons": (), **changes}
    item = world.add(**given)  # type: ignore[arg-type]
    with world.database.write() as tx:
        items.count_traffic(tx, {(DAY, item.label, item.adapter_digest, False): 100})
    if decided is not None:
        ann = world.person("ann")
        world.decide(ann, decided, item.id, seconds=36)


def contents(browser: NewBrowser) -> str:
    """The page between its heading and its end."""
    page = browser("eve", "adjudicator").get("/accuracy").text
    return str(page[page.index('<div class="accuracy">') : page.index("</main>")])


def test_the_page_tells_it_in_words_and_drawings(world: DeskWorld, browser: NewBrowser) -> None:
    """Well-formed, whatever labels and adapters are called; each drawing has a name and a dot a
    part."""
    for n in range(12):
        audit(world, "refund" if n < 3 else "delivery")
    audit(world, "other", label="<img src=x>", adapter_name="<b>")
    audit(world)
    html = contents(browser)
    assert "<img" not in html
    assert "<b>" not in html
    tree = ET.fromstring(html)
    assert "of all labels were right in the last 28 days" in html
    assert "13 messages that reviewers decided" in html
    drawings = list(tree.iter("svg"))
    assert all(drawing.get("aria-label") for drawing in drawings)
    assert [len(list(each.iter("circle"))) for each in drawings] == [1, 2, 1]
    for each in drawings[1].iter("circle"):
        assert 24 <= float(each.get("cx", "")) <= 616
    for each in drawings[0].iter("line"):
        assert 12 <= float(each.get("y1", "")) <= 210


def test_what_is_not_decided_yet_has_a_sentence_and_no_axis(
    world: DeskWorld, browser: NewBrowser
) -> None:
    """An axis without a point looks like a page that is broken. Tasks that wait have their line:
    the page failed as soon as a batch was loaded."""
    audit(world)
    circle.load_task_file(world.desk, task_file([make_task("A")]), "tasks.jsonl")
    html = contents(browser)
    assert "suspected labels, waiting" in html
    assert "Nothing of it has been decided yet" in html
    assert "<svg" not in html
