"""The adapter against simpler methods on the same messages, and its most accurate rival."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.artifacts.duel import CandidateFigures, DuelRecord
from trainer.report import numbers
from trainer.report.charts.bars import span
from trainer.report.charts.intervals import Estimate, forest_chart
from trainer.report.charts.svg import Chart
from trainer.report.page import Section, lacking
from trainer.report.records import Input, Run
from trainer.statistics.paired import ALPHA


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
                    ),
                )
                for pair in run.duel.pairs
            ],
            "detectable": detectable.removeprefix("+"),
            "verdict": run.duel.verdict,
            "recommendation": run.duel.recommendation,
        },
    )


def forest(duel: DuelRecord) -> Chart:
    """Return the accuracies of all candidates with their intervals."""
    return forest_chart(
        [
            Estimate(
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


def compare_with_rival(duel: DuelRecord) -> RivalComparison | None:
    """Return the comparison that matters most, None where the duel lacks it."""
    ours = next(filter(_is_adapter, duel.candidates), None)
    rivals = [candidate for candidate in duel.candidates if not _is_adapter(candidate)]
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


def _is_adapter(candidate: CandidateFigures) -> bool:
    return candidate.kind == "adapter"


def _ranked(duel: DuelRecord) -> list[CandidateFigures]:
    return sorted(duel.candidates, key=lambda candidate: (-candidate.accuracy, candidate.name))
