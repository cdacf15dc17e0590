"""Messages that want to be more than text."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from desk.service import reviewing
from desk.web.shown_text import pieces
from tests.support.desk_browser import NewBrowser
from tests.support.desk_world import DeskWorld

pytestmark = pytest.mark.slow

HOSTILE = {
    "script": "<script>alert(1)</script>",
    "attribute": "\"><img src=x onerror=alert(1)>' onmouseover='x",
    "template": "{{ 7 * 7 }} {% for x in y %} ${x} <%= 1 %>",
    "closing": "</textarea></title></div></article></body></html><!-- ]]>",
    "entities": "&lt;b&gt; &amp;amp; &#x3c;",
    "right_to_left": "مرحبا، أين طلبي رقم 123؟\nשלום",
    "controls": "a\x01b\x07c\x1b[31m",
    "separators": "a\u2028b\u2029c",
    "long_word": "x" * 100_000,
    "many_tags": "<b>" * 33_000,
    "many_marks": "a\u200b" * 15_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_shown_as_text_on_every_page(
    world: DeskWorld, browser: NewBrowser, name: str
) -> None:
    """No tag of it is one, and the page around it is whole."""
    text = HOSTILE[name] + " parcel"
    plain = world.add("parcel")
    item = world.add(text, opinions_wanted=2, message_id=text[:500])
    ada, bo = browser("ada", "owner"), world.person("bo")
    reviewing.claim_item(world.desk, bo, plain.id)
    empty = ada.get("/search?q=nothing").text
    for path in (f"/review?item={item.id}", "/search?q=parcel"):
        answer = ada.open(path)
        assert answer.status_code == 200
        page = answer.text
        for tag in ("<script>alert", "<img", "<b>", "onerror=alert(1)>", "49 "):
            assert tag not in page
        assert page.count("</html>") == page.count("</body>") == empty.count("</html>") == 1
        assert "parcel" in page
    reviewing.release_item(world.desk, ada.person, item.id)  # type: ignore[arg-type]
    reviewing.claim_item(world.desk, bo, item.id)
    reviewing.decide(
        world.desk, bo, item.id, reviewing.Said(world.request(), "flag", note=text[:2000])
    )
    page = ada.open("/adjudicate").text
    assert "parcel" in page
    assert "<img" not in page
    assert page.count("</html>") == 1


def test_directions_do_not_leave_the_message(world: DeskWorld, browser: NewBrowser) -> None:
    """Right to left by its own letters; what overrides the direction is shown, and does nothing."""
    world.add("invoice\u202egpj.exe \u2066x", message_id="T\u202e1")
    page = browser("ada").open("/review").text
    assert re.search(r'<div class="text"[^>]* dir="auto"', page)
    assert "\u202e" not in page
    assert "\u2066" not in page
    assert 'title="hidden: right-to-left override">U+202E</span>' in page
    assert re.search(r"<bdi>T<span class=.mark.", page)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(text=st.text(min_size=1, max_size=80).filter(lambda text: "\x00" not in text))
def test_any_message_comes_back_from_the_page_as_it_is(
    world: DeskWorld, browser: NewBrowser, text: str
) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        return  # cannot be in a database
    item = world.add(text)
    page = browser("ada").open(f"/review?item={item.id}").text
    body = re.search(r'<div class="text[^>]*>(.*?)</div>', page, re.DOTALL)
    assert body is not None
    mark = re.compile(r'<span class="mark"[^>]*>([^<]*)</span>')
    shown = "".join(each.mark if each.hidden else each.text for each in pieces(text))
    assert html.unescape(mark.sub(r"\1", body[1])) == shown
