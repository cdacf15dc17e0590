"""How good a run is: the short answer on top, the gate's rows, simpler methods, and the cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from markupsafe import Markup

from trainer import facts, numbers
from trainer.artifacts.duel import CostRecord, DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.cost import describe_margin
from trainer.dataset.extra_files import TRAFFIC
from trainer.facts import Table
from trainer.report.charts import Chart, Line, Mark, line_chart, span
from trainer.report.page import (
    BAD,
    GOOD,
    MANY_OPENINGS,
    UNKNOWN,
    WARN,
    Block,
    Drawn,
    Point,
    Section,
    Titled,
    small,
    tell_openings,
)
from trainer.report.run import ADAPTER_FOLDER, Input, Judged, Run, lacking
from trainer.statistics.metrics import weighted_accuracy, wilson
from trainer.store.rules import Criterion

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
        "deployed is decided by the gate of `clerk-trainer publish`, not here."
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
    """Return the duel's own conclusion, with the figures of the candidate that it is about."""
    if (duel := run.duel) is None:
        return Point(
            UNKNOWN,
            "Not compared with simpler methods yet",
            "clerk-trainer duel trains and measures them on the same hold-out.",
        )
    shipped = duel.conclusion in {"better", "not_worse"}
    rival = duel.recommendation if shipped else duel.tested_baseline
    pair = next(pair for pair in duel.pairs if pair.b == rival)
    reached = next(each.accuracy for each in duel.candidates if each.name == rival)
    p = numbers.probability(pair.p_holm)
    detail = (
        f"Difference {numbers.points(pair.difference)} (95% interval "
        f"{numbers.points_interval(pair.interval_95)}; p {p if p.startswith('<') else f'= {p}'}); "
        f"{rival} reaches {numbers.percent(reached)}."
    )
    margin, size = _unsigned(duel.margin), _unsigned(abs(pair.difference))
    match duel.conclusion:
        case "better":
            return Point(BAD, f"Worse than {rival}", detail)
        case "not_worse":
            return Point(WARN, f"{rival} does the job within {margin}, without a GPU", detail)
        case "undecided":
            claim = f"Too few messages to tell it from {rival} within {margin}"
            needed = numbers.counted(duel.required_messages, "message")
            return Point(WARN, claim, f"{detail} {needed} would.")
        case "adapter":
            claim = f"Better than {rival}, the best baseline on validation, by {size}"
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


# The gate's rows: what an adapter must show before it is published, and what this one shows.

_AT_ONCE = 4
"""Rows of labels that pass which are shown unfolded: of eleven that do there is little to read."""


_RECALL = "recall of "


@dataclass(frozen=True, slots=True)
class GateRow:
    """A criterion as the page draws it; ``interval`` and its ``bar`` are those of a share."""

    name: str
    wanted: str
    found: str
    passed: bool
    interval: str = ""
    bar: Markup | None = None


def gate_section(run: Run) -> Section:
    """Return each criterion as the gate prints it: wanted, found, passed or not."""
    title = "Would the gate let it pass?"
    if run.evaluation is None:
        return lacking("gate", title, Input.EVALUATION)
    if run.gate is None:
        missing = f"There is no {ADAPTER_FOLDER}/ in the run folder: the gate judges an adapter."
        return Section("gate", title, missing=missing)
    judged = run.gate
    rows = [
        GateRow(each.name, each.wanted, each.found, each.passed, *_bounds(each, run.evaluation))
        for each in judged.criteria
    ]
    quiet = [row for row in rows if row.name.startswith(_RECALL) and row.passed]
    folded = quiet if len(quiet) > _AT_ONCE else []
    failed = sum(not row.passed for row in rows)
    told = f"Each of its {len(rows)} criteria is met."
    if failed:
        told = (
            f"{failed} of {len(rows)} criteria {'is' if failed == 1 else 'are'} not met: "
            "`clerk-trainer publish` would refuse it."
        )
    compared = (
        f"Compared with the adapter that is current in {judged.store}."
        if judged.store
        else "Whether it is as good as the adapter that is current was not asked: `--store` names "
        "the store to ask."
    )
    blocks: list[Block] = [f"{told} {compared}", _listed(row for row in rows if row not in folded)]
    if folded:
        blocks.append(
            Titled(f"{len(folded)} labels whose recall passes", _listed(folded), folded=True)
        )
    if judged.hint:
        blocks.append(small(judged.hint))
    return Section("gate", title, [*blocks, Titled("the rules", _rules(judged), folded=True)])


def gate_rows(rows: Sequence[GateRow]) -> list[Block]:
    """Return the rows that fail, and folded those that pass."""
    failed = [row for row in rows if not row.passed]
    passed = [row for row in rows if row.passed]
    title = f"{len(passed)} criteria that are met"
    return [_listed(failed), Titled(title, _listed(passed), folded=True)]


def _listed(rows: Iterable[GateRow]) -> Block:
    return Drawn("gate", {"rows": list(rows)})


def _bounds(criterion: Criterion, evaluation: EvaluationRecord) -> tuple[str, Markup] | tuple[()]:
    """Return the 95 % interval of a criterion that is a share of messages, with its bar."""
    name = criterion.name
    if name.startswith("accuracy"):
        interval, value = evaluation.accuracy_interval_95, evaluation.accuracy
    elif name.startswith(_RECALL):
        label = name.removeprefix(_RECALL).partition(",")[0]
        found = next((each for each in evaluation.per_label if each.label == label), None)
        if found is None or not found.support:
            return ()
        interval, value = facts.recall_interval(found), found.recall
    else:
        return ()
    return numbers.interval(interval), span(*interval, value)


def _rules(judged: Judged) -> list[tuple[str, str]]:
    rules = asdict(judged.rules)
    return [
        (name, "not judged" if value is None else numbers.written(value))
        for name, value in rules.items()
    ]


# What else could do the job, and what each way costs.


def duel_section(run: Run) -> Section:
    """Return the candidates, their paired differences, and the duel's verdict."""
    title = "Against simpler methods"
    duel = run.duel
    if duel is None:
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
