"""Near-duplicates: looked at one by one, decided together."""

from __future__ import annotations

from starlette.responses import Response

from desk.errors import Refused
from desk.service import browsing, queues, reviewing
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect


def show_all(visit: Visit) -> Response:
    """Clusters that wait, the largest first."""
    found = browsing.clusters(visit.desk, visit.who)
    shown = [each.example_item_id for each in found]
    examples = queues.examples(visit.desk, visit.who, shown)
    return visit.page("clusters.html", clusters=found, examples=examples)


def show(visit: Visit) -> Response:
    """The messages of one, held for the person who looks."""
    key = visit.query.get("key", "")[:200]
    tasks = browsing.cluster(visit.desk, visit.who, key)
    if not tasks:
        return visit.page("nothing.html", what="clusters", fields={})
    suggested = {task.machine.label for task in tasks if task.machine is not None}
    return visit.page(
        "cluster.html",
        key=key,
        tasks=tasks,
        suggested=suggested.pop() if len(suggested) == 1 else "",
        labels=visit.desk.taxonomy.labels,
    )


def act(visit: Visit) -> Response:
    """Give those that were looked at one label; the others are given back."""
    shown = _numbers(visit, "shown")
    seen = [item_id for item_id in _numbers(visit, "seen") if item_id in set(shown)]
    label = visit.form.get("label", "")
    if not seen:
        raise Refused(t("cluster.none_seen"))
    if not label:
        raise Refused(t("cluster.no_label"))
    browsing.decide_cluster(
        visit.desk,
        visit.who,
        seen,
        label,
        request_id=visit.form.get("request", "")[:60],
        seconds=visit.seconds(),
    )
    for item_id in shown:
        if item_id not in seen:
            reviewing.release_item(visit.desk, visit.who, item_id)
    return redirect("/clusters")


def _numbers(visit: Visit, name: str) -> list[int]:
    given = visit.lists.get(name, ())
    return [int(text) for text in given if text.isascii() and text.isdecimal() and len(text) < 18]


PAGES = (
    Page("/clusters", show_all, "reviewer", link="nav.clusters", order=50),
    Page("/cluster", show, "reviewer"),
    Page("/cluster", act, "reviewer", "POST"),
)
