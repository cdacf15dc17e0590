"""What people decide, and what follows for the item."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from desk.core.items import DecisionKind, Opinion, Standing, standing
from desk.errors import Refused
from desk.store.database import Tx
from desk.store.tables import adjudications, decisions, items, outbox
from desk.store.types import DECIDED, Decided, Item, read_row

SENT_BEFORE = "this form was sent before, for another message: reload the page and decide again"


@dataclass(frozen=True, slots=True)
class NewDecision:
    """A decision to be kept. ``final``: an adjudicator's, which ends the matter."""

    request_id: str
    person_id: int
    kind: DecisionKind
    label: str | None
    note: str
    final: bool
    taxonomy_digest: str
    guideline_version: int | None
    seconds: float


_BY_REQUEST = sa.select(*DECIDED).where(decisions.c.request_id == sa.bindparam("request_id"))
_ADD = decisions.insert().returning(*DECIDED)
_ON_ITEM = (
    sa.select(*DECIDED)
    .where(decisions.c.item_id == sa.bindparam("item_id"), decisions.c.undone_ms.is_(None))
    .order_by(decisions.c.id)
)
_SETTLE = items.update().where(items.c.id == sa.bindparam("item"))
_DISPUTED = (adjudications.c.item_id == sa.bindparam("item"), adjudications.c.closed_ms.is_(None))
_DISPUTE = sa.select(adjudications.c.id).where(*_DISPUTED)
_CLOSE_DISPUTE = adjudications.update().where(*_DISPUTED)


def by_request(tx: Tx, request_id: str) -> Decided | None:
    """Return the decision of a request that was sent before."""
    row = tx.execute(_BY_REQUEST, {"request_id": request_id}).first()
    return None if row is None else read_row(Decided, row)


def add(tx: Tx, item: Item, new: NewDecision, now_ms: int) -> Decided:
    """Keep a decision on an item that is locked. Raises Refused if another item's decision has this
    request id."""
    row = {**asdict(new), "item_id": item.id, "blind": item.blind, "decided_ms": now_ms}
    try:
        return read_row(Decided, tx.execute(_ADD, row).one())
    except IntegrityError:  # of two requests at once; the caller looks for an earlier one
        raise Refused(SENT_BEFORE) from None


def on_item(tx: Tx, item_id: int) -> list[Decided]:
    """Return the decisions on an item that hold, oldest first."""
    return [read_row(Decided, row) for row in tx.execute(_ON_ITEM, {"item_id": item_id})]


def last_of(tx: Tx, person_id: int) -> Decided | None:
    """Return the last decision of a person that holds."""
    query = (
        sa.select(*DECIDED)
        .where(decisions.c.person_id == person_id, decisions.c.undone_ms.is_(None))
        .order_by(decisions.c.decided_ms.desc(), decisions.c.id.desc())
        .limit(1)
    )
    row = tx.execute(query).first()
    return None if row is None else read_row(Decided, row)


def take_back(tx: Tx, decision_id: int, person_id: int | None, now_ms: int) -> None:
    """Mark a decision as undone; what of it is not published yet is not published any more."""
    tx.execute(
        decisions.update()
        .where(decisions.c.id == decision_id)
        .values(undone_ms=now_ms, undone_by=person_id)
    )
    tx.execute(
        outbox.delete().where(outbox.c.decision_id == decision_id, outbox.c.sequence.is_(None))
    )


def settle(tx: Tx, item: Item, now_ms: int) -> tuple[Standing, Decided | None]:
    """Work out where a locked item stands by its decisions, and keep it.

    Return that, and the decision that holds where it is decided.
    """
    made = on_item(tx, item.id)
    spoken = [each for each in made if each.kind in {"label", "none"}]
    flagged = any(each.kind == "flag" for each in made)
    now = standing(item.opinions_wanted, [_opinion(each) for each in spoken], flagged=flagged)
    holds = None
    values: dict[str, Any] = dict.fromkeys(
        ("outcome", "outcome_label", "outcome_ms", "outcome_decision_id", "outcome_taxonomy_digest")
    )
    if now.opinion is not None:
        holds = [each for each in spoken if _opinion(each) == now.opinion][-1]
        values = {
            "outcome": holds.kind,
            "outcome_label": holds.label,
            "outcome_ms": now_ms,
            "outcome_decision_id": holds.id,
            "outcome_taxonomy_digest": holds.taxonomy_digest,
        }
    tx.execute(_SETTLE, {"item": item.id, "state": now.state, **values})
    _keep_dispute(tx, item.id, now, flagged=flagged, holds=holds, now_ms=now_ms)
    return now, holds


def disputes(person_id: int, now_ms: int, limit: int = 20) -> sa.Select[Any]:
    """Return a query of the ids of disputed items, oldest first, on which a person has not given an
    opinion: nobody judges a dispute of their own. What they flagged they may."""
    mine = (
        sa.select(decisions.c.id)
        .where(
            decisions.c.item_id == adjudications.c.item_id,
            decisions.c.person_id == person_id,
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
        )
        .exists()
    )
    return (
        sa.select(adjudications.c.item_id)
        .where(adjudications.c.closed_ms.is_(None), ~mine, adjudications.c.opened_ms <= now_ms)
        .order_by(adjudications.c.opened_ms, adjudications.c.id)
        .limit(limit)
    )


def double_decided(tx: Tx, since_ms: int) -> list[list[str | None]]:
    """Return the labels that reviewers gave since a time to each item that several decided; None
    where no label fits. Adjudicators are left out."""
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


def _opinion(made: Decided) -> Opinion:
    kind = "label" if made.kind == "label" else "none"
    return Opinion(made.person_id, kind, made.label, made.final)  # type: ignore[arg-type]


def _keep_dispute(
    tx: Tx, item_id: int, now: Standing, *, flagged: bool, holds: Decided | None, now_ms: int
) -> None:
    """Open a dispute where there is one, close it where there is none any more."""
    there = tx.execute(_DISPUTE, {"item": item_id}).first() is not None
    if now.state == "dispute" and not there:
        reason = "flag" if flagged else "disagreement"
        tx.execute(adjudications.insert().values(item_id=item_id, reason=reason, opened_ms=now_ms))
    elif now.state != "dispute" and there:
        closed = {"closed_ms": now_ms, "decision_id": holds.id if holds is not None else None}
        tx.execute(_CLOSE_DISPUTE, {"item": item_id, **closed})
