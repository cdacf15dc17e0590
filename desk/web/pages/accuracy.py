"""How right the machine is: what ``desk.accuracy`` says, on a page."""

from __future__ import annotations

from markupsafe import Markup
from starlette.responses import Response

from desk.accuracy.service import accuracy_figures
from desk.web.accuracy_html import render_accuracy
from desk.web.visit import Page, Visit


def show(visit: Visit) -> Response:
    """The figures, the weeks, and what is confused with what."""
    contents = Markup(render_accuracy(accuracy_figures(visit.desk)))  # noqa: S704 - escaped there
    return visit.page("accuracy.html", contents=contents)


PAGES = (Page("/accuracy", show, "adjudicator", link="nav.accuracy", order=75),)
