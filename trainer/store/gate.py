"""The gate: whether a run has what its rules ask for before it is published."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.statistics.clusters import as_groups
from trainer.statistics.metrics import measure
from trainer.store.criteria import judge_labels, judge_promise, judge_regression
from trainer.store.evidence import Evidence
from trainer.store.gate_rules import GateRules
from trainer.store.unseen import judge_unseen
from trainer.store.verdict import Comparison, Criterion, GateVerdict, criterion
from worker.contract import Manifest
from worker.contract.store import is_digest

_SLACK = 1e-6  # the figures are read from text, and sums differ in their last digits


def judge(
    manifest: Manifest,
    evidence: Evidence | None,
    rules: GateRules,
    against: Comparison | str | None,
    *,
    allow_unpaired: bool = False,
) -> GateVerdict:
    """Judge an adapter by its evaluation; None: there is no evaluation, which fails.

    ``against`` is the comparison with the current adapter, or why it is impossible, or None when
    no adapter is current. ``allow_unpaired`` lets an impossible comparison pass.
    """
    if evidence is None:
        rows = [criterion("evaluation", "of this adapter", "none", passed=False)]
    else:
        figures = evidence.evaluation
        rows = [*_provenance(manifest, evidence), *_floors(figures, rules)]
        rows += judge_labels(manifest.taxonomy.names, figures, rules)
        rows.append(judge_promise(figures))
        rows += _ceilings(evidence, rules)
    rows.append(judge_regression(against, rules, allow_unpaired=allow_unpaired))
    return GateVerdict(
        tuple(rows),
        comparison=against if isinstance(against, Comparison) else None,
        incomparable=against if isinstance(against, str) else None,
    )


def _provenance(manifest: Manifest, evidence: Evidence) -> Iterator[Criterion]:
    figures = evidence.evaluation
    found, dataset = figures.adapter.digest, figures.dataset
    yield criterion(
        "adapter evaluated",
        f"{manifest.digest[:12]}…",
        f"{found[:12]}…",
        found == manifest.digest,
    )
    yield criterion(
        "hold-out",
        "all of it, its digest recorded",
        f"{'a part' if figures.limited else 'all'}: {figures.examples} messages, "
        f"{dataset.holdout_sha256[:12] or 'no digest'}…, openings: {dataset.openings}",
        not figures.limited and is_digest(dataset.holdout_sha256),
    )
    yield judge_unseen(manifest, figures)
    problem = _disagreement(evidence)
    yield criterion(
        "predictions",
        "agree with the evaluation",
        problem or f"{len(evidence.answers)} that do",
        problem is None,
    )


def _floors(figures: EvaluationRecord, rules: GateRules) -> Iterator[Criterion]:
    by_lower = rules.accuracy_by == "lower"
    accuracy = figures.accuracy_interval_95[0] if by_lower else figures.accuracy
    yield criterion(
        "accuracy, lower end of the 95 % interval" if by_lower else "accuracy",
        f"at least {rules.accuracy:.4f}",
        f"{accuracy:.4f} (point {figures.accuracy:.4f})" if by_lower else f"{accuracy:.4f}",
        accuracy >= rules.accuracy,
    )
    yield criterion(
        "macro-F1",
        f"at least {rules.macro_f1:.4f}",
        f"{figures.macro_f1:.4f}",
        figures.macro_f1 >= rules.macro_f1,
    )


def _ceilings(evidence: Evidence, rules: GateRules) -> Iterator[Criterion]:
    figures = evidence.evaluation
    outside = figures.outside_labels.constrained + sum(
        answer.predicted not in figures.labels for answer in evidence.answers
    )
    yield criterion("answers outside the set", "0", str(outside), outside == 0)
    if rules.unconstrained_share is not None:
        share = figures.outside_labels.unconstrained_share
        yield criterion(
            "free answers outside the set",
            f"at most {rules.unconstrained_share:.4f}",
            "not measured" if share is None else f"{share:.4f}",
            share is not None and share <= rules.unconstrained_share,
        )
    ece = figures.calibration.ece
    yield criterion(
        "calibration error (ECE)", f"at most {rules.ece:.4f}", f"{ece:.4f}", ece <= rules.ece
    )


def _disagreement(evidence: Evidence) -> str | None:
    """Return where the figures are not those of the answers, or None."""
    stated, answers = evidence.evaluation, evidence.answers
    if len(answers) != stated.examples:
        return f"{len(answers)} for {stated.examples} messages"
    index = {label: at for at, label in enumerate(stated.labels)}
    truth = [index.get(answer.label or "") for answer in answers]
    predicted = [index.get(answer.predicted) for answer in answers]
    if None in truth or None in predicted:
        return "they hold labels that the evaluation does not name"
    theirs = measure(
        np.array(truth, dtype=np.int64),
        np.array(predicted, dtype=np.int64),
        stated.labels,
        as_groups([answer.group for answer in answers]),
    )
    kept = [answer for answer in answers if not answer.review]
    found = {figures.label: figures for figures in theirs.per_label}
    pairs: list[tuple[str, float, float]] = [
        ("accuracy", theirs.accuracy, stated.accuracy),
        ("interval's lower end", theirs.interval[0], stated.accuracy_interval_95[0]),
        ("macro-F1", theirs.macro_f1, stated.macro_f1),
    ]
    if stated.promise is not None:
        right = sum(answer.predicted == answer.label for answer in kept)
        pairs += [
            ("count without review", len(kept), stated.promise.holdout.messages),
            ("count of right ones without review", right, stated.promise.holdout.right),
        ]
    for figures in stated.per_label:
        own = found.get(figures.label)
        pairs += [
            (f"recall of {figures.label}", own.recall if own else 0.0, figures.recall),
            (f"count of {figures.label}", own.support if own else 0, figures.support),
            (f"design effect of {figures.label}", own.effect if own else 1.0, figures.effect),
        ]
    for what, value, wanted in pairs:
        if abs(value - wanted) > _SLACK:
            return f"their {what} is {value:.6g} and the evaluation's {wanted:.6g}"
    return None
