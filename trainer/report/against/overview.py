"""Two runs in short: both figures with intervals, and whether the difference is more than luck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.report import numbers
from trainer.report.against.facts import TwoRuns
from trainer.report.points import BAD, GOOD, UNKNOWN, WARN, Point
from trainer.report.records import Section
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    mcnemar_exact,
    minimum_detectable_difference,
)
from trainer.statistics.paired import paired_interval, unpaired_interval


def overview_section(two: TwoRuns) -> Section:
    """Return both headlines, the difference with its interval and test, and what it means."""
    title = "In short"
    evaluations = [run.evaluation for run in (two.mine, two.theirs)]
    if None in evaluations:
        return Section("both", title, missing=f"Nothing to compare: {two.apart}.")
    mine, theirs = (found for found in evaluations if found is not None)
    return Section(
        "both",
        title,
        {
            "runs": [
                {
                    "name": name,
                    "accuracy": numbers.percent(found.accuracy),
                    "interval": numbers.interval(found.accuracy_interval_95),
                    "macro_f1": numbers.decimal(found.macro_f1),
                    "examples": numbers.count(found.examples),
                }
                for name, found in zip(two.names, (mine, theirs), strict=True)
            ],
            "points": list(_points(two, mine, theirs)),
            "figures": _figures(two, mine, theirs),
            "apart": two.apart,
        },
    )


def _points(two: TwoRuns, mine: EvaluationRecord, theirs: EvaluationRecord) -> Iterator[Point]:
    found = two.found
    yield _unpaired(two, mine, theirs) if found is None else _paired(two, found)
    if found is not None:
        first, second = two.names
        yield Point(
            GOOD if found.a_only >= found.b_only else WARN,
            f"{numbers.counted(found.a_only, 'message')} right with {first} alone, "
            f"{numbers.count(found.b_only)} with {second} alone",
            f"They agree in being right or wrong on {numbers.percent(1 - found.share)} of "
            f"{numbers.counted(found.total, 'message')}.",
        )
        least = minimum_detectable_difference(found.share, found.independent)
        yield Point(
            GOOD,
            f"So many messages find a difference of {numbers.points(least).removeprefix('+')}",
            "Four times in five, where two runs differ on as many of them (McNemar's test).",
        )


def _paired(two: TwoRuns, found: Discordance) -> Point:
    first, second = two.names
    p = mcnemar_exact(found)
    interval = paired_interval(found)
    detail = (
        f"Difference {numbers.points(found.difference)} on the same "
        f"{numbers.counted(found.total, 'message')}, 95% interval "
        f"{numbers.points_interval(interval)} (Tango's); p "
        f"{_p(p)} (McNemar's exact test)."
    )
    size = numbers.points(abs(found.difference)).removeprefix("+")
    if p >= ALPHA:
        return Point(WARN, f"{first} and {second} cannot be told apart", detail)
    if found.difference > 0:
        return Point(GOOD, f"{first} is better than {second} by {size}", detail)
    return Point(BAD, f"{first} is worse than {second} by {size}", detail)


def _unpaired(two: TwoRuns, mine: EvaluationRecord, theirs: EvaluationRecord) -> Point:
    hits = [round(found.accuracy * found.examples) for found in (mine, theirs)]
    first, second = (
        (count / each.design_effect, each.examples / each.design_effect)
        for count, each in zip(hits, (mine, theirs), strict=True)
    )
    interval = unpaired_interval(first, second)
    difference = mine.accuracy - theirs.accuracy
    detail = (
        f"Difference {numbers.points(difference)}, 95% interval "
        f"{numbers.points_interval(interval)} (Newcombe's, of different messages): {two.apart}. "
        "The messages may be easier on one side. Evaluate both on one hold-out to compare them."
    )
    told = "The figures are of different messages"
    return Point(UNKNOWN, told, detail)


def _figures(
    two: TwoRuns, mine: EvaluationRecord, theirs: EvaluationRecord
) -> list[tuple[str, str, str, str]]:
    """Return the other figures side by side, with their plain differences."""
    rows: list[tuple[str, str, str, str]] = []

    def add(name: str, values: tuple[float | None, float | None], write: Any, less: Any) -> None:
        a, b = values
        difference = numbers.NONE if a is None or b is None else less(a - b)
        rows.append((name, write(a), write(b), difference))

    def plain(difference: float) -> str:
        return numbers.signed(difference, 3)

    percent, decimal, points = numbers.percent, numbers.decimal, numbers.points
    add("accuracy", (mine.accuracy, theirs.accuracy), percent, points)
    add("macro-F1", (mine.macro_f1, theirs.macro_f1), decimal, plain)
    review = mine.review, theirs.review
    add("goes to a person", (review[0].share, review[1].share), percent, points)
    accepted = (review[0].accepted_accuracy, review[1].accepted_accuracy)
    add("right of the rest", accepted, percent, points)
    fit = mine.calibration, theirs.calibration
    add("calibration error", (fit[0].ece, fit[1].ece), percent, points)
    add("negative log-likelihood", (fit[0].nll, fit[1].nll), decimal, plain)
    validation = two.mine.training.validation, two.theirs.training.validation
    name = "accuracy on validation"
    add(name, (validation[0].accuracy, validation[1].accuracy), percent, points)
    return rows


def _p(p: float) -> str:
    written = numbers.probability(p)
    return written if written.startswith("<") else f"= {written}"
