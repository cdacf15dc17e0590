"""The short answer on top: how good, against what, and what to know before it is deployed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer import numbers
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.dataset.extra_files import TRAFFIC
from trainer.report.points import BAD, GOOD, MANY_OPENINGS, UNKNOWN, WARN, Point, tell_openings
from trainer.report.records import Drawn, Input, Run, Section, lacking, small
from trainer.report.sections.duel import RivalComparison, compare_with_rival, ladder
from trainer.statistics.metrics import wilson
from trainer.statistics.traffic import weighted_accuracy

LARGEST_ECE = 0.03
WEAK_F1 = 0.8


def verdict_section(run: Run) -> Section:
    """Return the headline figures and the points in plain words."""
    title = "In short"
    if run.evaluation is None:
        return lacking("verdict", title, Input.EVALUATION)
    evaluation = run.evaluation
    card = {
        "big": numbers.percent(evaluation.accuracy),
        "under": f"of {numbers.count(evaluation.examples)} held-out messages classified correctly",
        "interval": f"95% interval {numbers.interval(evaluation.accuracy_interval_95)}",
        "figures": [
            ("macro-F1", numbers.decimal(evaluation.macro_f1)),
            ("labels", len(evaluation.labels)),
        ],
        "limited": evaluation.limited,
        "points": list(_points(run, evaluation)),
        "ladder": ladder(run.duel) if run.duel else [],
    }
    recomputed = (
        "Before this page was drawn, every figure of the evaluation was computed again from its "
        "predictions, and agreed. "
        if run.predictions
        else ""
    )
    rules = (
        f"{recomputed}Marked as a concern: a rival that is better, a baseline that does as well "
        "within the duel's margin or cannot be told from it, an answer outside the labels, "
        "accepted answers shown to be below the adapter's promise, a calibration error above "
        f"{numbers.percent(LARGEST_ECE)}, a label with an F1 below {WEAK_F1}, a hold-out opened "
        f"more than {MANY_OPENINGS} times, engines that disagree, a check of the data that is not "
        "all right, an accuracy that an audit of the labels contradicts. Whether it may be "
        "deployed is decided by the gate of clerk-trainer publish, not here."
    )
    return Section(
        "verdict", title, [Drawn("card", card), small(tell_what_counts(run)), small(rules)]
    )


_DISTINCT = (
    "The accuracy is about distinct messages with one label: a text counts once however often it "
    "came, and one that came under several labels is left out."
)


def tell_what_counts(run: Run) -> str:
    """Say which messages the accuracy is about, and what it is by traffic where that is known."""
    said = [_DISTINCT]
    traffic = ((run.dataset or {}).get("counts") or {}).get(TRAFFIC) or {}
    if run.copies is None:
        said.append("How often each came was not counted.")
        return " ".join(said)
    ambiguous, rows = traffic.get("ambiguous", 0), traffic.get("rows", 0)
    if ambiguous:
        share = numbers.percent(ambiguous / (rows + ambiguous))
        said.append(
            f"Of the {numbers.counted(rows + ambiguous, 'row')} of the export that fell to the "
            f"hold-out {numbers.count(ambiguous)} ({share}) are left out for that."
        )
    if not run.copies:
        said.append("None of the held-out messages came twice.")
    elif run.predictions:
        right = np.array([each.label == each.predicted for each in run.predictions])
        weights = np.array([run.copies.get(each.id, 1) for each in run.predictions])
        accuracy, interval = weighted_accuracy(right, weights)
        said.append(
            f"Weighted by how often each came, {numbers.percent(accuracy)} are right (95% interval "
            f"{numbers.interval(interval)})."
        )
    return " ".join(said)


def _points(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    yield _against_rivals(run)
    yield from _audited(run, evaluation)
    yield _outside(evaluation)
    yield from _review(run, evaluation)
    yield _calibrated(evaluation)
    yield from _weakest(evaluation)
    yield from _agreement(evaluation)
    yield from _checked(run)
    yield _openings(run, evaluation)


def _audited(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    if (found := run.audit) is None:
        return
    low, high = found.corrected_accuracy_interval_95
    yield Point(
        GOOD if low <= evaluation.accuracy <= high else WARN,
        f"By the true labels {numbers.percent(found.corrected_accuracy)} right",
        f"95% interval {numbers.interval(found.corrected_accuracy_interval_95)}. A person labelled "
        f"{numbers.count(found.audited)} held-out messages blind: "
        f"{numbers.percent(found.label_error_rate)} of the hold-out's labels are wrong "
        f"({numbers.interval(found.label_error_rate_interval_95)}).",
    )


def _against_rivals(run: Run) -> Point:
    duel = run.duel
    found = compare_with_rival(duel, _judged_rival(duel)) if duel else None
    if duel is None or found is None:
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
    if duel.conclusion is not None:
        return _concluded(duel, found, detail)
    if not found.is_clear:
        return Point(WARN, f"No clear difference from {found.rival}", detail)
    if found.difference > 0:
        return Point(GOOD, f"Better than {found.rival} by {size}", detail)
    return Point(BAD, f"Worse than {found.rival} by {size}", detail)


def _judged_rival(duel: DuelRecord) -> str | None:
    """Return the candidate that the duel's conclusion is about; None: the most accurate one."""
    named = {
        "better": duel.recommendation,
        "not_worse": duel.recommendation,
        "undecided": duel.tested_baseline,
        "adapter": duel.tested_baseline,
    }
    return named.get(duel.conclusion or "")


def _concluded(duel: DuelRecord, found: RivalComparison, detail: str) -> Point:
    """Return the duel's own conclusion; ``found`` and ``detail`` are of the candidate that it is
    about."""
    margin = numbers.points(duel.margin).removeprefix("+")
    if duel.conclusion == "better":
        return Point(BAD, f"Worse than {found.rival}", detail)
    if duel.conclusion == "not_worse":
        claim = f"{found.rival} does the job within {margin}, without a GPU"
        return Point(WARN, claim, detail)
    if duel.conclusion == "undecided":
        claim = f"Too few messages to tell it from {found.rival} within {margin}"
        needed = f" {numbers.counted(duel.required_messages or 0, 'message')} would."
        return Point(WARN, claim, detail + needed)
    size = numbers.points(abs(found.difference)).removeprefix("+")
    claim = f"Better than {found.rival}, the best baseline on validation, by {size}"
    return Point(GOOD, claim, detail)


def _outside(evaluation: EvaluationRecord) -> Point:
    outside, number = evaluation.outside_labels, len(evaluation.labels)
    detail = (
        f"Left free, it would have answered something else {numbers.times(outside.unconstrained)} "
        f"({numbers.percent(outside.unconstrained_share)})."
        if outside.unconstrained is not None
        else "How often it would answer otherwise when left free was not measured."
    )
    if outside.constrained:
        claim = f"{numbers.counted(outside.constrained, 'answer')} outside the {number} labels"
        return Point(BAD, claim, detail)
    return Point(GOOD, f"Every answer is one of the {number} labels", detail)


def promised(run: Run) -> float:
    """Return the precision that the adapter promises of what it answers without a person: that of
    its recipe; of a training that recorded none, what its evaluation was asked for."""
    found = run.training.recipe.get("review_precision")
    if found is None and run.evaluation is not None:
        found = run.evaluation.review.wanted_precision
    return float(found if found is not None else 0.95)


def promise_is_broken(run: Run, evaluation: EvaluationRecord) -> bool:
    """Whether the hold-out shows that fewer are right than was promised: the interval of the share
    that is right lies below it."""
    accepted = round(evaluation.examples * (1 - evaluation.review.share))
    share = evaluation.review.accepted_accuracy
    if share is None or not accepted:
        return False
    return wilson(round(share * accepted), accepted)[1] < promised(run)


def _review(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    review = evaluation.review
    accepted, promise = review.accepted_accuracy, promised(run)
    if accepted is None:
        return
    detail = (
        f"{numbers.percent(1 - review.share)} run without a person; the adapter promises "
        f"{numbers.percent(promise)} of those."
    )
    broken = promise_is_broken(run, evaluation)
    if accepted < promise and not broken:
        detail += " So few messages do not show that it is missed."
    claim = (
        f"{numbers.percent(review.share)} go to a person; of the rest {numbers.percent(accepted)} "
        "are right"
    )
    yield Point(WARN if broken else GOOD, claim, detail)


def _calibrated(evaluation: EvaluationRecord) -> Point:
    error = evaluation.calibration.ece
    fine = error <= LARGEST_ECE
    claim = "Its confidence can be taken at face value" if fine else "Its confidence misleads"
    detail = (
        f"Confidence and accuracy are {numbers.points(error).removeprefix('+')} apart on average "
        "(expected calibration error)."
    )
    return Point(GOOD if fine else WARN, claim, detail)


def _weakest(evaluation: EvaluationRecord) -> Iterator[Point]:
    present = [figures for figures in evaluation.per_label if figures.support]
    if not present:
        return
    weak = min(present, key=lambda figures: figures.f1)
    detail = (
        f"F1 {numbers.decimal(weak.f1)}: {numbers.percent(weak.recall)} of its "
        f"{numbers.counted(weak.support, 'message')} found, "
        f"{numbers.percent(weak.precision)} of the answers right."
    )
    tone = WARN if weak.f1 < WEAK_F1 else GOOD
    yield Point(tone, f"The weakest label is {weak.label}", detail)


def _agreement(evaluation: EvaluationRecord) -> Iterator[Point]:
    found = evaluation.agreement
    if found is None:
        return
    differ, messages = found.labels_differ, numbers.counted(found.messages, "message")
    detail = (
        f"Of {messages}; confidences differ by at most "
        f"{numbers.significant(found.max_confidence_difference)}."
    )
    if differ:
        claim = f"The serving engine labels {numbers.counted(differ, 'message')} otherwise"
        yield Point(WARN, claim, detail)
    else:
        yield Point(GOOD, "The serving engine gives the same labels", detail)


def _checked(run: Run) -> Iterator[Point]:
    if run.check is None:
        return
    findings = run.check.findings
    concerns = [finding.name for finding in findings if finding.verdict in {"warn", "fail"}]
    if run.check.verdict == "fail":
        yield Point(BAD, "The data failed its check", f"{', '.join(concerns)}.")
    elif concerns:
        yield Point(WARN, "The check of the data has concerns", f"{', '.join(concerns)}.")
    else:
        number = numbers.counted(len(findings), "check")
        yield Point(GOOD, "The data passed its check", f"{number}, nothing to do.")


def _openings(run: Run, evaluation: EvaluationRecord) -> Point:
    openings = evaluation.dataset.openings if run.openings is None else run.openings
    detail = "Each look is a chance to tune to it; a fresh hold-out restores the figures' meaning."
    return Point(WARN if openings > MANY_OPENINGS else GOOD, tell_openings(openings), detail)


def _p(p: float) -> str:
    written = numbers.probability(p)
    return written if written.startswith("<") else f"= {written}"
