"""Counts of what waits, the state of the desk, and one person's day."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from desk.core.items import REASON_BITS
from desk.service import reviewing
from desk.service.context import Desk, require
from desk.service.viewing import seen_how, text_for
from desk.store import counts, decisions, items, offsets, outbox, people
from desk.store.counts import Made
from desk.store.database import Tx
from desk.store.decisions import Overruled
from desk.store.offsets import Progress
from desk.store.types import Person

_EXCERPT_CHARS = 100

AGES_S = (3_600, 86_400, 604_800)
"""Items older than these are counted: an hour, a day, a week; in seconds."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """How many items of the inbox wait. By reason and by label without the audit sample, whose
    labels are not shown; by age (s) and adapter (digest) with it."""

    all: int
    audit: int
    by_reason: Mapping[str, int]
    by_label: Mapping[str, int]
    by_adapter: Mapping[str, int]
    by_age_s: Mapping[int, int]
    adapter_names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Recent:
    """A decision of a person's own. ``text`` is the message's beginning, as they may see it; None
    if it has been deleted."""

    made: Made
    text: str | None
    may_reopen: bool


@dataclass(frozen=True, slots=True)
class Day:
    """A person's decisions since a time. ``seconds`` were spent on those that were not undone."""

    by_kind: Mapping[str, int]
    decided: int
    undone: int
    seconds: float
    newest: tuple[Recent, ...]
    overruled: tuple[Overruled, ...]


def waiting(desk: Desk) -> Waiting:
    """Return how many items of the inbox wait, by the choices of a queue."""
    now_ms = desk.clock()
    with desk.database.read() as tx:
        facets = counts.waiting(tx, [now_ms - age_s * 1000 for age_s in AGES_S])
        digests = sorted({facet.adapter_digest for facet in facets})
        names = {digest: counts.adapter_name(tx, digest) for digest in digests}
    reasons: Counter[str] = Counter()
    labels: Counter[str] = Counter()
    adapters: Counter[str] = Counter()
    ages: Counter[int] = Counter()
    for facet in facets:
        adapters[facet.adapter_digest] += facet.waiting
        for age_s, older in zip(AGES_S, facet.older, strict=True):
            ages[age_s] += older
        if facet.origin == "audit":  # a count by label would hint at a blind item's label
            continue
        labels[facet.label] += facet.waiting
        for reason, bit in REASON_BITS.items():
            if facet.reason_bits & bit:
                reasons[reason] += facet.waiting
    return Waiting(
        all=sum(facet.waiting for facet in facets),
        audit=sum(facet.waiting for facet in facets if facet.origin == "audit"),
        by_reason=dict(reasons),
        by_label=dict(labels.most_common()),
        by_adapter=dict(adapters.most_common()),
        by_age_s=dict(ages),
        adapter_names=names,
    )


def examples(desk: Desk, person: Person, item_ids: Sequence[int]) -> Mapping[int, str]:
    """Return the items' messages, for a list with one example of each cluster. Deleted messages are
    left out. The log says who saw them. Raises NotAllowed."""
    require(person, "reviewer")
    with desk.database.write() as tx:
        found = {item_id: items.text_of(tx, item_id) for item_id in item_ids}
        detail = {"items": list(item_ids), **seen_how(desk, person)}
        people.log(tx, desk.clock(), person.id, "clusters", detail=detail)
    return {
        item_id: text_for(desk, person, text, 3 * _EXCERPT_CHARS)
        for item_id, text in found.items()
        if text is not None
    }


def _midnight_ms(desk: Desk) -> int:
    now = datetime.fromtimestamp(desk.clock() / 1000).astimezone()
    return int(now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)


def decided_today(desk: Desk, person: Person) -> int:
    """Return how many decisions of a person since midnight stand."""
    with desk.database.read() as tx:
        made = counts.made_since(tx, person.id, _midnight_ms(desk))
    return sum(made[kind][0] - made[kind][1] for kind in ("label", "none") if kind in made)


def my_day(desk: Desk, person: Person) -> Day:
    """Return what a person has done since midnight, with their newest 20 decisions, and the
    newest 20 that an adjudicator decided otherwise. The log says whose messages they saw."""
    since_ms = _midnight_ms(desk)
    # A transaction that writes, although it shows: the log says whose messages were seen.
    with desk.database.write() as tx:
        made = counts.made_since(tx, person.id, since_ms)
        newest = [_recent(tx, desk, person, each) for each in counts.newest_made(tx, person.id, 20)]
        otherwise = decisions.overruled(tx, person.id, 20, 4 * _EXCERPT_CHARS)
        seen = [each.made.item_id for each in newest if each.text is not None]
        seen += [each.item_id for each in otherwise]
        if seen:
            detail = {"items": seen, **seen_how(desk, person)}
            people.log(tx, desk.clock(), person.id, "my_day", detail=detail)
    held = {kind: count - undone for kind, (count, undone, _) in made.items()}
    return Day(
        by_kind=held,
        decided=held.get("label", 0) + held.get("none", 0),
        undone=sum(undone for _, undone, _ in made.values()),
        seconds=sum(seconds for *_, seconds in made.values()),
        newest=tuple(newest),
        overruled=tuple(
            replace(
                each,
                text=text_for(desk, person, each.text, _EXCERPT_CHARS)[:_EXCERPT_CHARS],
                note=text_for(desk, person, each.note),
            )
            for each in otherwise
        ),
    )


def _recent(tx: Tx, desk: Desk, person: Person, made: Made) -> Recent:
    item = items.get(tx, made.item_id)
    text = items.text_of(tx, made.item_id)
    if text is not None:
        seen = text_for(desk, person, text, _EXCERPT_CHARS)
        text = seen if len(text) <= _EXCERPT_CHARS else f"{seen[:_EXCERPT_CHARS]}…"
    gave_label = made.kind in {"label", "none"} and not made.undone
    return Recent(
        made,
        text,
        gave_label and item is not None and reviewing.may_reopen(tx, person, item),
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the desk. Ages are in seconds, None if nothing waits.

    ``undelivered`` counts the records that wait for the webhook's receiver, None without one.
    """

    items: Mapping[str, int]
    disputes: int
    oldest_waiting_s: float | None
    reading: tuple[Progress, ...]
    lag: int
    unpublished: int
    unpublished_since_ms: int | None
    undelivered: int | None = None


def overview(desk: Desk) -> Overview:
    """Return the state of the desk now."""
    now_ms = desk.clock()
    with desk.database.read() as tx:
        oldest_ms = counts.oldest_waiting_ms(tx)
        reading = tuple(offsets.progress(tx))
        by_state = counts.by_state(tx)
        unpublished, since_ms = outbox.backlog(tx)
        return Overview(
            items=by_state,
            disputes=by_state.get("dispute", 0),
            oldest_waiting_s=None if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            reading=reading,
            lag=sum(each.lag for each in reading),
            unpublished=unpublished,
            unpublished_since_ms=since_ms,
            undelivered=outbox.undelivered(tx),
        )
