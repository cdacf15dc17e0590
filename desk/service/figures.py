"""What is going on, in numbers: for pages and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from desk.core.agreement import cohens_kappa, krippendorffs_alpha
from desk.service.context import Desk
from desk.store import decisions, deliveries, offsets, outbox, people, stats
from desk.store.offsets import Progress
from desk.store.outbox import Backlog
from desk.store.stats import AuditOutcome

NO_LABEL = ""
"""Stands for "no label fits" where opinions are compared."""


@dataclass(frozen=True, slots=True)
class Overview:
    """How things stand. Ages are in seconds, None where there is nothing to be old.

    ``undelivered`` are decisions that wait for the webhook's receiver; None where there is none.
    """

    items: Mapping[str, int]
    disputes: int
    oldest_waiting_s: float | None
    reading: tuple[Progress, ...]
    lag: int
    backlog: Backlog
    undelivered: int | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree beyond chance on what several decided.

    ``alpha`` is Krippendorff's over all; ``kappas`` are Cohen's, by pair of pseudonyms, with how
    many items the two shared. None where a figure is not defined.
    """

    items: int
    agreed: int
    alpha: float | None
    kappas: Mapping[tuple[str, str], tuple[float | None, int]]


def overview(desk: Desk) -> Overview:
    """Return how things stand now."""
    now_ms = desk.clock()
    with desk.database.read() as tx:
        oldest_ms = stats.oldest_waiting_ms(tx)
        reading = tuple(offsets.progress(tx))
        return Overview(
            items=stats.by_state(tx),
            disputes=stats.open_disputes(tx),
            oldest_waiting_s=None if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            reading=reading,
            lag=sum(each.lag for each in reading),
            backlog=outbox.backlog(tx),
            undelivered=deliveries.backlog(tx),
        )


def agreement(desk: Desk, *, since_ms: int = 0) -> Agreement:
    """Return how far people agree, over opinions given since a time (Unix, ms)."""
    with desk.database.read() as tx:
        said = decisions.double_decided(tx, since_ms=since_ms)
        names = {person.id: person.pseudonym for person in people.everybody(tx)}
    units: list[list[Hashable]] = []
    pairs: dict[tuple[str, str], list[tuple[Hashable, Hashable]]] = defaultdict(list)
    for opinions in said:
        values = [(names[person_id], label or NO_LABEL) for person_id, label in opinions]
        units.append([label for _, label in values])
        for at, (left, left_label) in enumerate(values):
            for right, right_label in values[at + 1 :]:
                pair = sorted([(left, left_label), (right, right_label)])
                pairs[pair[0][0], pair[1][0]].append((pair[0][1], pair[1][1]))
    return Agreement(
        items=len(units),
        agreed=sum(len(set(unit)) == 1 for unit in units),
        alpha=krippendorffs_alpha(units),
        kappas={pair: (cohens_kappa(both), len(both)) for pair, both in sorted(pairs.items())},
    )


def work_by_person(desk: Desk, since_ms: int) -> Mapping[str, tuple[int, float]]:
    """Return by pseudonym how many opinions were given since a time, and the seconds they took."""
    with desk.database.read() as tx:
        names = {person.id: person.pseudonym for person in people.everybody(tx)}
        return {
            names[each.person_id]: (each.opinions, each.seconds)
            for each in stats.work(tx, since_ms)
        }


def audit_outcomes(desk: Desk, since_ms: int) -> list[AuditOutcome]:
    """Return what people came to on the audit sample since a time: what accuracy is measured on."""
    with desk.database.read() as tx:
        return stats.audit_outcomes(tx, since_ms)


def traffic(desk: Desk, since_ms: int) -> Mapping[tuple[str, str, bool], int]:
    """Return all results since the day of a time, by (label, adapter's digest, doubtful): what the
    audit sample is weighted to."""
    with desk.database.read() as tx:
        return stats.traffic_since(tx, since_ms // 86_400_000)
