"""The gate's rows: what an adapter must show before it is published, and what this one shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.report import numbers
from trainer.report.bars import span
from trainer.report.judged import ADAPTER_FOLDER, Judged
from trainer.report.numbers import written
from trainer.report.records import Input, Run, Section, lacking
from trainer.statistics.metrics import wilson
from trainer.store.verdict import Criterion

_AT_ONCE = 4
"""Rows of labels that pass which are shown unfolded: of eleven that do there is little to read."""


def gate_section(run: Run) -> Section:
    """Return each criterion as the gate prints it: wanted, found, passed or not."""
    title = "Would the gate let it pass?"
    if run.evaluation is None:
        return lacking("gate", title, Input.EVALUATION)
    if run.gate is None:
        missing = f"There is no {ADAPTER_FOLDER}/ in the run folder: the gate judges an adapter."
        return Section("gate", title, missing=missing)
    judged = run.gate
    rows = [_row(criterion, run.evaluation) for criterion in judged.criteria]
    quiet = [row for row in rows if row["of_label"] and row["passed"]]
    folded = quiet if len(quiet) > _AT_ONCE else []
    return Section(
        "gate",
        title,
        {
            "passed": judged.passed,
            "failed": sum(not row["passed"] for row in rows),
            "all": len(rows),
            "rows": [row for row in rows if row not in folded],
            "folded": folded,
            "store": judged.store and str(judged.store),
            "hint": judged.hint,
            "rules": list(_rules(judged)),
        },
    )


def _row(criterion: Criterion, evaluation: EvaluationRecord) -> dict[str, Any]:
    label = criterion.name.removeprefix("recall of ").partition(",")[0]
    return {
        "name": criterion.name,
        "wanted": criterion.wanted,
        "found": criterion.found,
        "passed": criterion.passed,
        "of_label": criterion.name.startswith("recall of "),
        "bounds": _bounds(criterion.name, label, evaluation),
    }


def _bounds(name: str, label: str, evaluation: EvaluationRecord) -> dict[str, Any] | None:
    """Return the 95 % interval of a criterion that is a share of messages, with its bar."""
    interval: tuple[float, float] | None = None
    value = 0.0
    if name.startswith("accuracy"):
        interval, value = evaluation.accuracy_interval_95, evaluation.accuracy
    elif name.startswith("recall of "):
        found = next((each for each in evaluation.per_label if each.label == label), None)
        if found is not None and found.support:
            total = found.support / found.effect
            interval = wilson(found.recall * total, total)
            value = found.recall
    if interval is None:
        return None
    return {"words": numbers.interval(interval), "bar": span(*interval, value)}


def _rules(judged: Judged) -> Iterator[tuple[str, str]]:
    rules = judged.rules
    for name in rules.__dataclass_fields__:
        value = getattr(rules, name)
        yield name, "not judged" if value is None else written(value)
