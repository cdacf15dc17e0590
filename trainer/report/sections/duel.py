"""What else could do the job, and what each way costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from trainer import facts, numbers
from trainer.artifacts.duel import CostRecord, DuelRecord
from trainer.cost import describe_margin
from trainer.facts import Table
from trainer.report.bars import span
from trainer.report.lines import Line, Mark, line_chart
from trainer.report.records import Input, Run, Section, Titled, lacking, small
from trainer.report.svg import Chart
from trainer.statistics.metrics import ALPHA


@dataclass(frozen=True, slots=True)
class RivalComparison:
    """The adapter against its most accurate rival, on the same messages.

    ``difference`` is the adapter's accuracy less the rival's, with its 95 % interval; ``p`` is
    adjusted for all pairs of the duel (Holm 1979).
    """

    rival: str
    rival_accuracy: float
    difference: float
    interval: tuple[float, float]
    p: float

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance would explain."""
        return self.p < ALPHA


def duel_section(run: Run) -> Section:
    """Return the candidates, their paired differences, and the duel's verdict."""
    title = "Against simpler methods"
    duel = run.duel
    if duel is None or not duel.candidates:
        return lacking("duel", title, Input.DUEL)
    verdict = duel.verdict
    if duel.recommendation:
        verdict += f" Recommended: {duel.recommendation}."
    table = facts.candidates(duel)
    bars = (rung["bar"] for rung in ladder(duel))
    rows = [(*row[:3], bar_, *row[3:]) for row, bar_ in zip(table.rows, bars, strict=True)]
    columns = (*table.columns[:3], "", *table.columns[3:])
    told = (
        "Both methods answered the same messages, so only those on which exactly one is right tell "
        "them apart: overlapping intervals do not mean equal. p is McNemar's exact test with "
        "Holm's adjustment for all pairs. Outside: answers that were none of the labels; the "
        "adapter's is what it would have said without the constraint that it is served with."
    )
    margin = _unsigned(duel.margin)
    told += (
        f" At worst: the end of a one-sided 95% interval of how the second compares with the "
        f"first; p (margin): of the second being {margin} or more worse (Tango's test). "
        f"Validation chose {duel.tested_baseline} to be tested so; "
        f"{numbers.count(duel.required_messages)} messages pass a baseline that is exactly as "
        "good four times in five."
    )
    if duel.minimum_detectable_difference is not None:
        detectable = _unsigned(duel.minimum_detectable_difference)
        told += f" A hold-out of this size detects differences from {detectable}."
    money = money_of_margin(run)
    return Section(
        "duel",
        title,
        [
            Markup('<span class="lead">{}</span>').format(verdict),
            replace(table, columns=columns, rows=rows),
            Titled("Paired differences", facts.pairs(duel)),
            small(told),
            *([small(money)] if money else []),
        ],
    )


def ladder(duel: DuelRecord) -> list[dict[str, Any]]:
    """Return the candidates' accuracies with the bars of their intervals on one scale."""
    low = min(candidate.accuracy_interval_95[0] for candidate in duel.candidates)
    start = max(0.0, low - 0.25 * (1 - low))

    def place(share: float) -> float:
        return (share - start) / (1 - start) if start < 1 else 1.0

    return [
        {
            "name": candidate.name,
            "ours": facts.is_adapter(candidate),
            "value": numbers.percent(candidate.accuracy),
            "about": numbers.interval(candidate.accuracy_interval_95),
            "bar": span(
                place(candidate.accuracy_interval_95[0]),
                place(candidate.accuracy_interval_95[1]),
                place(candidate.accuracy),
                "s1" if facts.is_adapter(candidate) else "s5",
            ),
        }
        for candidate in facts.ranked(duel)
    ]


def compare_with_rival(duel: DuelRecord, name: str | None = None) -> RivalComparison | None:
    """Return the comparison with the candidate of that name, by default with the most accurate one;
    None where the duel lacks it."""
    ours = next(filter(facts.is_adapter, duel.candidates), None)
    rivals = [each for each in duel.candidates if not facts.is_adapter(each)]
    if name is not None:
        rivals = [each for each in rivals if each.name == name]
    if ours is None or not rivals:
        return None
    best = max(rivals, key=lambda candidate: (candidate.accuracy, candidate.name))
    for pair in duel.pairs:
        if {pair.a, pair.b} == {ours.name, best.name}:
            sign = 1 if pair.a == ours.name else -1
            low, high = sorted(sign * bound for bound in pair.interval_95)
            return RivalComparison(
                best.name, best.accuracy, sign * pair.difference, (low, high), pair.p_holm
            )
    return None


def money_of_margin(run: Run) -> str | None:
    """Return what the margin comes to in messages and money, None where it is not known."""
    if run.duel is None or run.cost is None:
        return None
    return describe_margin(run.cost, run.duel.margin)


def _unsigned(difference: float) -> str:
    return numbers.points(difference).removeprefix("+")


_DAYS_PER_MONTH = 365.25 / 12
_LEAST_MONTHS, _MOST_MONTHS = 12, 60


def cost_section(run: Run) -> Section:
    """Return when the adapter has paid for itself, the bill by volume, and every input."""
    title = "What it costs"
    if run.cost is None:
        return lacking("cost", title, Input.COST)
    found, planned = run.cost, run.cost.planned
    money = numbers.money
    pays = f"never pays for itself: {found.break_even_reason}."
    if planned.break_even_days is not None:
        messages = numbers.count(found.break_even_messages)
        pays = f"has paid for itself after {_days(planned.break_even_days)}, {messages} messages."
    volume = numbers.count(planned.messages_per_month)
    least = numbers.count(found.pays_from_messages_per_month)
    serving = (
        f"Serving never costs less than the hosted model: {found.pays_from_reason}."
        if found.pays_from_reason
        else f"A month's serving costs no more than the hosted model from {least} messages on."
    )
    training, labelling = money(found.training), money(found.labelling)
    own = money(found.per_thousand_messages, 4)
    columns = ("messages a month", "replicas", "serving", "per thousand", "hosted", "saved",
               "break-even")  # fmt: skip
    volumes = [
        (
            numbers.count(volume.messages_per_month),
            numbers.count(volume.replicas),
            money(volume.serving),
            money(volume.serving_per_thousand, 4),
            money(volume.hosted),
            money(volume.saving),
            _days(volume.break_even_days),
        )
        for volume in found.by_volume
    ]
    inputs = [
        (
            given.name.replace("_", " "),
            given.unit,
            given.source or numbers.NONE,
            numbers.written(given.value),
        )
        for given in found.inputs
    ]
    return Section(
        "cost",
        title,
        [
            f"At {volume} messages a month the adapter {pays}",
            serving,
            [
                ("once", f"{money(found.one_off)} (training {training}, labelling {labelling})"),
                ("a month: adapter", money(planned.serving)),
                ("a month: hosted", money(planned.hosted)),
                ("1,000 messages: adapter", f"{own} at the planned utilisation"),
                ("1,000 messages: hosted", money(found.hosted_per_thousand, 4)),
            ],
            small(
                f"All amounts in {found.currency}. Replicas are paid around the clock, whether "
                "messages come or not."
            ),
            _running_total(found),
            Titled("By volume", Table(columns, volumes, words=0)),
            Titled("Inputs", Table(("input", "unit", "from", "value"), inputs, words=3)),
        ],
    )


def _running_total(found: CostRecord) -> Chart:
    """Draw what either way has cost month by month at the planned volume."""
    planned, once = found.planned, found.one_off
    days = planned.break_even_days
    even = None if days is None else days / _DAYS_PER_MONTH
    months = _LEAST_MONTHS
    if even is not None:
        months = min(_MOST_MONTHS, max(months, math.ceil(1.5 * even)))
    at = range(0, months + 1, max(1, months // 6))
    own = tuple((float(month), once + month * planned.serving) for month in at)
    hosted = tuple((float(month), month * planned.hosted) for month in at)
    return line_chart(
        [
            Line("the adapter", own, "s1", marked=False),
            Line("the hosted model", hosted, "s2", marked=False),
        ],
        title="Spent so far",
        caption=f"{found.currency}, at the planned volume, training and labelling included.",
        x_title="months",
        y_title=found.currency,
        write_y=numbers.money,
        y_range=(0.0, max(*(y for _, y in (*own, *hosted)), 1e-6) * 1.05),
        marks=[Mark(even, "break-even")] if even is not None and even <= months else (),
    )


def _days(days: float | None) -> str:
    return "never" if days is None else numbers.counted(math.ceil(days), "day")
