"""The page of the model's accuracy in service, by ``desk.accuracy``."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from desk.accuracy.figures import RECENT_DAYS, Part, Week, accuracy_figures
from desk.web.visit import Page, Visit

_LONGEST_NAME = 28


def show(visit: Visit) -> Response:
    """Show the figures, the weeks, and confusions."""
    figures = accuracy_figures(visit.desk)
    measured, names = figures.measured, figures.adapter_names
    return visit.page(
        "accuracy.html",
        figures=figures,
        measured=measured,
        days=RECENT_DAYS,
        weeks=[_week(week) for week in measured.weeks],
        labels=[
            _named(part.name, part)
            for part in sorted(measured.labels, key=lambda part: -part.results)
        ],
        adapters=[
            _named(f"{names.get(part.name, '')} {part.name[:12]}".strip(), part)
            for part in measured.adapters
        ],
    )


def _week(week: Week) -> tuple[str, str, Part]:
    begin = datetime.fromtimestamp(week.begin_ms / 1000, UTC)
    return f"{begin.day} {begin:%b}", begin.strftime("%Y-%m-%d"), week.part


def _named(name: str, part: Part) -> tuple[str, str, Part]:
    """Return a name that fits the chart, the full name, and the part of the traffic."""
    short = name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
    return short, name, part


PAGES = (Page("/accuracy", show, "adjudicator", link="nav.accuracy", order=75),)
