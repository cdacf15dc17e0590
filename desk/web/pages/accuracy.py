"""The page of the model's accuracy in service, by ``desk.accuracy``."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from desk.accuracy.figures import RECENT_DAYS, Part, Week, accuracy_figures
from desk.web.templates import words
from desk.web.visit import Page, Visit


def show(visit: Visit) -> Response:
    """Show the figures, the weeks, and confusions."""
    figures = accuracy_figures(visit.desk)
    measured, names = figures.measured, figures.adapter_names
    weeks = [_week(week) for week in measured.weeks]
    return visit.page(
        "accuracy.html",
        figures=figures,
        measured=measured,
        days=RECENT_DAYS,
        weeks=weeks,
        dates=[(date, part) for _, date, part in weeks],
        labels=[
            (words(part.name), part)
            for part in sorted(measured.labels, key=lambda part: -part.results)
        ],
        adapters=[
            (f"{names.get(part.name, '')} {part.name[:12]}".strip(), part)
            for part in measured.adapters
        ],
    )


def _week(week: Week) -> tuple[str, str, Part]:
    """Return a week's first day as it fits the axis, the date, and the week's figures."""
    begin = datetime.fromtimestamp(week.begin_ms / 1000, UTC)
    return f"{begin.day} {begin:%b}", begin.strftime("%Y-%m-%d"), week.part


PAGES = (Page("/accuracy", show, "adjudicator", link="Accuracy", order=75),)
