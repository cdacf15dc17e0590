"""A cascade: stages, each a published adapter, of which a small one answers what it is sure of.

Its manifest holds no weights: it names its stages by their digests, and they stand beside it.

    STORE/<digest of the cascade>/manifest.json
    STORE/<digest of a stage>/
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.head import OutOfScopeMethod
from worker.contract.kinds import Kind
from worker.contract.review import Thresholds, review_reasons
from worker.contract.scoring import Decision

MOST_STAGES = 4


@dataclass(frozen=True, slots=True)
class CascadeStage:
    """One stage: which adapter, and when it answers.

    It answers where its confidence is ``sure_from`` or more and nothing else speaks for review by
    ``thresholds``; what it is not sure of goes to the next. The last stage has no ``sure_from``:
    it answers the rest. What a stage answers goes to a person by its ``thresholds``. ``share`` is
    what it answered of validation (0 to 1), ``base`` and ``base_revision`` are its base's, and
    ``out_of_scope`` is the method of its head, where it has one.
    """

    digest: str
    name: str
    kind: Kind
    base: str
    base_revision: str
    thresholds: Thresholds
    share: float
    sure_from: float | None = field(default=None, metadata=LEAVE_OUT_EMPTY)
    out_of_scope: OutOfScopeMethod | None = field(default=None, metadata=LEAVE_OUT_EMPTY)

    def is_sure(self, decision: Decision) -> bool:
        """Whether this stage answers a message of which it thinks ``decision``."""
        if self.sure_from is None:
            return True
        return decision.confidence >= self.sure_from and not review_reasons(
            decision, self.thresholds
        )


def stage_directory(cascade: Path, stage: CascadeStage) -> Path:
    """Return where a stage of the cascade in a directory is."""
    return cascade.resolve().parent / stage.digest


def check_stages(stages: Sequence[CascadeStage]) -> None:
    """Raise ValueError where stages are no cascade."""
    if not 2 <= len(stages) <= MOST_STAGES:
        raise ValueError(f"stages has {len(stages)} entries; a cascade has 2 to {MOST_STAGES}")
    digests = [stage.digest for stage in stages]
    if len(set(digests)) != len(digests):
        raise ValueError("stages names an adapter twice")
    for at, stage in enumerate(stages):
        # A digest becomes a path: nothing but a digest may.
        if len(stage.digest) != 64 or not set(stage.digest) <= set("0123456789abcdef"):
            raise ValueError(f"stages[{at}].digest is no digest of 64 hexadecimal digits")
        if stage.kind == "cascade":
            raise ValueError(f"stages[{at}] is a cascade itself: name its stages instead")
        last = at == len(stages) - 1
        if last is not (stage.sure_from is None):
            raise ValueError("every stage but the last needs sure_from, and the last has none")
        if stage.sure_from is not None and not 0 < stage.sure_from <= 1:
            raise ValueError(f"stages[{at}].sure_from is {stage.sure_from}; above 0, at most 1")
