"""The list of queues: what waits, by reason, label, age and adapter."""

from __future__ import annotations

from starlette.responses import Response

from desk.service import batches, figures, queues
from desk.service.queues import AGES_S
from desk.web.visit import Page, Visit


def show(visit: Visit) -> Response:
    """What waits, how far batches are, and how far the desk is behind."""
    return visit.page(
        "queues.html",
        waiting=queues.waiting(visit.desk),
        batches=batches.all_progress(visit.desk),
        overview=figures.overview(visit.desk),
        ages_s=AGES_S,
        labels=visit.desk.taxonomy.names,
    )


PAGES = (Page("/", show, "reviewer", link="nav.queues", order=10),)
