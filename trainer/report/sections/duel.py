"""What else could do the job, and what each way costs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from trainer.artifacts.duel import CandidateFigures, CostInput, CostRecord, DuelRecord
from trainer.cost import describe_margin
from trainer.report import numbers
from trainer.report.bars import span
from trainer.report.lines import ForestRow, Line, Mark, forest_chart, line_chart
from trainer.report.numbers import written
from trainer.report.records import Input, Run, Section, lacking
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
    if run.duel is None or not run.duel.candidates:
        return lacking("duel", title, Input.DUEL)
    detectable = numbers.points(run.duel.minimum_detectable_difference)
    return Section(
        "duel",
        title,
        {
            "forest": forest(run.duel),
            "candidates": [
                (
                    _is_adapter(candidate),
                    (
                        candidate.name,
                        numbers.percent(candidate.accuracy),
                        numbers.interval(candidate.accuracy_interval_95),
                        numbers.decimal(candidate.macro_f1),
                        numbers.duration(candidate.train_seconds),
                        numbers.significant(candidate.messages_per_s),
                        numbers.count(candidate.outside_labels),
                    ),
                )
                for candidate in _ranked(run.duel)
            ],
            "pairs": [
                (
                    pair.p_holm < ALPHA,
                    (
                        f"{pair.a} less {pair.b}",
                        numbers.points(pair.difference),
                        numbers.points_interval(pair.interval_95),
                        numbers.count(pair.a_only),
                        numbers.count(pair.b_only),
                        numbers.probability(pair.mcnemar_p),
                        numbers.probability(pair.p_holm),
                        numbers.points(-pair.worst_difference),
                        numbers.probability(pair.non_inferiority_p),
                    ),
                )
                for pair in run.duel.pairs
            ],
            "detectable": detectable.removeprefix("+"),
            "margin": _margin(run.duel),
            "tested": run.duel.tested_baseline,
            "required": numbers.count(run.duel.required_messages),
            "money": money_of_margin(run),
            "verdict": run.duel.verdict,
            "recommendation": run.duel.recommendation,
        },
    )


def forest(duel: DuelRecord) -> Chart:
    """Return the accuracies of all candidates with their intervals."""
    return forest_chart(
        [
            ForestRow(
                name=candidate.name,
                value=candidate.accuracy,
                low=candidate.accuracy_interval_95[0],
                high=candidate.accuracy_interval_95[1],
                ours=_is_adapter(candidate),
            )
            for candidate in duel.candidates
        ],
        title="Accuracy on the same hold-out",
        caption=(
            "With 95% intervals. Overlapping intervals do not mean equal: the messages are the "
            "same, so the paired differences decide."
        ),
        x_title="accuracy",
    )


def ladder(duel: DuelRecord) -> list[dict[str, object]]:
    """Return the candidates' accuracies with the bars of their intervals on one scale."""
    low = min(candidate.accuracy_interval_95[0] for candidate in duel.candidates)
    start = max(0.0, low - 0.25 * (1 - low))

    def place(share: float) -> float:
        return (share - start) / (1 - start) if start < 1 else 1.0

    return [
        {
            "name": candidate.name,
            "ours": _is_adapter(candidate),
            "accuracy": numbers.percent(candidate.accuracy),
            "interval": numbers.interval(candidate.accuracy_interval_95),
            "bar": span(
                place(candidate.accuracy_interval_95[0]),
                place(candidate.accuracy_interval_95[1]),
                place(candidate.accuracy),
                "s1" if _is_adapter(candidate) else "s5",
            ),
        }
        for candidate in _ranked(duel)
    ]


def compare_with_rival(duel: DuelRecord, name: str | None = None) -> RivalComparison | None:
    """Return the comparison with the candidate of that name, by default with the most accurate one;
    None where the duel lacks it."""
    ours = next(filter(_is_adapter, duel.candidates), None)
    rivals = [each for each in duel.candidates if not _is_adapter(each)]
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


def _margin(duel: DuelRecord) -> str:
    return numbers.points(duel.margin).removeprefix("+")


def _is_adapter(candidate: CandidateFigures) -> bool:
    return candidate.kind == "adapter"


def _ranked(duel: DuelRecord) -> list[CandidateFigures]:
    return sorted(duel.candidates, key=lambda candidate: (-candidate.accuracy, candidate.name))


_DAYS_PER_MONTH = 365.25 / 12
_LEAST_MONTHS, _MOST_MONTHS = 12, 60


def cost_section(run: Run) -> Section:
    """Return when the adapter has paid for itself, the bill by volume, and every input."""
    title = "What it costs"
    if run.cost is None:
        return lacking("cost", title, Input.COST)
    found, planned = run.cost, run.cost.planned
    return Section(
        "cost",
        title,
        {
            "currency": found.currency,
            "one_off": numbers.money(found.one_off),
            "training": numbers.money(found.training),
            "labelling": numbers.money(found.labelling),
            "own": numbers.money(found.per_thousand_messages, 4),
            "hosted": numbers.money(found.hosted_per_thousand, 4),
            "volume": numbers.count(planned.messages_per_month),
            "serving_month": numbers.money(planned.serving),
            "hosted_month": numbers.money(planned.hosted),
            "days": None if planned.break_even_days is None else _days(planned.break_even_days),
            "messages": numbers.count(found.break_even_messages),
            "reason": found.break_even_reason,
            "pays_from": numbers.count(found.pays_from_messages_per_month),
            "pays_from_reason": found.pays_from_reason,
            "chart": _running_total(found),
            "volumes": [
                (
                    numbers.count(volume.messages_per_month),
                    numbers.count(volume.replicas),
                    numbers.money(volume.serving),
                    numbers.money(volume.serving_per_thousand, 4),
                    numbers.money(volume.hosted),
                    numbers.money(volume.saving),
                    _days(volume.break_even_days),
                )
                for volume in found.by_volume
            ],
            "inputs": [_input(given) for given in found.inputs],
        },
    )


def _running_total(found: CostRecord) -> Chart:
    """Draw what either way has cost month by month at the planned volume."""
    planned, once = found.planned, found.one_off
    days = planned.break_even_days
    even = None if days is None else days / _DAYS_PER_MONTH
    months = _LEAST_MONTHS
    if even is not None:
        months = min(_MOST_MONTHS, max(months, math.ceil(1.5 * even)))
    own = [(float(at), once + at * planned.serving) for at in (0, months)]
    hosted = [(float(at), at * planned.hosted) for at in (0, months)]
    told = range(0, months + 1, max(1, months // 6))
    return line_chart(
        [
            Line("the adapter", tuple(own), "s1", marked=False),
            Line("the hosted model", tuple(hosted), "s2", marked=False),
        ],
        title="Spent so far",
        caption=f"{found.currency}, at the planned volume, training and labelling included.",
        x_title="months",
        y_title=found.currency,
        table=(
            ("months", "the adapter", "the hosted model"),
            tuple(
                (
                    str(at),
                    numbers.money(once + at * planned.serving),
                    numbers.money(at * planned.hosted),
                )
                for at in told
            ),
        ),
        write_y=numbers.money,
        whole_x=True,
        y_range=(0.0, max(*(y for _, y in (*own, *hosted)), 1e-6) * 1.05),
        marks=[Mark(even, "break-even")] if even is not None and even <= months else (),
    )


def _days(days: float | None) -> str:
    return "never" if days is None else numbers.counted(math.ceil(days), "day")


def _input(given: CostInput) -> tuple[str, str, str, str]:
    return (
        given.name.replace("_", " "),
        written(given.value),
        given.unit,
        given.source or numbers.NONE,
    )
