"""The gate's rows: what an adapter must show before it is published, and what this one shows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from markupsafe import Markup

from trainer import facts, numbers
from trainer.artifacts.evaluation import EvaluationRecord
from trainer.report.bars import span
from trainer.report.judged import ADAPTER_FOLDER, Judged
from trainer.report.records import Block, Drawn, Input, Run, Section, Titled, lacking, small
from trainer.store.verdict import Criterion

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
            "clerk-trainer publish would refuse it."
        )
    compared = (
        f"Compared with the adapter that is current in {judged.store}."
        if judged.store
        else "Whether it is as good as the adapter that is current was not asked: --store names "
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
