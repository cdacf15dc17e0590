"""Deciding, one message at a time; and disputes, which an adjudicator ends.

The script shows the next message, which it already has, and sends the decision behind it; what
comes back is the message after that, held for the same person. Without the script each decision is
a form that leads to the next page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from starlette.responses import Response

from desk.core.items import REASON_BITS, Queue
from desk.errors import Refused
from desk.service import browsing, guidelines, reviewing
from desk.service.context import may
from desk.service.viewing import Task
from desk.web.strings import t
from desk.web.visit import Page, Visit, number, redirect
from worker.contract.taxonomy import Label, Taxonomy

FIELDS = ("batch", "reason", "label", "adapter", "origin", "age", "order")

# Not among them: u undo, s skip, f flag, n none, m note, g guidelines.
_KEYS = "1234567890abcdehijklopqrtvwxyz"

_NEIGHBOURS = 4


def show(visit: Visit) -> Response:
    """The message to decide now; for the script, the one after those on screen."""
    if visit.by_script:
        return _next_part(visit, visit.query, _beside(visit.query.get("beside", "")))
    wanted = number(visit.query.get("item", ""))
    if wanted >= 0:
        task: Task | None = reviewing.claim_item(visit.desk, visit.who, wanted)
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
    return {number(part) for part in text.split(",")[:20]}


def reopen(visit: Visit) -> Response:
    """Open a decided item again, and go to where it is decided."""
    item_id = visit.number("item")
    request_id = visit.form.get("request", "")
    state = reviewing.reopen(visit.desk, visit.who, item_id, request_id=request_id)
    if state != "dispute":
        return redirect("/review", item=str(item_id))
    if may(visit.who, "adjudicator"):
        return redirect("/adjudicate", item=str(item_id))
    return redirect("/my-day", reopened="1")


def show_dispute(visit: Visit) -> Response:
    """The dispute that the address names, else the oldest."""
    wanted = number(visit.query.get("item", ""))
    dispute = reviewing.next_dispute(visit.desk, visit.who, wanted if wanted >= 0 else None)
    if dispute is None:
        return visit.page("nothing.html", what="adjudicate", fields={})
    return visit.page(
        "adjudicate.html",
        dispute=dispute,
        task=dispute.task,
        keyed=keyed_labels(visit.desk.taxonomy),
        guideline=guidelines.current(visit.desk),
        guideline_label="",
        guideline_part="",
        near=(),
        fields={},
    )


def settle_dispute(visit: Visit) -> Response:
    """End the dispute on screen."""
    kind, _, label = visit.form.get("action", "").partition(":")
    if kind not in {"label", "none"}:
        raise Refused(t("error.action"))
    reviewing.adjudicate(
        visit.desk,
        visit.who,
        visit.number("item"),
        label if kind == "label" else None,
        request_id=visit.form.get("request", ""),
        note=visit.form.get("note", "").strip(),
        seconds=visit.seconds(),
    )
    return redirect("/adjudicate")


def read_queue(query: Mapping[str, str], taxonomy: Taxonomy) -> Queue:
    """Return the queue that an address names; what is not known restricts nothing."""
    age = query.get("age", "")
    min_age_s = float(age) if age.isascii() and age.isdecimal() and len(age) < 10 else None
    order = query.get("order", "oldest")
    has_age = min_age_s is not None
    if order not in {"oldest", "newest", "doubtful"} or (order == "doubtful" and has_age):
        order = "oldest"
    return Queue(
        reason=_one_of(query.get("reason"), tuple(REASON_BITS)),  # type: ignore[arg-type]
        label=_one_of(query.get("label"), taxonomy.names),
        adapter_digest=query.get("adapter") or None,
        origin=_one_of(query.get("origin"), ("review", "audit")),  # type: ignore[arg-type]
        min_age_s=min_age_s,
        order=order,  # type: ignore[arg-type]
        # A number that is none names no batch, so that the queue is empty and not everything.
        batch_id=number(query["batch"]) if query.get("batch") else None,
    )


def queue_fields(values: Mapping[str, str]) -> Mapping[str, str]:
    """Read the queue choice from an address or a form."""
    return {name: values[name][:200] for name in FIELDS if values.get(name)}


def keyed_labels(taxonomy: Taxonomy) -> Sequence[tuple[str, Label]]:
    """Return the labels with the key of each, "" where there are more labels than keys."""
    keys = [*_KEYS, *[""] * max(0, len(taxonomy.labels) - len(_KEYS))]
    return list(zip(keys, taxonomy.labels, strict=False))


def _one_of(value: str | None, known: Sequence[str]) -> str | None:
    return value if value in known else None


PAGES = (
    Page("/review", show, "reviewer", link="nav.review", order=20),
    Page("/review", act, "reviewer", "POST"),
    Page("/reopen", reopen, "reviewer", "POST"),
    Page("/adjudicate", show_dispute, "adjudicator", link="nav.adjudicate", order=30),
    Page("/adjudicate", settle_dispute, "adjudicator", "POST"),
)
