"""The gate: each criterion an adapter must meet, what was wanted and what was found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.statistics.metrics import measure
from trainer.store.evidence import Evidence
from trainer.store.regression import Comparison
from trainer.store.rules import GateRules
from worker.contract import Manifest
from worker.contract.store import is_digest

_SLACK = 1e-6  # the figures are read from text, and sums differ in their last digits


@dataclass(frozen=True, slots=True)
class Criterion:
    """One row of the gate, in words."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """Every criterion's row; ``comparison`` is None where there was none to make, and
    ``incomparable`` says why when an adapter is current and cannot be compared with."""

    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    incomparable: str | None

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(one.passed for one in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the criteria that are not met."""
        return tuple(one.name for one in self.criteria if not one.passed)


def judge(
    manifest: Manifest,
    evidence: Evidence | None,
    rules: GateRules,
    against: Comparison | str | None,
    *,
    allow_unpaired: bool = False,
) -> Verdict:
    """Judge an adapter by its evaluation; None: there is no evaluation, which fails.

    ``against`` is the comparison with the current adapter, or why it is impossible, or None when
    no adapter is current. ``allow_unpaired`` lets an impossible comparison pass.
    """
    if evidence is None:
        rows = [Criterion("evaluation", "of this adapter", "none", passed=False)]
    else:
        rows = [*_provenance(manifest, evidence), *_floors(evidence, rules)]
        rows += _labels(manifest, evidence, rules)
        rows += _ceilings(evidence, rules)
    rows.append(_regression(against, rules, allow_unpaired=allow_unpaired))
    return Verdict(
        tuple(rows),
        comparison=against if isinstance(against, Comparison) else None,
        incomparable=against if isinstance(against, str) else None,
    )


def _provenance(manifest: Manifest, evidence: Evidence) -> Iterator[Criterion]:
    found = evidence.adapter_digest
    yield Criterion(
        "adapter evaluated",
        f"{manifest.digest[:12]}…",
        f"{found[:12]}…",
        found == manifest.digest,
    )
    yield Criterion(
        "hold-out",
        "all of it, its digest recorded",
        f"{'a part' if evidence.limited else 'all'}: {evidence.examples} messages, "
        f"{evidence.holdout_sha256[:12] or 'no digest'}…, openings: {evidence.openings}",
        not evidence.limited and is_digest(evidence.holdout_sha256),
    )
    problem = _disagreement(evidence)
    yield Criterion(
        "predictions",
        "agree with the evaluation",
        problem or f"{len(evidence.predictions)} that do",
        problem is None,
    )


def _floors(evidence: Evidence, rules: GateRules) -> Iterator[Criterion]:
    by_lower = rules.accuracy_by == "lower"
    accuracy = evidence.accuracy_low if by_lower else evidence.accuracy
    yield Criterion(
        "accuracy, lower end of the 95 % interval" if by_lower else "accuracy",
        f"at least {rules.accuracy:.4f}",
        f"{accuracy:.4f} (point {evidence.accuracy:.4f})" if by_lower else f"{accuracy:.4f}",
        accuracy >= rules.accuracy,
    )
    yield Criterion(
        "macro-F1",
        f"at least {rules.macro_f1:.4f}",
        f"{evidence.macro_f1:.4f}",
        evidence.macro_f1 >= rules.macro_f1,
    )


def _labels(manifest: Manifest, evidence: Evidence, rules: GateRules) -> Iterator[Criterion]:
    found = {one.label: one for one in evidence.recalls}
    for label in manifest.taxonomy.names:
        one = found.get(label)
        wanted = f"at least {rules.label_recall:.4f}"
        if one is None or one.support < rules.label_support:
            support = one.support if one else 0
            yield Criterion(
                f"recall of {label}",
                f"{wanted} of {rules.label_support} messages or more",
                f"{support} messages in the hold-out",
                passed=False,
            )
        else:
            yield Criterion(
                f"recall of {label}",
                wanted,
                f"{one.recall:.4f} of {one.support}",
                one.recall >= rules.label_recall,
            )


def _ceilings(evidence: Evidence, rules: GateRules) -> Iterator[Criterion]:
    outside = evidence.outside + sum(
        one.predicted not in evidence.labels for one in evidence.predictions
    )
    yield Criterion("answers outside the set", "0", str(outside), outside == 0)
    if rules.unconstrained_share is not None:
        share = evidence.unconstrained_share
        yield Criterion(
            "free answers outside the set",
            f"at most {rules.unconstrained_share:.4f}",
            "not measured" if share is None else f"{share:.4f}",
            share is not None and share <= rules.unconstrained_share,
        )
    yield Criterion(
        "calibration error (ECE)",
        f"at most {rules.ece:.4f}",
        f"{evidence.ece:.4f}",
        evidence.ece <= rules.ece,
    )


def _regression(
    against: Comparison | str | None, rules: GateRules, *, allow_unpaired: bool
) -> Criterion:
    name = "against the current adapter"
    wanted = f"not worse with p < {rules.regression_p:g} (McNemar, paired)"
    if against is None:
        return Criterion(name, wanted, "no adapter is current", passed=True)
    if isinstance(against, str):
        allowed = "; allowed by --allow-unpaired" if allow_unpaired else ""
        return Criterion(name, wanted, f"impossible: {against}{allowed}", allow_unpaired)
    passed = not (against.is_worse and against.p_value < rules.regression_p)
    found = (
        f"right where the other is wrong: {against.only_new_right} new, "
        f"{against.only_current_right} current, of {against.messages}; p = {against.p_value:.2g}"
    )
    return Criterion(name, wanted, found, passed)


def _disagreement(evidence: Evidence) -> str | None:
    """Return where the figures are not those of the predictions, or None."""
    predictions, labels = evidence.predictions, evidence.labels
    if len(predictions) != evidence.examples:
        return f"{len(predictions)} for {evidence.examples} messages"
    index = {label: at for at, label in enumerate(labels)}
    if any(one.label not in index or one.predicted not in index for one in predictions):
        return "they hold labels that the evaluation does not name"
    figures = measure(
        np.array([index[one.label] for one in predictions], dtype=np.int64),
        np.array([index[one.predicted] for one in predictions], dtype=np.int64),
        labels,
    )
    found = {one.label: (one.support, one.recall) for one in figures.per_label}
    pairs = [
        ("accuracy", figures.accuracy, evidence.accuracy),
        ("interval's lower end", figures.interval[0], evidence.accuracy_low),
        ("macro-F1", figures.macro_f1, evidence.macro_f1),
        *(
            (f"recall of {one.label}", found.get(one.label, (0, 0.0))[1], one.recall)
            for one in evidence.recalls
        ),
        *(
            (f"count of {one.label}", found.get(one.label, (0, 0.0))[0], one.support)
            for one in evidence.recalls
        ),
    ]
    for what, theirs, stated in pairs:
        if abs(theirs - stated) > _SLACK:
            return f"their {what} is {theirs:.6g} and the evaluation's {stated:.6g}"
    return None
