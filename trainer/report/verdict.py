"""How good a run is: the summary, the gate's rows, simpler methods, and the cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
from markupsafe import Markup

from trainer import facts, numbers
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import Answer, EvaluationRecord
from trainer.cost import describe_margin
from trainer.dataset.extra_files import TRAFFIC
from trainer.report.charts import span
from trainer.report.page import (
    BAD,
    GOOD,
    MANY_OPENINGS,
    UNKNOWN,
    WARN,
    Block,
    Content,
    Drawn,
    Point,
    Titled,
    check_point,
    describe_openings,
    readable,
    small,
)
from trainer.report.run import ADAPTER_FOLDER, Input, Judged, Run, lacks
from trainer.statistics.figures import Figures
from trainer.statistics.metrics import as_groups, share_interval, weighted_accuracy
from trainer.store.rules import Criterion

WEAK_F1 = 0.8


def verdict_section(run: Run) -> Content:
    """Return the headline figures and the points."""
    if run.evaluation is None:
        return lacks(Input.EVALUATION)
    evaluation = run.evaluation
    low, high = (round(100 * end) for end in evaluation.accuracy_interval_95)
    review = evaluation.review.share
    card = {
        "big": numbers.of_100(evaluation.accuracy),
        "under": (
            f"of 100 messages get the right label, by {numbers.count(evaluation.examples)} that "
            "were kept aside for this test"
        ),
        "interval": f"with other messages it could be {low} to {high}",
        "figures": [
            ("of 100 it files by itself", numbers.of_100(1 - review)),
            ("of 100 for a reviewer", numbers.of_100(review)),
        ],
        "points": list(_points(run, evaluation)),
    }
    recomputed = (
        "Every figure of the evaluation was recomputed from its predictions for this page. "
        if run.predictions
        else ""
    )
    rules = (
        f"{recomputed}The page marks as a concern: a criterion that the gate of `clerk-trainer "
        "publish` refuses; a better rival; a baseline that is as good within the duel's margin, or "
        "may be; accepted answers below the promised precision; a label with an F1 below "
        f"{WEAK_F1}; a hold-out opened more than {MANY_OPENINGS} times; a check of the data with "
        "findings; an audit of the labels that contradicts the accuracy."
    )
    blocks: list[Block] = [Drawn("card", card)]
    if evaluation.taught:
        title_ = "The adapter, its teacher, and people"
        blocks.append(Titled(title_, list(facts.taught(evaluation.taught))))
    about = f"{describe_accuracy(run)} {rules}"
    return [*blocks, Titled("How this page counts and what it marks", about, folded=True)]


def describe_accuracy(run: Run) -> str:
    """Return which messages the accuracy counts, and the accuracy weighted by traffic if known."""
    counted = (
        "The accuracy counts distinct messages with one label: a repeated text counts once, and a "
        "text with several labels is left out."
    )
    traffic = ((run.dataset or {}).get("counts") or {}).get(TRAFFIC) or {}
    if run.copies is None:
        return f"{counted} Repeats were not counted."
    sentences = [counted]
    if sources := run.evaluation.dataset.holdout_sources if run.evaluation else {}:
        sentences.append(f"Its labels are by: {facts.sources_in_words(sources)}.")
    ambiguous, rows = traffic.get("ambiguous", 0), traffic.get("rows", 0)
    if ambiguous:
        share = numbers.percent(ambiguous / (rows + ambiguous))
        sentences.append(
            f"Of the export's {numbers.counted(rows + ambiguous, 'row')} in the hold-out, "
            f"{numbers.count(ambiguous)} ({share}) have several labels."
        )
    if not run.copies:
        sentences.append("No held-out message is repeated.")
    elif run.predictions:
        right = np.array([each.label == each.predicted for each in run.predictions])
        weights = np.array([run.copies.get(each.id, 1) for each in run.predictions])
        groups = as_groups([each.group for each in run.predictions])
        accuracy, interval = weighted_accuracy(right, weights, groups)
        sentences.append(
            f"Weighted by how often each message occurred, {numbers.percent(accuracy)} are right "
            f"(95% interval {numbers.interval(interval)})."
        )
    return " ".join(sentences)


def _points(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    yield from _gated(run)
    yield from _review(run, evaluation)
    yield from _weakest(run, evaluation)
    yield from _audited(run, evaluation)
    yield _against_rivals(run)
    if run.check is not None:
        yield check_point(run.check)
    yield from _openings(run, evaluation)


def _gated(run: Run) -> Iterator[Point]:
    """Yield the gate's verdict, which covers answers outside the labels and the calibration too."""
    if run.gate is None:
        return
    verdict = run.gate.verdict
    failed, number = verdict.failed, len(verdict.criteria)
    if not failed:
        yield Point(GOOD, f"It may be published: it meets all {number} criteria of the gate", "")
        return
    claim = f"Not to be published yet: it fails {len(failed)} of {number} criteria of the gate"
    if verdict.undecided:
        claim = f"Too few messages to decide {len(failed)} of {number} criteria of the gate"
    more = f", and {len(failed) - _AT_ONCE} more" if len(failed) > _AT_ONCE else ""
    tone = WARN if verdict.undecided else BAD
    yield Point(tone, claim, f"{', '.join(failed[:_AT_ONCE])}{more}.")


def _audited(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    if (found := run.audit) is None:
        return
    low, high = found.corrected_accuracy_interval_95
    yield Point(
        GOOD if low <= evaluation.accuracy <= high else WARN,
        f"Measured against true labels, {numbers.percent(found.corrected_accuracy)} are right",
        f"95% interval {numbers.interval(found.corrected_accuracy_interval_95)}. A reviewer "
        f"labelled {numbers.count(found.audited)} held-out messages blind: "
        f"{numbers.percent(found.label_error_rate)} of the hold-out's labels are wrong "
        f"({numbers.interval(found.label_error_rate_interval_95)}).",
    )


_IN_WORDS = {"tfidf": "counting words", "embeddings": "the base without fine-tuning"}


def _against_rivals(run: Run) -> Point:
    """Return the duel's conclusion with the figures of the candidate that it names."""
    if (duel := run.duel) is None:
        return Point(
            UNKNOWN,
            "Not compared with simpler methods yet",
            "clerk-trainer duel trains them and measures them on the same hold-out.",
        )
    shipped = duel.conclusion in {"better", "not_worse"}
    rival = duel.recommendation if shipped else duel.tested_baseline
    pair = next(pair for pair in duel.pairs if pair.b == rival)
    reached = next(each.accuracy for each in duel.candidates if each.name == rival)
    rival = _IN_WORDS.get(rival, rival)
    detail = f"{rival} gets {numbers.of_100(reached)} of 100 right."
    margin, size = numbers.unsigned(duel.margin), numbers.unsigned(abs(pair.difference))
    match duel.conclusion:
        case "better":
            return Point(BAD, f"Worse than {rival}", detail)
        case "not_worse":
            return Point(WARN, f"{rival} is as good within {margin} and needs no GPU", detail)
        case "undecided":
            claim = f"Too few messages to tell whether {rival} is as good"
            needed = numbers.counted(duel.required_messages, "message")
            return Point(WARN, claim, f"{detail} It takes {needed} to tell within {margin}.")
        case "adapter":
            claim = f"Better than {rival}, the best simpler method on validation, by {size}"
            return Point(GOOD, claim, detail)


def promised(run: Run) -> float:
    """Return the precision that the adapter promises for answers without review: that of its
    recipe, or without one the precision that its evaluation was asked for."""
    found = run.training.recipe.get("review_precision")
    if found is None and run.evaluation is not None:
        found = run.evaluation.review.wanted_precision
    return float(found if found is not None else 0.95)


def promise_is_broken(run: Run, evaluation: EvaluationRecord) -> bool:
    """Whether the hold-out contradicts the promise: the 95 % interval of the precision lies below
    it. A point value below the promise is not enough, because chance explains that."""
    accepted = round(evaluation.examples * (1 - evaluation.review.share))
    share = evaluation.review.accepted_accuracy
    if share is None or not accepted:
        return False
    # With the design effect, as in the gate: messages of one thread are right or wrong together.
    return share_interval(share, accepted, evaluation.design_effect)[1] < promised(run)


def _review(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    review = evaluation.review
    accepted, promise = review.accepted_accuracy, promised(run)
    if accepted is None:
        return
    detail = f"Promised: at least {numbers.of_100(promise)} of 100."
    broken = promise_is_broken(run, evaluation)
    if accepted < promise and not broken:
        detail += " The difference is within the uncertainty of so few messages."
    claim = (
        f"It files {numbers.of_100(1 - review.share)} of 100 messages by itself; of these "
        f"{numbers.of_100(accepted)} of 100 were right"
    )
    yield Point(WARN if broken else GOOD, claim, detail)


_MOST_WEAK, _EXAMPLES, _EXAMPLE_CHARS = 3, 2, 90


def _weakest(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    """Yield the labels with the lowest F1 below ``WEAK_F1``, each with two of its mistakes."""
    weak = [figures for figures in evaluation.per_label if figures.support and figures.f1 < WEAK_F1]
    mistakes = run.mistakes
    for figures in sorted(weak, key=lambda figures: figures.f1)[:_MOST_WEAK]:
        found = round(figures.recall * figures.support)
        its = (each for each in mistakes if figures.label in {each.label, each.predicted})
        examples = "; ".join(_example(run, each) for each in islice(its, _EXAMPLES))
        yield Point(
            WARN,
            f"Weak: {figures.label}",
            f"{numbers.count(found)} of its {numbers.counted(figures.support, 'message')} found, "
            f"{numbers.of_100(figures.precision)} of 100 answers right.",
            f"For example {examples}." if examples else "",
        )


def _example(run: Run, answer: Answer) -> str:
    """Return a mistake in words, with the message's beginning if the page shows texts."""
    text = (run.texts or {}).get(answer.id)
    named = f"message {readable(answer.id)}"
    if text is not None:
        start = " ".join(readable(text).split())
        named = f"“{start[:_EXAMPLE_CHARS]}{'…' if len(start) > _EXAMPLE_CHARS else ''}”"
    return f"{named} is {answer.label} and was taken for {answer.predicted}"


def _openings(run: Run, evaluation: EvaluationRecord) -> Iterator[Point]:
    """Yield how often the hold-out was opened, once it is so often that it matters."""
    openings = evaluation.dataset.openings if run.openings is None else run.openings
    if openings > MANY_OPENINGS:
        detail = "Every opening can bias later choices towards it. A new hold-out removes the bias."
        yield Point(WARN, describe_openings(openings), detail)


# The gate's rows.

_AT_ONCE = 4
"""At most so many passing labels are shown, and failed criteria in the summary."""


_RECALL = "recall of "


@dataclass(frozen=True, slots=True)
class GateRow:
    """A criterion as the page shows it; ``interval`` and ``bar`` only if it is a share."""

    name: str
    wanted: str
    found: str
    verdict: str
    interval: str = ""
    bar: Markup | None = None

    @property
    def passed(self) -> bool:
        """Whether it is met."""
        return self.verdict == "pass"


def gate_section(run: Run) -> Content:
    """Return each criterion as the gate prints it: wanted, found, passed or not."""
    if run.evaluation is None:
        return lacks(Input.EVALUATION)
    if run.gate is None:
        return f"The run folder has no {ADAPTER_FOLDER}/, so the gate has nothing to judge."
    judged, settled = run.gate, run.gate.verdict.settled
    rows = [
        GateRow(each.name, each.wanted, each.found, each.verdict, *_bounds(each, settled))
        for each in judged.verdict.criteria
    ]
    quiet = [row for row in rows if row.name.startswith(_RECALL) and row.passed]
    folded = quiet if len(quiet) > _AT_ONCE else []
    failed = sum(not row.passed for row in rows)
    summary = f"It meets all {len(rows)} criteria."
    if failed:
        summary = (
            f"It fails {failed} of {len(rows)} criteria: `clerk-trainer publish` would refuse it."
        )
    compared = (
        f"Compared with the current adapter in {judged.store}."
        if judged.store
        else "Judged as the first adapter of a store: name a store with `--store` to compare it "
        "with the current one."
    )
    shown = _listed(row for row in rows if row not in folded)
    blocks: list[Block] = [f"{summary} {compared}", shown]
    if folded:
        blocks.append(
            Titled(f"Recall of {len(folded)} labels that pass", _listed(folded), folded=True)
        )
    if judged.hint:
        blocks.append(small(judged.hint))
    return [*blocks, Titled("The rules", _rules(judged), folded=True)]


def gate_rows(rows: Sequence[GateRow]) -> list[Block]:
    """Return the rows that fail, followed by the rows that pass, folded."""
    failed = [row for row in rows if not row.passed]
    passed = [row for row in rows if row.passed]
    title = f"{len(passed)} criteria pass"
    return [_listed(failed), Titled(title, _listed(passed), folded=True)]


def _listed(rows: Iterable[GateRow]) -> Block:
    return Drawn("gate", {"rows": list(rows)})


def _bounds(criterion: Criterion, settled: Figures | None) -> tuple[str, Markup] | tuple[()]:
    """Return the 95 % interval of a criterion that is a share of messages, with its bar."""
    name = criterion.name
    if settled is None:
        return ()
    if name.startswith("accuracy"):
        interval, value = settled.interval, settled.accuracy
    elif name.startswith(_RECALL):
        label = name.removeprefix(_RECALL).partition(" after review")[0]
        found = next((each for each in settled.per_label if each.label == label), None)
        if found is None or not found.support:
            return ()
        interval, value = facts.recall_interval(found), found.recall
    else:
        return ()
    return numbers.interval(interval), span(*interval, value)


def _rules(judged: Judged) -> list[tuple[str, str]]:
    rules = asdict(judged.rules)
    return [
        (name, "not checked" if value is None else numbers.written(value))
        for name, value in rules.items()
    ]


# Simpler methods.


def duel_section(run: Run) -> Content:
    """Return the candidates, their paired differences, and the duel's verdict."""
    duel = run.duel
    if duel is None:
        return lacks(Input.DUEL)
    verdict = f"{duel.verdict} Recommended: {duel.recommendation}."
    table = facts.candidates(duel)
    bars = (rung["bar"] for rung in ladder(duel))
    rows = [(*row[:3], bar_, *row[3:]) for row, bar_ in zip(table.rows, bars, strict=True)]
    columns = (*table.columns[:3], "", *table.columns[3:])
    margin = numbers.unsigned(duel.margin)
    notes = (
        "All methods answered the same messages. Only messages on which exactly one of two is "
        "right distinguish them, so overlapping intervals do not mean equal. p: McNemar's exact "
        "test with Holm's adjustment for all pairs. Outside: answers that are not labels; for the "
        "adapter, those that it would give without the serving constraint. At worst: the end of "
        "the one-sided 95% interval of the second method's difference from the first. p (margin): "
        f"the p-value of the second being {margin} or more worse (Tango's test). "
        f"{duel.tested_baseline} is tested for this, as the best baseline on validation. An "
        "equally good baseline passes four times in five with "
        f"{numbers.count(duel.required_messages)} messages. A hold-out of this size detects "
        f"differences of at least {numbers.unsigned(duel.minimum_detectable_difference)}."
    )
    return [
        Markup('<span class="lead">{}</span>').format(verdict),
        replace(table, columns=columns, rows=rows),
        Titled("Paired differences", facts.pairs(duel)),
        small(notes),
        *_elsewhere(duel),
        *([small(describe_margin(run.cost, duel.margin))] if run.cost else []),
    ]


def _elsewhere(duel: DuelRecord) -> list[Any]:
    """Return what models that run elsewhere took, and whether the adapter can replace them."""
    table = facts.elsewhere(duel)
    if table is None:
        return []
    constrained = {each.elsewhere.constrained for each in duel.candidates if each.elsewhere}
    margin = numbers.unsigned(duel.margin)
    notes = (
        "Invented: answers that are neither a label nor none. No label: it said that none fits, or "
        "gave no answer. Both count as wrong. Seconds: from request to answer, without waits for "
        "a limit. Adapter at worst: the end of the one-sided 95% interval of the adapter's "
        f"difference. p (margin): the p-value of the adapter being {margin} or more worse (Tango's "
        "test, Holm's adjustment for all of these models)."
    ) + "".join(f" Answers were constrained {words}." for words in constrained if words)
    reasons = " ".join(each.reason for each in duel.replacements)
    return [Titled("Models that run elsewhere", table), reasons, small(notes)]


def ladder(duel: DuelRecord) -> list[dict[str, Any]]:
    """Return the candidates' accuracies with the bars of their intervals on one scale."""
    low = min(candidate.accuracy_interval_95[0] for candidate in duel.candidates)
    # Not from 0: on a scale of 0 to 100 % intervals of a few points are too narrow to compare.
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


# Cost.


def cost_section(run: Run) -> Content:
    """Return the break-even, the bill by volume, and every input."""
    if run.cost is None:
        return lacks(Input.COST)
    note = (
        f"All amounts in {run.cost.currency}. Replicas are paid around the clock, and the "
        "utilisation is the share of their full throughput that is used. Of a range the first end "
        "is the one that favours the adapter. Pays from: the volume from which one replica costs "
        "no more than the hosted model."
    )
    return [
        list(facts.cost(run.cost)),
        small(note),
        Titled("By volume", facts.cost_by_volume(run.cost)),
        Titled("By way to serve", facts.cost_by_kind(run.cost)),
        Titled("Inputs", facts.cost_inputs(run.cost)),
    ]
