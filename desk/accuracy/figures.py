"""All figures of the accuracy page and its metrics, computed from the database."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from desk.accuracy.estimate import (
    REFERENCE_DAYS,
    WINDOWS_DAYS,
    Accuracy,
    Counts,
    Doubled,
    Fall,
    Mistakes,
    Share,
    Stratum,
    accuracy,
    judge,
    krippendorffs_alpha,
    mistakes,
    weighted_share,
)
from desk.service.context import Desk
from desk.store import counts, decisions
from desk.store.counts import Audited, DayTraffic, Waiting

DAY_MS = 86_400_000

HISTORY_DAYS = REFERENCE_DAYS + max(WINDOWS_DAYS)
"""The days that are read. Reviewers' mistakes are estimated from all of them."""

RECENT_DAYS = 28
"""The days for labels, adapters and confusions: a week has too few of each."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the traffic: its results, how many were drawn for the audit, and the accuracy, None
    if none is decided yet."""

    name: str
    results: int
    drawn: int
    accuracy: Accuracy | None


@dataclass(frozen=True, slots=True)
class Week:
    """Seven days from Monday on, UTC, from ``begin_ms``. The last week may be unfinished."""

    begin_ms: int
    part: Part


@dataclass(frozen=True, slots=True)
class Confusion:
    """Results with one label by the model and another by reviewers (None: no label fits): how many
    in the sample, and about how many of all results, not corrected for reviewers' mistakes."""

    machine: str
    people: str | None
    audited: int
    results: float


@dataclass(frozen=True, slots=True)
class Measured:
    """The model's accuracy. ``recent``, ``labels`` (the model's), ``adapters`` (by digest) and
    ``confusions`` are of the last ``RECENT_DAYS``."""

    recent: Part
    weeks: tuple[Week, ...]
    labels: tuple[Part, ...]
    adapters: tuple[Part, ...]
    confusions: tuple[Confusion, ...]
    mistakes: Mistakes | None
    falls: tuple[Fall, ...]


@dataclass(frozen=True, slots=True)
class Cost:
    """The work of the last ``days``: decisions and hours by the items' origin ("review", "audit").
    Hours are the time that items were on screen, an hour each at most."""

    days: int
    decisions: Mapping[str, int]
    hours: Mapping[str, float]

    @property
    def hours_a_week(self) -> float:
        """Hours per week."""
        return sum(self.hours.values()) * 7 / self.days


@dataclass(frozen=True, slots=True)
class Agreement:
    """The reviewers' agreement on the ``items`` that several decided. ``agreed`` counts the items
    on which all agree; ``alpha`` is Krippendorff's, None if it is not defined."""

    items: int
    agreed: int
    alpha: float | None


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    """The figures of the accuracy page. ``adapter_names`` are by digest."""

    measured: Measured
    waiting: tuple[Waiting, ...]
    cost: Cost
    agreement: Agreement
    adapter_names: Mapping[str, str]


def accuracy_figures(desk: Desk) -> AccuracyFigures:
    """Return all figures as of now. Raises DatabaseUnavailable.

    It reads the audit sample of 119 days, so keep the result for a minute or more.
    """
    now_ms = desk.clock()
    # From the beginning of a day, because traffic is counted by day.
    since_ms = (now_ms // DAY_MS - HISTORY_DAYS) * DAY_MS
    recent_ms = now_ms - RECENT_DAYS * DAY_MS
    with desk.database.read() as tx:
        sample = counts.audited(tx, since_ms)
        traffic = counts.traffic_by_day(tx, since_ms // DAY_MS)
        waiting = tuple(counts.waiting_by_origin(tx, now_ms))
        spent = counts.time_spent(tx, recent_ms)
        names = counts.adapter_names(tx, since_ms)
        doubled = decisions.double_decided(tx, since_ms)
    return AccuracyFigures(
        measured=measure(sample, traffic, now_ms),
        waiting=waiting,
        cost=Cost(
            RECENT_DAYS,
            {origin: count for origin, (count, _) in spent.items()},
            {origin: seconds / 3600 for origin, (_, seconds) in spent.items()},
        ),
        agreement=_agreement(doubled),
        adapter_names=names,
    )


def _agreement(said: Sequence[Sequence[str | None]]) -> Agreement:
    agreed = sum(len(set(labels)) == 1 for labels in said)
    return Agreement(len(said), agreed, krippendorffs_alpha(said))


def _all(_: Stratum) -> bool:
    return True


class _Known:
    """The audit sample and the traffic, by day since 1970."""

    def __init__(self, items: Iterable[Audited], traffic: Iterable[DayTraffic]) -> None:
        self._items: defaultdict[int, list[Audited]] = defaultdict(list)
        self._traffic: defaultdict[int, Counter[Stratum]] = defaultdict(Counter)
        for item in items:
            self._items[item.labelled_ms // DAY_MS].append(item)
        for row in traffic:
            stratum = Stratum(row.label, row.adapter_digest, row.doubtful)
            self._traffic[row.day][stratum] += row.results

    def audited(self, days: range, only: Callable[[Stratum], bool] = _all) -> list[Audited]:
        return [each for day in days for each in self._items[day] if only(_stratum(each))]

    def traffic(self, days: range, only: Callable[[Stratum], bool] = _all) -> dict[Stratum, int]:
        found: Counter[Stratum] = Counter()
        for day in days:
            for stratum, results in self._traffic[day].items():
                if only(stratum):
                    found[stratum] += results
        return dict(found)


def measure(items: Sequence[Audited], traffic: Sequence[DayTraffic], now_ms: int) -> Measured:
    """Measure the accuracy up to now, from the audit sample and the traffic of ``HISTORY_DAYS``."""
    # Of all days and labels together: a week has few items that two people decided, a label fewer.
    found = mistakes(Counter(each for item in items if (each := _doubled(item)) is not None))
    known = _Known(items, traffic)
    today = now_ms // DAY_MS
    recent = range(today - RECENT_DAYS + 1, today + 1)
    weights = known.traffic(recent)

    def part(name: str, days: range, only: Callable[[Stratum], bool] = _all) -> Part:
        results = known.traffic(days, only)
        audited = known.audited(days, only)
        estimate = accuracy(_sample(audited), results, found)
        return Part(name, sum(results.values()), len(audited), estimate)

    def label_is(name: str) -> Callable[[Stratum], bool]:
        return lambda stratum: stratum.label == name

    def adapter_is(digest: str) -> Callable[[Stratum], bool]:
        return lambda stratum: stratum.adapter_digest == digest

    return Measured(
        recent=part("", recent),
        weeks=tuple(
            Week(monday * DAY_MS, part("", range(monday, monday + 7)))
            for monday in _mondays(traffic, today)
        ),
        labels=tuple(
            part(name, recent, label_is(name)) for name in sorted({each.label for each in weights})
        ),
        adapters=tuple(
            part(digest, recent, adapter_is(digest))
            for digest in sorted({each.adapter_digest for each in weights})
        ),
        confusions=_confusions(known.audited(recent), weights),
        mistakes=found,
        falls=_falls(known, today),
    )


def verdict(item: Audited) -> tuple[bool, bool] | None:
    """Return whether the model was right and whether that was checked; None without an opinion.

    The first opinion counts until the item is settled. Waiting for the second one, or for the
    adjudicator, would leave out the items on which reviewers disagree, and make the model look
    better.
    """
    if item.settled:
        checked = item.adjudicated or len(item.opinions) > 1
        return item.outcome_label == item.label, checked
    if item.opinions:
        return item.opinions[0] == item.label, False
    return None


def _doubled(item: Audited) -> Doubled | None:
    """Return an item's evidence about its reviewers, None if only one decided it.

    In an open dispute the model's label is taken as right if one of them gave it, else the first
    opinion. Leaving disputes out would make reviewers look better.
    """
    said = item.opinions
    if len(said) < (1 if item.adjudicated else 2):
        return None
    guess = item.label if item.label in said else said[0]
    truth = item.outcome_label if item.settled else guess
    right = truth == item.label
    return Doubled(
        right,
        sum((label == item.label) != right for label in said),
        sum(label != truth for label in said),
        len(said),
    )


def _falls(known: _Known, today: int) -> tuple[Fall, ...]:
    def share(days: range) -> Share | None:
        return weighted_share(_sample(known.audited(days)), known.traffic(days))

    # Both windows have the same reference: the week is not compared with the three weeks before it,
    # which may be part of the fall.
    begin = today - max(WINDOWS_DAYS) + 1
    before = share(range(begin - REFERENCE_DAYS, begin))
    return judge(before, {days: share(range(today - days + 1, today + 1)) for days in WINDOWS_DAYS})


def _confusions(items: Sequence[Audited], traffic: dict[Stratum, int]) -> tuple[Confusion, ...]:
    """Return confusions, the most frequent first."""
    pairs: Counter[tuple[str, str | None]] = Counter()
    decided: Counter[str] = Counter()
    for item in items:
        if verdict(item) is not None:
            people = item.outcome_label if item.settled else item.opinions[0]
            decided[item.label] += 1
            pairs[item.label, people] += 1
    results: Counter[str] = Counter()
    for stratum, count in traffic.items():
        results[stratum.label] += count
    # Scaled by label: the decided items of a label stand for all its results.
    found = [
        Confusion(machine, people, count, count * results[machine] / decided[machine])
        for (machine, people), count in pairs.items()
        if machine != people
    ]
    return tuple(sorted(found, key=lambda each: (-each.results, each.machine, each.people or "")))


def _sample(items: Iterable[Audited]) -> dict[Stratum, Counts]:
    found: defaultdict[Stratum, Counts] = defaultdict(lambda: Counts(0, 0))
    for item in items:
        said = verdict(item)
        if said is not None:
            right, checked = said
            found[_stratum(item)] += Counts(1, int(right), int(checked), 1 / item.sample_share)
    return dict(found)


def _mondays(traffic: Sequence[DayTraffic], today: int) -> list[int]:
    """Return the Mondays of those of the last 13 weeks that have traffic."""
    this = _monday(today)
    with_traffic = {_monday(row.day) for row in traffic}
    return [monday for monday in range(this - 12 * 7, this + 1, 7) if monday in with_traffic]


def _monday(day: int) -> int:
    return day - (day + 3) % 7  # 1970-01-01 was a Thursday


def _stratum(item: Audited) -> Stratum:
    return Stratum(item.label, item.adapter_digest, item.doubtful)
