"""The short answer on top: how good, against what, and what to know before it is deployed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trainer.report import numbers
from trainer.report.charts.bars import span
from trainer.report.charts.intervals import Estimate, forest_chart
from trainer.report.charts.svg import Chart
from trainer.report.read import EVALUATION, Record, Run
from trainer.report.rivals import compare, is_adapter
from trainer.report.section import Section, lacking

LARGEST_ECE = 0.03
WEAK_F1 = 0.8
MANY_OPENINGS = 5

GOOD, WARN, BAD, UNKNOWN = "good", "warn", "bad", "unknown"


@dataclass(frozen=True, slots=True)
class Point:
    """One line of the verdict: its tone, what is so, and the figures behind it."""

    tone: str
    claim: str
    detail: str


def verdict(run: Run) -> Section:
    """Return the headline figures and the points in plain words."""
    title = "In short"
    if run.evaluation is None:
        return lacking("verdict", title, EVALUATION)
    evaluation = run.evaluation
    return Section(
        "verdict",
        title,
        {
            "accuracy": numbers.percent(evaluation["accuracy"]),
            "interval": numbers.interval(evaluation["accuracy_interval_95"]),
            "macro_f1": numbers.decimal(evaluation["macro_f1"]),
            "examples": numbers.count(evaluation["examples"]),
            "labels": len(evaluation["labels"]),
            "limited": evaluation.get("limited", False),
            "points": list(_points(run, evaluation)),
            "ladder": _ladder(run.duel) if run.duel else [],
            "rules": (
                f"Marked as a concern: a rival that is not clearly worse (p adjusted by Holm, "
                f"0.05), an answer outside the labels, accepted answers below the wanted "
                f"precision, a calibration error above {numbers.percent(LARGEST_ECE)}, a label "
                f"with an F1 below {WEAK_F1}, a hold-out opened more than {MANY_OPENINGS} times, "
                f"engines that disagree, a check of the data that is not all right."
            ),
        },
    )


def forest(duel: Record) -> Chart:
    """Return the accuracies of all candidates with their intervals."""
    return forest_chart(
        [
            Estimate(
                name=one["name"],
                value=one["accuracy"],
                low=one["accuracy_interval_95"][0],
                high=one["accuracy_interval_95"][1],
                ours=is_adapter(one),
            )
            for one in duel["candidates"]
        ],
        title="Accuracy on the same hold-out",
        caption=(
            "With 95% intervals. Overlapping intervals do not mean equal: the messages are the "
            "same, so the paired differences decide."
        ),
        x_title="accuracy",
    )


def _ladder(duel: Record) -> list[dict[str, object]]:
    """Return the candidates' accuracies with the bars of their intervals on one scale."""
    low = min(one["accuracy_interval_95"][0] for one in duel["candidates"])
    start = max(0.0, low - 0.25 * (1 - low))
    ordered = sorted(duel["candidates"], key=lambda one: (-one["accuracy"], one["name"]))

    def place(share: float) -> float:
        return (share - start) / (1 - start) if start < 1 else 1.0

    return [
        {
            "name": one["name"],
            "ours": is_adapter(one),
            "accuracy": numbers.percent(one["accuracy"]),
            "interval": numbers.interval(one["accuracy_interval_95"]),
            "bar": span(
                place(one["accuracy_interval_95"][0]),
                place(one["accuracy_interval_95"][1]),
                place(one["accuracy"]),
                "s1" if is_adapter(one) else "s5",
            ),
        }
        for one in ordered
    ]


def _points(run: Run, evaluation: Record) -> Iterator[Point]:
    yield _against_rivals(run)
    yield from _outside(evaluation)
    yield from _review(evaluation)
    yield from _calibrated(evaluation)
    yield from _weakest(evaluation)
    yield from _agreement(evaluation)
    yield from _checked(run)
    yield from _openings(run, evaluation)


def _against_rivals(run: Run) -> Point:
    found = compare(run.duel) if run.duel else None
    if found is None:
        return Point(
            UNKNOWN,
            "Not compared with simpler methods yet",
            "clerk-trainer duel trains and measures them on the same hold-out.",
        )
    size = numbers.points(abs(found.difference)).removeprefix("+")
    detail = (
        f"Difference {numbers.points(found.difference)} (95% interval "
        f"{numbers.points_interval(found.interval)}; p {_p(found.p)}); "
        f"{found.rival} reaches {numbers.percent(found.rival_accuracy)}."
    )
    if not found.is_clear:
        return Point(WARN, f"No clear difference from {found.rival}", detail)
    if found.difference > 0:
        return Point(GOOD, f"Better than {found.rival} by {size}", detail)
    return Point(BAD, f"Worse than {found.rival} by {size}", detail)


def _outside(evaluation: Record) -> Iterator[Point]:
    outside = evaluation.get("outside_labels")
    if not outside:
        return
    constrained, free = outside["constrained"], outside.get("unconstrained")
    detail = (
        f"Left free, it would have answered something else {numbers.times(free)} "
        f"({numbers.percent(outside.get('unconstrained_share'))})."
        if free is not None
        else "How often it would answer otherwise when left free was not measured."
    )
    number = len(evaluation["labels"])
    if constrained:
        claim = f"{numbers.counted(constrained, 'answer')} outside the {number} labels"
        yield Point(BAD, claim, detail)
    else:
        yield Point(GOOD, f"Every answer is one of the {number} labels", detail)


def _review(evaluation: Record) -> Iterator[Point]:
    review = evaluation.get("review") or {}
    share, accepted = review.get("share"), review.get("accepted_accuracy")
    if share is None or accepted is None:
        return
    wanted = review.get("wanted_precision")
    met = wanted is None or accepted >= wanted
    detail = f"{numbers.percent(1 - share)} run without a person"
    if wanted is not None:
        detail += f"; the aim for those is {numbers.percent(wanted)}"
    claim = f"{numbers.percent(share)} go to a person; of the rest {numbers.percent(accepted)}"
    yield Point(GOOD if met else WARN, f"{claim} are right", f"{detail}.")


def _calibrated(evaluation: Record) -> Iterator[Point]:
    error = (evaluation.get("calibration") or {}).get("ece")
    if error is None:
        return
    fine = error <= LARGEST_ECE
    claim = "Its confidence can be taken at face value" if fine else "Its confidence misleads"
    detail = (
        f"Confidence and accuracy are {numbers.points(error).removeprefix('+')} apart on average "
        "(expected calibration error)."
    )
    yield Point(GOOD if fine else WARN, claim, detail)


def _weakest(evaluation: Record) -> Iterator[Point]:
    present = [one for one in evaluation["per_label"] if one["support"]]
    if not present:
        return
    weak = min(present, key=lambda one: one["f1"])
    tone = WARN if weak["f1"] < WEAK_F1 else GOOD
    detail = (
        f"F1 {numbers.decimal(weak['f1'])}: {numbers.percent(weak['recall'])} of its "
        f"{numbers.counted(weak['support'], 'message')} found, "
        f"{numbers.percent(weak['precision'])} of the answers right."
    )
    yield Point(tone, f"The weakest label is {weak['label']}", detail)


def _agreement(evaluation: Record) -> Iterator[Point]:
    found = evaluation.get("agreement")
    if not found:
        return
    differ, messages = found["labels_differ"], numbers.counted(found["messages"], "message")
    detail = (
        f"Of {messages}; confidences differ by at most "
        f"{numbers.significant(found['max_confidence_difference'])}."
    )
    if differ:
        claim = f"The serving engine labels {numbers.counted(differ, 'message')} otherwise"
        yield Point(WARN, claim, detail)
    else:
        yield Point(GOOD, "The serving engine gives the same labels", detail)


def _checked(run: Run) -> Iterator[Point]:
    if run.check is None:
        return
    verdict = run.check["verdict"]
    found = [one["name"] for one in run.check["findings"] if one["verdict"] in {"warn", "fail"}]
    if verdict == "fail":
        yield Point(BAD, "The data failed its check", f"{', '.join(found)}.")
    elif found:
        yield Point(WARN, "The check of the data has concerns", f"{', '.join(found)}.")
    else:
        number = numbers.counted(len(run.check["findings"]), "check")
        yield Point(GOOD, "The data passed its check", f"{number}, nothing to do.")


def _openings(run: Run, evaluation: Record) -> Iterator[Point]:
    openings = run.openings
    if openings is None:
        openings = evaluation["dataset"].get("openings")
    if openings is None:
        return
    many = openings > MANY_OPENINGS
    claim = f"The hold-out has been opened {numbers.times(openings)}"
    detail = "Each look is a chance to tune to it; a fresh hold-out restores the figures' meaning."
    yield Point(WARN if many else GOOD, claim, detail)


def _p(p: float) -> str:
    written = numbers.probability(p)
    return written if written.startswith("<") else f"= {written}"
