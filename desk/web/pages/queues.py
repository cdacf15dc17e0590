"""Queues, search, messages that are decided together, and the user's day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from desk.errors import Refused
from desk.service import browsing, circle, queues, reviewing
from desk.service.queues import AGES_S
from desk.service.viewing import Task
from desk.web.pages.review import queue_of
from desk.web.visit import Page, Visit, number, redirect

_AT_ONCE = 25

_MOST_PAGES = 9_999

_STATES = ("open", "second", "dispute", "decided")


def show(visit: Visit) -> Response:
    """Show what waits, the progress of batches, and the lag behind Kafka."""
    return visit.page(
        "queues.html",
        waiting=queues.waiting(visit.desk),
        batches=circle.all_progress(visit.desk),
        overview=queues.overview(visit.desk),
        assigned=queue_of(visit.who),
        ages_s=AGES_S,
        labels=visit.desk.taxonomy.names,
    )


def show_search(visit: Visit) -> Response:
    """Show the search form and its results."""
    words = visit.query.get("q", "").strip()[:300]
    label = visit.query.get("label", "")
    state: Any = visit.query.get("state", "")
    at = min(max(0, number(visit.query.get("page", "0"))), _MOST_PAGES)
    found = []
    if words:
        found = browsing.search(
            visit.desk,
            visit.who,
            words,
            label=label if label in visit.desk.taxonomy.names else None,
            state=state if state in _STATES else None,
            # One more than is shown tells whether there is another page.
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
        together=sum(each.state == "open" for each in found) > 1,
    )


def show_clusters(visit: Visit) -> Response:
    """Show clusters of near-duplicates that wait, the largest first."""
    found = browsing.clusters(visit.desk, visit.who)
    shown = [each.example_item_id for each in found]
    examples = queues.examples(visit.desk, visit.who, shown)
    return visit.page("clusters.html", clusters=found, examples=examples)


def show_cluster(visit: Visit) -> Response:
    """Show the messages of a cluster that the reviewer holds, or a form that claims them."""
    key = visit.query.get("key", "")[:200]
    tasks = browsing.held_cluster(visit.desk, visit.who, key)
    if not tasks and browsing.is_cluster_waiting(visit.desk, visit.who, key):
        given = {"action": "next", "key": key}
        return visit.page("begin.html", what="clusters", address="/cluster", given=given)
    if not tasks:
        return visit.page("nothing.html", what="clusters", fields={})
    suggested = {task.machine.label for task in tasks if task.machine is not None}
    return visit.page(
        "together.html",
        title=f"{len(tasks):,} messages, much alike",
        about=(
            "Tick each message that you have looked at and that belongs with the others. The "
            "others go back to the queue."
        ),
        address="/cluster",
        fields={},
        tasks=tasks,
        ticked=False,
        suggested=suggested.pop() if len(suggested) == 1 else "",
    )


def show_together(visit: Visit) -> Response:
    """Show the messages of a search that the reviewer is about to decide at once."""
    words, label = _search_of(visit.query)
    tasks = _together(visit, words, label, claim=False)
    if not tasks:
        return redirect("/search", q=words, label=label)
    many, most = len(tasks), browsing.MOST_TOGETHER
    return visit.page(
        "together.html",
        title=f"{many:,} messages, decided together",
        about=(
            f"Messages that wait and contain “{words}”. Untick each that does not belong. The "
            "audit sample and messages for two reviewers are left out."
            + (f" These are the first {most:,}." if many == most else "")
        ),
        address="/together",
        fields={"q": words, "label": label},
        tasks=tasks,
        ticked=True,
        suggested="",
    )


def decide_together(visit: Visit) -> Response:
    """Claim the messages of a search, or give those that stayed ticked one label."""
    words, label = _search_of(visit.form)
    if visit.form.get("action") == "next":
        if not words or not _together(visit, words, label, claim=True):
            raise Refused(
                "None of these messages can be decided together: they are in the audit sample, "
                "need two reviewers, or another reviewer has them open."
            )
        return redirect("/together", q=words, label=label)
    _decide_ticked(visit)
    return redirect("/search", q=words, label=label)


def _search_of(given: Mapping[str, str]) -> tuple[str, str]:
    return given.get("q", "").strip()[:300], given.get("label", "")


def _together(visit: Visit, words: str, label: str, *, claim: bool) -> Sequence[Task]:
    known = label if label in visit.desk.taxonomy.names else None
    return browsing.together(visit.desk, visit.who, words, label=known, claim=claim)


def decide_cluster(visit: Visit) -> Response:
    """Claim a cluster, or give its ticked messages one label and release the others."""
    if visit.form.get("action") == "next":
        key = visit.form.get("key", "")[:200]
        browsing.cluster(visit.desk, visit.who, key)
        return redirect("/cluster", key=key)
    _decide_ticked(visit)
    return redirect("/clusters")


def _decide_ticked(visit: Visit) -> None:
    """Give the ticked messages the chosen label, and release the others. Raises Refused."""
    label = visit.form.get("chosen", "")
    shown = _numbers(visit, "shown")
    seen = [item_id for item_id in _numbers(visit, "seen") if item_id in set(shown)]
    if not seen:
        raise Refused("Tick the messages that you have looked at.")
    if not label:
        raise Refused("Choose a label for them.")
    browsing.decide_cluster(
        visit.desk,
        visit.who,
        seen,
        label,
        # decide_cluster appends each item's id, and a request id has at most 100 characters.
        request_id=visit.form.get("request", "")[:60],
        seconds=visit.seconds(),
    )
    for item_id in shown:
        if item_id not in seen:
            reviewing.release_item(visit.desk, visit.who, item_id)


def _numbers(visit: Visit, name: str) -> list[int]:
    return [number(text) for text in visit.lists.get(name, ())]


def show_my_day(visit: Visit) -> Response:
    """Show counts since midnight, pace, and the newest decisions."""
    day = queues.my_day(visit.desk, visit.who)
    return visit.page(
        "my_day.html",
        day=day,
        goal=visit.desk.policy.goal,
        reopened=bool(visit.query.get("reopened")),
        pace_s=day.seconds / day.decided if day.decided else None,
        per_hour=round(3600 * day.decided / day.seconds) if day.seconds >= 1 else None,
    )


PAGES = (
    Page("/", show, "reviewer", link="Queues", order=10),
    Page("/search", show_search, "reviewer", link="Search", order=40),
    Page("/clusters", show_clusters, "reviewer", link="Near-duplicates", order=50),
    Page("/cluster", show_cluster, "reviewer"),
    Page("/cluster", decide_cluster, "reviewer", "POST"),
    Page("/together", show_together, "reviewer"),
    Page("/together", decide_together, "reviewer", "POST"),
    Page("/my-day", show_my_day, "reviewer", link="My day", order=70),
)
