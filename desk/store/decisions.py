"""Decisions, and the state of an item that follows from them."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from desk.core.items import Opinion, State, state_of
from desk.errors import Refused
from desk.store.database import Tx
from desk.store.tables import decisions, items, texts
from desk.store.types import DECIDED, Decided, Item, read_row

SENT_BEFORE = "this form was sent before, for another message: reload the page and decide again"


_BY_REQUEST = sa.select(*DECIDED).where(decisions.c.request_id == sa.bindparam("request_id"))
_ADD = decisions.insert()
_ON_ITEM = (
    sa.select(*DECIDED)
    .where(decisions.c.item_id == sa.bindparam("item_id"), decisions.c.undone_ms.is_(None))
    .order_by(decisions.c.id)
)
_SETTLE = items.update().where(items.c.id == sa.bindparam("item"))


def by_request(tx: Tx, request_id: str) -> Decided | None:
    """Return the decision that a request made, None if it is new."""
    row = tx.execute(_BY_REQUEST, {"request_id": request_id}).first()
    return None if row is None else read_row(Decided, row)


def add(tx: Tx, item: Item, row: Mapping[str, Any], now_ms: int) -> None:
    """Store a decision on a locked item. ``row`` has the columns that the item does not say. Raises
    Refused if another item's decision has this request id."""
    given = {**row, "item_id": item.id, "blind": item.blind, "decided_ms": now_ms}
    try:
        tx.execute(_ADD, given)
    except IntegrityError:  # of two requests at once; the caller looks for an earlier one
        raise Refused(SENT_BEFORE) from None


def on_item(tx: Tx, item_id: int) -> list[Decided]:
    """Return the decisions on an item that were not taken back, oldest first."""
    return [read_row(Decided, row) for row in tx.execute(_ON_ITEM, {"item_id": item_id})]


def last_of(tx: Tx, person_id: int) -> Decided | None:
    """Return a person's last decision that was not taken back."""
    query = (
        sa.select(*DECIDED)
        .where(decisions.c.person_id == person_id, decisions.c.undone_ms.is_(None))
        .order_by(decisions.c.decided_ms.desc(), decisions.c.id.desc())
        .limit(1)
    )
    row = tx.execute(query).first()
    return None if row is None else read_row(Decided, row)


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's decision that stands: the beginning of its message ("" where that is deleted),
    and whether it decided the item, alone or with others."""

    item_id: int
    kind: str
    label: str | None
    text: str
    decided: bool


def answers_of(tx: Tx, person_id: int, limit: int, chars: int) -> list[Answer]:
    """Return a person's newest labels, newest first, with so many characters of the messages."""
    deciding = decisions.alias()
    stands = sa.and_(
        items.c.state == "decided",
        items.c.text_state == "here",
        sa.or_(deciding.c.person_id == person_id, deciding.c.final.is_(False)),
    )
    query = (
        sa.select(
            decisions.c.item_id,
            decisions.c.kind,
            decisions.c.label,
            sa.func.coalesce(sa.func.substr(texts.c.text, 1, chars), ""),
            sa.func.coalesce(stands, sa.false()),
        )
        .join(items, items.c.id == decisions.c.item_id)
        .outerjoin(texts, texts.c.item_id == items.c.id)
        .outerjoin(deciding, deciding.c.id == items.c.outcome_decision_id)
        .where(
            decisions.c.person_id == person_id,
            decisions.c.undone_ms.is_(None),
            decisions.c.kind.in_(("label", "none")),
        )
        .order_by(decisions.c.decided_ms.desc(), decisions.c.id.desc())
        .limit(limit)
    )
    return [
        Answer(item, kind, label, text, bool(decided))
        for item, kind, label, text, decided in tx.execute(query)
    ]


@dataclass(frozen=True, slots=True)
class Overruled:
    """A person's decision of which an adjudicator decided otherwise (``label``, ``note``). None: no
    label fits."""

    item_id: int
    mine: str | None
    label: str | None
    note: str
    decided_ms: int
    text: str


def overruled(tx: Tx, person_id: int, limit: int, chars: int) -> list[Overruled]:
    """Return a person's decisions that an adjudicator settled otherwise, newest first, with so many
    characters of the messages."""
    final = decisions.alias()
    query = (
        sa.select(
            items.c.id.label("item_id"),
            decisions.c.label.label("mine"),
            final.c.label,
            sa.func.coalesce(final.c.note, "").label("note"),
            final.c.decided_ms,
            sa.func.coalesce(sa.func.substr(texts.c.text, 1, chars), "").label("text"),
        )
        .join(items, items.c.id == decisions.c.item_id)
        .join(final, final.c.id == items.c.outcome_decision_id)
        .outerjoin(texts, texts.c.item_id == items.c.id)
        .where(
            decisions.c.person_id == person_id,
            decisions.c.undone_ms.is_(None),
            decisions.c.kind.in_(("label", "none")),
            final.c.final.is_(True),
            final.c.person_id != person_id,
            final.c.label.is_distinct_from(decisions.c.label),
        )
        .order_by(final.c.decided_ms.desc(), items.c.id.desc())
        .limit(limit)
    )
    return [Overruled(**row._mapping) for row in tx.execute(query)]


def take_back(tx: Tx, decision_id: int, person_id: int | None, now_ms: int) -> None:
    """Mark a decision as undone."""
    tx.execute(
        decisions.update()
        .where(decisions.c.id == decision_id)
        .values(undone_ms=now_ms, undone_by=person_id)
    )


def settle(tx: Tx, item: Item, now_ms: int) -> tuple[State, Decided | None]:
    """Compute a locked item's state from its decisions, and store it.

    Return the state, and the decision that holds if the item is decided.
    """
    made = on_item(tx, item.id)
    spoken = [each for each in made if each.kind in {"label", "none"}]
    flagged = any(each.kind == "flag" for each in made)
    opinions = [Opinion(each.label, each.final) for each in spoken]
    state, deciding = state_of(item.opinions_wanted, opinions, flagged=flagged)
    holds = None if deciding is None else spoken[deciding]
    values: dict[str, Any] = dict.fromkeys(
        ("outcome", "outcome_label", "outcome_ms", "outcome_decision_id", "outcome_taxonomy_digest")
    )
    if holds is not None:
        values = {
            "outcome": holds.kind,
            "outcome_label": holds.label,
            "outcome_ms": now_ms,
            "outcome_decision_id": holds.id,
            "outcome_taxonomy_digest": holds.taxonomy_digest,
        }
    tx.execute(_SETTLE, {"item": item.id, "state": state, **values})
    return state, holds


def disputes(person_id: int, item_id: int | None = None) -> sa.Select[Any]:
    """Return a query of the ids of disputed items, or of one item, oldest first.

    Items on which the person has given an opinion are left out: nobody settles their own dispute.
    They may settle what they flagged.
    """
    mine = (
        sa.select(decisions.c.id)
        .where(
            decisions.c.item_id == items.c.id,
            decisions.c.person_id == person_id,
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
        )
        .exists()
    )
    query = (
        # By the item's own state: a table of open disputes was tried, and kept those whose message
        # had been deleted.
        sa.select(items.c.id)
        .where(items.c.state == "dispute", ~mine)
        .order_by(items.c.received_ms, items.c.id)
        .limit(20)
    )
    return query if item_id is None else query.where(items.c.id == item_id)


def double_decided(tx: Tx, since_ms: int) -> list[list[str | None]]:
    """Return the labels that several reviewers gave to each item since a time; None if no label
    fits. Adjudicators' final decisions are left out."""
    query = (
        sa.select(decisions.c.item_id, decisions.c.label)
        .where(
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
            decisions.c.final.is_(False),
            decisions.c.decided_ms >= since_ms,
            decisions.c.item_id.in_(sa.select(items.c.id).where(items.c.opinions_wanted > 1)),
        )
        .order_by(decisions.c.item_id, decisions.c.id)
    )
    found: dict[int, list[str | None]] = {}
    for row in tx.execute(query):
        found.setdefault(row.item_id, []).append(row.label)
    return [said for said in found.values() if len(said) > 1]


@dataclass(frozen=True, slots=True)
class Work:
    """What one person decided: how many items, the median time for one (seconds, None if no page
    said), and on how many they agreed with another reviewer, of those that both decided."""

    decided: int
    median_s: float | None
    doubly: int
    agreed: int


def work_since(tx: Tx, since_ms: int) -> Mapping[int, Work]:
    """Return the work of each person since a time, by person id. Undone decisions, skips and flags
    are left out; an adjudicator's final decisions count as work, not as an opinion."""
    query = sa.select(
        decisions.c.person_id,
        decisions.c.item_id,
        decisions.c.label,
        decisions.c.final,
        decisions.c.seconds,
    ).where(
        decisions.c.kind.in_(("label", "none")),
        decisions.c.undone_ms.is_(None),
        decisions.c.decided_ms >= since_ms,
    )
    seconds: dict[int, list[float]] = defaultdict(list)
    opinions: dict[int, dict[int, str | None]] = defaultdict(dict)
    for row in tx.execute(query):
        seconds[row.person_id].append(row.seconds)
        if not row.final:
            opinions[row.item_id][row.person_id] = row.label
    doubly: Counter[int] = Counter()
    agreed: Counter[int] = Counter()
    for said in opinions.values():
        # In pairs: of three reviewers one may agree with the second and not with the third.
        for one, other in itertools.permutations(said, 2):
            doubly[one] += 1
            agreed[one] += said[one] == said[other]
    return {
        person: Work(
            len(each),
            statistics.median(timed) if (timed := [s for s in each if s > 0]) else None,
            doubly[person],
            agreed[person],
        )
        for person, each in seconds.items()
    }
