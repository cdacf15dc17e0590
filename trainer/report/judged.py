"""What the gate says of a run: the rows that ``publish --dry-run`` prints, and nothing written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trainer.artifacts.evaluation import EVALUATION, EVALUATION_FOLDER
from trainer.store.evidence import read_evidence
from trainer.store.gate import judge
from trainer.store.gate_rules import GateRules
from trainer.store.plan import plan_publication
from trainer.store.verdict import Criterion, GateVerdict
from worker.contract import MANIFEST_NAME, read_manifest

ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True)
class GateChoice:
    """By which rules a run is judged, and against the current adapter of which store (None: that
    question is not asked)."""

    store: Path | None = None
    rules: GateRules = field(default_factory=GateRules)


@dataclass(frozen=True, slots=True)
class Judged:
    """The gate's rows. Without ``store`` nothing is compared with a current adapter, and there is
    no row of it; ``hint`` says how a comparison that is impossible could be made; ``has_current``
    whether the store has a current adapter."""

    criteria: tuple[Criterion, ...]
    rules: GateRules
    store: Path | None
    hint: str | None = None
    has_current: bool = False

    @property
    def passed(self) -> bool:
        """Whether every row that is there passes."""
        return all(row.passed for row in self.criteria)


def judge_run(directory: Path, choice: GateChoice) -> Judged | None:
    """Judge a run folder, None where it has no adapter or no evaluation.

    Raises AdapterRefused and BadInput as ``publish`` does.
    """
    adapter, evaluated = directory / ADAPTER_FOLDER, directory / EVALUATION_FOLDER
    if not (adapter / MANIFEST_NAME).is_file() or not (evaluated / EVALUATION.name).is_file():
        return None
    if choice.store is not None:
        plan = plan_publication(directory, choice.store, rules=choice.rules)
        return Judged(
            plan.verdict.criteria,
            choice.rules,
            choice.store,
            plan.way_to_compare,
            has_current=plan.current is not None,
        )
    verdict = judge(read_manifest(adapter), read_evidence(evaluated), choice.rules, None)
    return Judged(_without_current(verdict), choice.rules, None)


def _without_current(verdict: GateVerdict) -> tuple[Criterion, ...]:
    """Leave out the gate's last row, which is about the current adapter: it passes where none is
    current, and nobody has looked."""
    return verdict.criteria[:-1]
