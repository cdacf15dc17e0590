"""Search over messages, decided or not."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from desk.service import browsing
from desk.web.visit import Page, Visit

_AT_ONCE = 25
_STATES = ("open", "second", "dispute", "decided")


def show(visit: Visit) -> Response:
    """The form, and what was found."""
    words = visit.query.get("q", "").strip()[:300]
    label = visit.query.get("label", "")
    state: Any = visit.query.get("state", "")
    page = visit.query.get("page", "0")
    at = int(page) if page.isascii() and page.isdecimal() and len(page) < 5 else 0
    found = []
    if words:
        found = browsing.search(
            visit.desk,
            visit.who,
            words,
            label=label if label in visit.desk.taxonomy.names else None,
            state=state if state in _STATES else None,
            limit=_AT_ONCE + 1,
            offset=at * _AT_ONCE,
        )
    return visit.page(
        "search.html",
        words=words,
        label=label,
        state=state,
        states=_STATES,
        labels=visit.desk.taxonomy.names,
        found=found[:_AT_ONCE],
        at=at,
        more=len(found) > _AT_ONCE,
    )


PAGES = (Page("/search", show, "reviewer", link="nav.search", order=40),)
