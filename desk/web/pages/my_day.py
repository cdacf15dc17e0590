"""What the person has done today."""

from __future__ import annotations

from datetime import datetime

from starlette.responses import Response

from desk.service import queues
from desk.web.visit import Page, Visit


def show(visit: Visit) -> Response:
    """Decided, undone, pace, and the newest decisions."""
    now = datetime.fromtimestamp(visit.desk.clock() / 1000).astimezone()
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    day = queues.my_day(visit.desk, visit.who, int(midnight.timestamp() * 1000))
    return visit.page(
        "my_day.html",
        day=day,
        pace_s=day.seconds / day.decided if day.decided else None,
        per_hour=round(3600 * day.decided / day.seconds) if day.seconds >= 1 else None,
    )


PAGES = (Page("/my-day", show, "reviewer", link="nav.my_day", order=70),)
