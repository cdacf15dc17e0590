"""The gate: what gate.toml asks of a run before it is published, and whether the run has it."""

from __future__ import annotations

import tomllib
import types
import typing
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.files import Record
from trainer.errors import BadInput
from trainer.statistics.metrics import measure
from trainer.store.evidence import Comparison, Evidence
from trainer.store.unseen import judge_unseen
from worker.contract import Manifest
from worker.contract.assignments import split_assignment, toml_value
from worker.contract.store import is_digest


@dataclass(frozen=True, slots=True)
class GateRules:
    """Floors and ceilings; all shares are 0 to 1. ``config/gate.toml`` explains each.

    ``unconstrained_share`` None: not judged. The defaults are those of that file.
    """

    accuracy: float = 0.9
    accuracy_by: Literal["lower", "point"] = "lower"
    macro_f1: float = 0.88
    label_recall: float = 0.75
    label_support: int = 1
    ece: float = 0.05
    unconstrained_share: float | None = None
    regression_p: float = 0.05

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, float) and not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; it must be from 0 to 1")
        if self.label_support < 1:
            raise ValueError(f"label_support is {self.label_support}; it must be at least 1")


def load_rules(file: Path | None, sets: Sequence[str] = ()) -> GateRules:
    """Read rules from a TOML file; ``sets`` are ``key=value`` and win over it.

    What neither names is the default. Raises BadInput: unknown keys, wrong types, values out of
    range, each with where it came from.
    """
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for origin, source in ((str(file), _from_file(file)), ("--set", _from_flags(sets))):
        for key, value in source.items():
            values[key] = _checked(key, value, origin)
            origins[key] = origin
    try:
        return GateRules(**values)
    except ValueError as error:
        key = str(error).partition(" ")[0]
        raise BadInput(f"{origins.get(key, 'gate')}: {error}") from error


def _from_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"{file}: {error.strerror}: name a file such as config/gate.toml") from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"{file}: is not TOML: {error}") from error


def _from_flags(sets: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for flag in sets:
        key, text = split_assignment(flag, "--set", error=BadInput)
        values[key] = toml_value(text)
    return values


def _checked(key: str, value: Any, origin: str) -> Any:
    kinds = typing.get_type_hints(GateRules)
    if key not in kinds:
        known = ", ".join(rule.name for rule in fields(GateRules))
        raise BadInput(f"{origin}: the gate has no rule {key!r}; it has {known}")
    kind = kinds[key]
    if typing.get_origin(kind) is Literal:
        if value in typing.get_args(kind):
            return value
        raise BadInput(f"{origin}: {key} is {value!r}; use one of {list(typing.get_args(kind))}")
    whole = kind is int
    if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
        wanted = "a whole number" if whole else "a number"
        raise BadInput(f"{origin}: {key} is {value!r}; it must be {wanted}")
    assert whole or kind is float or isinstance(kind, types.UnionType)
    return value if whole else float(value)


_SLACK = 1e-6  # the figures are read from text, and sums differ in their last digits


class Criterion(Record):
    """One row of the gate, in words."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """Every criterion's row; ``comparison`` is None where there was none to make, and
    ``incomparable`` says why when an adapter is current and cannot be compared with."""

    criteria: tuple[Criterion, ...]
    comparison: Comparison | None
    incomparable: str | None

    @property
    def passed(self) -> bool:
        """Whether every criterion is met."""
        return all(criterion.passed for criterion in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the criteria that are not met."""
        return tuple(criterion.name for criterion in self.criteria if not criterion.passed)


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
        rows = [_criterion("evaluation", "of this adapter", "none", passed=False)]
    else:
        figures = evidence.evaluation
        rows = [*_provenance(manifest, evidence), *_floors(figures, rules)]
        rows += _labels(manifest, figures, rules)
        rows += _ceilings(evidence, rules)
    rows.append(_regression(against, rules, allow_unpaired=allow_unpaired))
    return GateVerdict(
        tuple(rows),
        comparison=against if isinstance(against, Comparison) else None,
        incomparable=against if isinstance(against, str) else None,
    )


def _criterion(name: str, wanted: str, found: str, passed: bool) -> Criterion:
    return Criterion(name=name, wanted=wanted, found=found, passed=passed)


def _provenance(manifest: Manifest, evidence: Evidence) -> Iterator[Criterion]:
    figures = evidence.evaluation
    found, dataset = figures.adapter.digest, figures.dataset
    yield _criterion(
        "adapter evaluated",
        f"{manifest.digest[:12]}…",
        f"{found[:12]}…",
        found == manifest.digest,
    )
    yield _criterion(
        "hold-out",
        "all of it, its digest recorded",
        f"{'a part' if figures.limited else 'all'}: {figures.examples} messages, "
        f"{dataset.holdout_sha256[:12] or 'no digest'}…, openings: {dataset.openings}",
        not figures.limited and is_digest(dataset.holdout_sha256),
    )
    yield _criterion(*judge_unseen(manifest, figures))
    problem = _disagreement(evidence)
    yield _criterion(
        "predictions",
        "agree with the evaluation",
        problem or f"{len(evidence.answers)} that do",
        problem is None,
    )


def _floors(figures: EvaluationRecord, rules: GateRules) -> Iterator[Criterion]:
    by_lower = rules.accuracy_by == "lower"
    accuracy = figures.accuracy_interval_95[0] if by_lower else figures.accuracy
    yield _criterion(
        "accuracy, lower end of the 95 % interval" if by_lower else "accuracy",
        f"at least {rules.accuracy:.4f}",
        f"{accuracy:.4f} (point {figures.accuracy:.4f})" if by_lower else f"{accuracy:.4f}",
        accuracy >= rules.accuracy,
    )
    yield _criterion(
        "macro-F1",
        f"at least {rules.macro_f1:.4f}",
        f"{figures.macro_f1:.4f}",
        figures.macro_f1 >= rules.macro_f1,
    )


def _labels(manifest: Manifest, figures: EvaluationRecord, rules: GateRules) -> Iterator[Criterion]:
    per_label = {found.label: found for found in figures.per_label}
    wanted = f"at least {rules.label_recall:.4f}"
    for label in manifest.taxonomy.names:
        found = per_label.get(label)
        if found is None or found.support < rules.label_support:
            yield _criterion(
                f"recall of {label}",
                f"{wanted} of {rules.label_support} messages or more",
                f"{found.support if found else 0} messages in the hold-out",
                passed=False,
            )
        else:
            yield _criterion(
                f"recall of {label}",
                wanted,
                f"{found.recall:.4f} of {found.support}",
                found.recall >= rules.label_recall,
            )


def _ceilings(evidence: Evidence, rules: GateRules) -> Iterator[Criterion]:
    figures = evidence.evaluation
    outside = figures.outside_labels.constrained + sum(
        answer.predicted not in figures.labels for answer in evidence.answers
    )
    yield _criterion("answers outside the set", "0", str(outside), outside == 0)
    if rules.unconstrained_share is not None:
        share = figures.outside_labels.unconstrained_share
        yield _criterion(
            "free answers outside the set",
            f"at most {rules.unconstrained_share:.4f}",
            "not measured" if share is None else f"{share:.4f}",
            share is not None and share <= rules.unconstrained_share,
        )
    ece = figures.calibration.ece
    yield _criterion(
        "calibration error (ECE)", f"at most {rules.ece:.4f}", f"{ece:.4f}", ece <= rules.ece
    )


def _regression(
    against: Comparison | str | None, rules: GateRules, *, allow_unpaired: bool
) -> Criterion:
    name = "against the current adapter"
    wanted = f"not worse with p < {rules.regression_p:g} (McNemar, paired)"
    if against is None:
        return _criterion(name, wanted, "no adapter is current", passed=True)
    if isinstance(against, str):
        allowed = "; allowed by --allow-unpaired" if allow_unpaired else ""
        return _criterion(name, wanted, f"impossible: {against}{allowed}", allow_unpaired)
    passed = not (against.is_worse and against.p_value < rules.regression_p)
    found = (
        f"right where the other is wrong: {against.only_new_right} new, "
        f"{against.only_current_right} current, of {against.messages}; p = {against.p_value:.2g}"
    )
    return _criterion(name, wanted, found, passed)


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
        np.array(truth, dtype=np.int64), np.array(predicted, dtype=np.int64), stated.labels
    )
    found = {figures.label: figures for figures in theirs.per_label}
    pairs: list[tuple[str, float, float]] = [
        ("accuracy", theirs.accuracy, stated.accuracy),
        ("interval's lower end", theirs.interval[0], stated.accuracy_interval_95[0]),
        ("macro-F1", theirs.macro_f1, stated.macro_f1),
    ]
    for figures in stated.per_label:
        own = found.get(figures.label)
        pairs += [
            (f"recall of {figures.label}", own.recall if own else 0.0, figures.recall),
            (f"count of {figures.label}", own.support if own else 0, figures.support),
        ]
    for what, value, wanted in pairs:
        if abs(value - wanted) > _SLACK:
            return f"their {what} is {value:.6g} and the evaluation's {wanted:.6g}"
    return None
