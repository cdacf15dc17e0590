"""Deciding, one message at a time; and disputes, which an adjudicator settles.

The script shows the next message, which it already has, and sends the decision in the background.
The answer is the message after that, held for the same reviewer. Without the script each decision
is a form that leads to the next page.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

from starlette.responses import PlainTextResponse, Response

from desk.core.items import REASON_BITS, Queue
from desk.core.keys import MANY_LABELS, keyed_labels
from desk.errors import Refused
from desk.service import browsing, guidelines, labelling, queues, reviewing
from desk.service.context import may
from desk.service.viewing import Earlier, Task
from desk.store.types import Person
from desk.web.shown_text import chunks
from desk.web.strings import t
from desk.web.templates import age, words
from desk.web.visit import UNKNOWN_ACTION, Page, Visit, number, number_or_none, redirect
from worker.contract.taxonomy import Taxonomy

FIELDS = ("batch", "reason", "label", "adapter", "origin", "age", "below", "share", "q", "order")

SHARES = tuple(f"{part}/{parts}" for parts in (2, 3, 4, 5) for part in range(1, parts + 1))

_NEIGHBOURS = 4

_MOST_LEFT = 1_000


def show(visit: Visit) -> Response:
    """The message that the reviewer holds, or a form that claims one. ``answer`` is what they said
    of it before: they undid it, or their session ended before it was saved.

    Loading a page claims nothing: browsers load pages ahead, and other sites can link here.
    """
    fields, queue = queue_fields(visit.query), read_queue(visit.query, visit.desk.taxonomy)
    item_id = number_or_none(visit.query.get("item", ""))
    if (batch := visit.web.options.batch) is not None and not fields and item_id is None:
        return redirect("/review", batch=str(batch))
    if (assigned := queue_of(visit.who)) and not fields and item_id is None:
        return redirect("/review", **assigned)
    task = reviewing.held_item(visit.desk, visit.who, queue, item_id=item_id)
    if task is not None:
        earlier = _read_answer(visit.query.get("answer", ""), visit.desk.taxonomy)
        task = replace(task, earlier=earlier)
        return visit.page("review.html", **_values(visit, task, fields, visit.query))
    if reviewing.waiting_item(visit.desk, visit.who, queue, item_id=item_id):
        given = {**fields, "action": "next"}
        if item_id is not None:
            answer = visit.query.get("answer", "")[:200]
            given |= {"action": "take", "item": str(item_id), "answer": answer}
        return visit.page("begin.html", what="review", address="/review", given=given)
    if item_id is not None:  # it was decided meanwhile, often by this reviewer
        return redirect("/review", **fields)
    return visit.page("review.html", task=None, **_nothing(visit, fields))


def act(visit: Visit) -> Response:
    """Do what the button says with the item on screen; ``next`` asks for another one alone."""
    action = visit.form.get("action", "")
    kind, _, label = action.partition(":")
    item_id = visit.number("item")
    desk, who = visit.desk, visit.who
    fields = queue_fields(visit.form)
    if kind in {"label", "none", "skip", "flag"}:
        reviewing.decide(desk, who, item_id, _said(visit, kind, label))
    elif kind == "undo":
        return undo(visit)
    elif kind == "take":
        reviewing.claim_item(desk, who, item_id)
        answer = visit.form.get("answer", "")
        return redirect("/review", **fields, item=str(item_id), answer=answer)
    elif kind != "next":
        raise Refused(UNKNOWN_ACTION)
    if visit.by_script:
        return _next_part(visit, fields, _excluded(visit.form.get("excluding", "")))
    reviewing.next_item(desk, who, read_queue(fields, desk.taxonomy))
    return redirect("/review", **fields, done=str(_done(visit.form) + (kind != "next")))


def _said(visit: Visit, kind: Any, label: str) -> reviewing.Said:
    """Return the decision in a form. A note that was typed before a skip is not its reason."""
    return reviewing.Said(
        visit.form.get("request", ""),
        kind,
        label if kind == "label" else None,
        "" if kind == "skip" else visit.form.get("note", "").strip(),
        visit.seconds(),
    )


def undo(visit: Visit) -> Response:
    """Take the last decision back, and go where the message is decided again. For the script the
    message itself, or the address of an adjudicator's message, which has another page."""
    task = reviewing.undo(visit.desk, visit.who)
    fields = queue_fields(visit.form)
    answer = _answer_of(task.earlier) if task.earlier is not None else ""
    if reviewing.is_disputed(visit.desk, task.item_id):
        there = redirect("/adjudicate", item=str(task.item_id), answer=answer)
        return PlainTextResponse(there.headers["location"]) if visit.by_script else there
    if visit.by_script:
        return visit.page("task.html", **_values(visit, task, fields, visit.form))
    done = str(max(0, _done(visit.form) - 1))
    return redirect("/review", **fields, item=str(task.item_id), answer=answer, done=done)


def _next_part(visit: Visit, fields: Mapping[str, str], excluding: Collection[int]) -> Response:
    """The next message but those of ``excluding``, which are on screen; where there is none, what
    the page shows with an empty screen."""
    queue = read_queue(fields, visit.desk.taxonomy)
    task = reviewing.next_item(visit.desk, visit.who, queue, excluding=excluding)
    if task is None or task.item_id in excluding:
        return visit.page("stage_empty.html", **_nothing(visit, fields))
    return visit.page("task.html", **_values(visit, task, fields, visit.form, excluding))


def show_message(visit: Visit) -> Response:
    """The whole of a message of which other pages show the beginning."""
    text = reviewing.whole_text(visit.desk, visit.who, number(visit.query.get("item", "")))
    return visit.page("message_all.html", chunks=chunks(text))


def _values(
    visit: Visit,
    task: Task,
    fields: Mapping[str, str],
    given: Mapping[str, str],
    excluding: Collection[int] = (),
) -> dict[str, Any]:
    """What a template needs for a message. Neighbours of a blind one are left out: what reviewers
    made of them may come from what the machine said."""
    near: Sequence[browsing.SearchHit] = ()
    if not task.blind:
        near = browsing.neighbours(visit.desk, visit.who, task.item_id, _NEIGHBOURS)
    newest = guidelines.current(visit.desk)
    label = task.machine.label if task.machine is not None else ""
    if task.asked is not None:
        label = task.asked.given or task.asked.suggested or ""
    queue = read_queue(fields, visit.desk.taxonomy)
    left = reviewing.count_left(
        visit.desk, visit.who, queue, excluding={task.item_id, *excluding}, most=_MOST_LEFT + 1
    )
    return {
        "task": task,
        **choices(visit, task),
        **_counted(visit, task),
        "near": near,
        "last": reviewing.last_answers(visit.desk, visit.who),
        "guideline": newest,
        "guideline_label": label,
        "guideline_part": guidelines.section_for(newest.body, label) if newest and label else "",
        "fields": fields,
        "queue_name": queue_name(queue, task.asked.batch if task.asked is not None else ""),
        "left": f"{left:,} left" if left <= _MOST_LEFT else f"more than {_MOST_LEFT:,} left",
        "done": _done(given),
        "goal": visit.desk.policy.goal,
        "today": queues.decided_today(visit.desk, visit.who) if visit.desk.policy.goal else 0,
        "held_s": visit.desk.policy.claim_ms // 1000,
    }


def _nothing(visit: Visit, fields: Mapping[str, str]) -> Mapping[str, Any]:
    return {"fields": fields, "last": reviewing.last_answers(visit.desk, visit.who)}


def _excluded(text: str) -> Collection[int]:
    return {number(part) for part in text.split(",")[:20]}


def _done(given: Mapping[str, str]) -> int:
    """How many messages this reviewer has dealt with since they opened the queue."""
    return max(0, number(given.get("done", "0")[:9]))


def _read_answer(answer: str, taxonomy: Taxonomy) -> Earlier | None:
    kind, _, label = answer.partition(":")
    if kind == "label" and label in taxonomy.names:
        return Earlier("label", label)
    return Earlier(kind, None) if kind in {"none", "skip", "flag"} else None  # type: ignore[arg-type]


def _answer_of(earlier: Earlier) -> str:
    return f"label:{earlier.label}" if earlier.kind == "label" else earlier.kind


def queue_name(queue: Queue, batch: str = "") -> str:
    """Return what a queue is called where its messages are decided."""
    chosen = []
    if queue.batch_id is not None:
        chosen.append(batch or f"Batch {queue.batch_id}")
    if queue.origin == "audit":
        chosen.append("Audit sample")
    if queue.label is not None:
        chosen.append(f"Machine's label: {words(queue.label)}")
    if queue.reason is not None:
        chosen.append("Reason: " + t(f"reason.{queue.reason}"))
    if queue.adapter_digest is not None:
        chosen.append(f"Adapter {queue.adapter_digest[:12]}")
    if queue.words:
        chosen.append(f"With “{queue.words}”")
    if queue.below is not None:
        chosen.append(f"less than {queue.below:.0%} sure")
    if queue.min_age_s is not None:
        chosen.append(f"older than {age(queue.min_age_s)}")
    orders = {"newest": "Newest first", "doubtful": "Least certain first"}
    if queue.order in orders and queue.batch_id is None:
        chosen.append(orders[queue.order])
    return ", ".join(chosen) or "Everything, oldest first"


def reopen(visit: Visit) -> Response:
    """Open a decided item again, and go to where it is decided."""
    item_id = visit.number("item")
    request_id = visit.form.get("request", "")
    state = reviewing.reopen(visit.desk, visit.who, item_id, request_id=request_id)
    if state != "dispute":
        answer = visit.form.get("answer", "")
        return redirect("/review", **queue_fields(visit.form), item=str(item_id), answer=answer)
    if may(visit.who, "adjudicator"):
        return redirect("/adjudicate", item=str(item_id))
    return redirect("/my-day", reopened="1")


def show_dispute(visit: Visit) -> Response:
    """The dispute that the address names or the adjudicator holds, or a form that claims one."""
    wanted, taxonomy = number_or_none(visit.query.get("item", "")), visit.desk.taxonomy
    dispute = reviewing.held_dispute(visit.desk, visit.who, wanted)
    if dispute is None:
        dispute = reviewing.held_dispute(visit.desk, visit.who)
    if dispute is None and reviewing.is_dispute_waiting(visit.desk, visit.who):
        given = {"action": "next"} | ({} if wanted is None else {"item": str(wanted)})
        return visit.page("begin.html", what="adjudicate", address="/adjudicate", given=given)
    if dispute is None:
        return visit.page("nothing.html", what="adjudicate", fields={})
    task = dispute.task
    if task.item_id == wanted:  # it was settled, and the adjudicator took that back
        task = replace(task, earlier=_read_answer(visit.query.get("answer", ""), taxonomy))
    return visit.page(
        "adjudicate.html",
        dispute=dispute,
        task=task,
        **choices(visit, task),
        guideline=guidelines.current(visit.desk),
        guideline_label="",
        guideline_part="",
        near=(),
        last=(),
        fields={},
    )


def settle_dispute(visit: Visit) -> Response:
    """Settle the dispute on screen, and claim the next one."""
    kind, _, label = visit.form.get("action", "").partition(":")
    if kind == "undo":
        return undo(visit)
    if kind == "next":
        item = visit.form.get("item", "")
        wanted = number_or_none(item)
        if wanted is not None and reviewing.next_dispute(visit.desk, visit.who, wanted) is not None:
            return redirect("/adjudicate", item=item)
        # Without an item, or where it was settled or claimed by somebody else meanwhile.
        reviewing.next_dispute(visit.desk, visit.who)
        return redirect("/adjudicate")
    if kind not in {"label", "none"}:
        raise Refused(UNKNOWN_ACTION)
    said = _said(visit, kind, label)
    reviewing.decide(visit.desk, visit.who, visit.number("item"), said, final=True)
    reviewing.next_dispute(visit.desk, visit.who)
    return redirect("/adjudicate")


def read_queue(query: Mapping[str, str], taxonomy: Taxonomy) -> Queue:
    """Return the queue that an address names; an unknown value restricts nothing."""
    age = query.get("age", "")
    min_age_s = float(age) if age.isascii() and age.isdecimal() and len(age) < 10 else None
    order = query.get("order", "oldest")
    share = query.get("share", "")
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
        # An odd value names a batch that does not exist: an empty queue, not everything.
        batch_id=number(query["batch"]) if query.get("batch") else None,
        below=number(query["below"]) / 100 if query.get("below") else None,
        words=query.get("q", "").strip()[:200],
        share=(int(share[0]), int(share[2])) if share in SHARES else None,
    )


def queue_of(person: Person) -> Mapping[str, str]:
    """Return the choice of the queue that a person is assigned."""
    return queue_fields(dict(parse_qsl(person.assigned)))


def queue_fields(values: Mapping[str, str]) -> Mapping[str, str]:
    """Read the queue choice from an address or a form."""
    return {name: values[name][:200] for name in FIELDS if values.get(name)}


def choices(visit: Visit, task: Task) -> Mapping[str, Any]:
    """Return what the list of labels shows: each with its key and code, "" where it has none.

    Of many, the likely ones are the first, and all have a code of two letters, which finds them.
    """
    scores: Mapping[str, float] = task.machine.scores if task.machine is not None else {}
    if task.asked is not None:
        scores = dict.fromkeys(filter(None, (task.asked.given, task.asked.suggested)), 1.0)
    return {
        "many": len(visit.desk.taxonomy.labels) > MANY_LABELS,
        "keyed": keyed_labels(visit.desk.taxonomy, visit.desk.policy.keys, scores),
        "counts": {},
    }


def _counted(visit: Visit, task: Task) -> Mapping[str, Any]:
    """How many messages of a file have each label, where a person labels one from scratch."""
    batch = visit.web.options.batch
    if batch is None or task.asked is None or task.asked.purpose != "learn":
        return {}
    return {"counts": labelling.count_labels(visit.desk, batch), "least": labelling.LEAST}


def _one_of(value: str | None, known: Sequence[str]) -> str | None:
    return value if value in known else None


PAGES = (
    Page("/review", show, "reviewer", link="Decide", order=20),
    Page("/review", act, "reviewer", "POST"),
    Page("/message", show_message, "reviewer"),
    Page("/reopen", reopen, "reviewer", "POST"),
    Page("/adjudicate", show_dispute, "adjudicator", link="Adjudicate", order=30),
    Page("/adjudicate", settle_dispute, "adjudicator", "POST"),
)
