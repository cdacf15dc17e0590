"""Deciding, one message at a time.

The script shows the next message, which it already has, and sends the decision behind it; what
comes back is the message after that, held for the same person. Without the script each decision is
a form that leads to the next page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from starlette.responses import Response

from desk.errors import Refused
from desk.service import browsing, guidelines, reviewing
from desk.service.tasks import Task
from desk.web.queue_choice import (
    keyed_labels,
    queue_fields,
    read_queue,
)
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect

_NEIGHBOURS = 4


def show(visit: Visit) -> Response:
    """The message to decide now; for the script, the one after those on screen."""
    if visit.by_script:
        return _next_part(visit, visit.query, _beside(visit.query.get("beside", "")))
    wanted = visit.query.get("item", "")
    if wanted.isascii() and wanted.isdecimal() and len(wanted) < 18:
        task: Task | None = reviewing.claim_item(visit.desk, visit.who, int(wanted))
    else:
        queue = read_queue(visit.query, visit.desk.taxonomy)
        task = reviewing.next_item(visit.desk, visit.who, queue)
    fields = queue_fields(visit.query)
    if task is None:
        return visit.page("nothing.html", what="review", fields=fields)
    return visit.page("review.html", **_values(visit, task, fields))


def act(visit: Visit) -> Response:
    """Do what the button says with the item on screen."""
    action = visit.form.get("action", "")
    kind, _, label = action.partition(":")
    item_id = visit.number("item")
    request_id, note = visit.form.get("request", ""), visit.form.get("note", "").strip()
    seconds = visit.seconds()
    desk, who = visit.desk, visit.who
    if kind in {"label", "none"}:
        chosen = label if kind == "label" else None
        reviewing.decide(
            desk, who, item_id, chosen, request_id=request_id, note=note, seconds=seconds
        )
    elif kind == "skip":
        reviewing.skip(desk, who, item_id, request_id=request_id, seconds=seconds)
    elif kind == "flag":
        reviewing.flag(desk, who, item_id, request_id=request_id, note=note, seconds=seconds)
    elif kind == "undo":
        return _undo(visit)
    else:
        raise Refused(t("error.action"))
    fields = queue_fields(visit.form)
    if visit.by_script:
        return _next_part(visit, visit.form, _beside(visit.form.get("beside", "")))
    return redirect("/review", **fields)


def _undo(visit: Visit) -> Response:
    task = reviewing.undo(visit.desk, visit.who)
    fields = queue_fields(visit.form)
    if visit.by_script:
        return visit.page("task.html", **_values(visit, task, fields))
    return redirect("/review", **fields, item=str(task.item_id))


def _next_part(visit: Visit, given: Mapping[str, str], beside: Collection[int]) -> Response:
    queue = read_queue(given, visit.desk.taxonomy)
    task = reviewing.next_item(visit.desk, visit.who, queue, beside=beside)
    if task is None or task.item_id in beside:
        return Response(status_code=204)
    return visit.page("task.html", **_values(visit, task, queue_fields(given)))


def _values(visit: Visit, task: Task, fields: Mapping[str, str]) -> dict[str, Any]:
    """What a template needs for a message. Neighbours of a blind one are left out: what people
    made of them may come from what the machine said."""
    near: Sequence[browsing.SearchHit] = ()
    if not task.blind:
        near = browsing.neighbours(visit.desk, visit.who, task.item_id, _NEIGHBOURS)
    newest = guidelines.current(visit.desk)
    label = task.machine.label if task.machine is not None else ""
    if task.asked is not None:
        label = task.asked.given or task.asked.suggested or ""
    return {
        "task": task,
        "keyed": keyed_labels(visit.desk.taxonomy),
        "near": near,
        "guideline": newest,
        "guideline_label": label,
        "guideline_part": guidelines.for_label(newest, label) if label else "",
        "fields": fields,
    }


def _beside(text: str) -> Collection[int]:
    parts = [part for part in text.split(",")[:20] if part.isascii() and part.isdecimal()]
    return {int(part) for part in parts if len(part) < 18}


PAGES = (
    Page("/review", show, "reviewer", link="nav.review", order=20),
    Page("/review", act, "reviewer", "POST"),
)
