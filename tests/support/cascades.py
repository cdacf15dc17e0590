"""Cascades of toy adapters: manifests that bind stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from worker.contract import Calibration, CascadeStage, Manifest, Thresholds


def cascade_of(*stages: Manifest, sure_from: float = 0.8, **changes: Any) -> Manifest:
    """A cascade of adapters with one taxonomy, the small one first; the first ones are sure from
    ``sure_from`` on. ``changes`` replace fields."""
    first, last = stages[0], stages[-1]
    thresholds = Thresholds(0.5, review_disagreement=0.0)
    given: dict[str, Any] = {
        "name": "toy-cascade",
        "created_at": "2024-05-06T07:08:09Z",
        "kind": "cascade",
        "base": last.base,
        "taxonomy": last.taxonomy,
        "prompt": first.prompt,
        "golden": first.golden,
        "calibration": Calibration(1.0, 100),
        "thresholds": thresholds,
        "files": {},
        "stages": bind(stages, sure_from, thresholds),
    }
    return Manifest(**given | changes)


def bind(
    stages: Sequence[Manifest], sure_from: float, thresholds: Thresholds
) -> tuple[CascadeStage, ...]:
    """Name these adapters as stages."""
    last = len(stages) - 1
    return tuple(
        CascadeStage(
            digest=stage.digest,
            name=stage.name,
            kind=stage.kind,
            base=stage.base.name,
            base_revision=stage.base.revision,
            thresholds=thresholds if at == last else Thresholds(None),
            share=1 / len(stages),
            sure_from=None if at == last else sure_from,
            out_of_scope=stage.head.out_of_scope if stage.head else None,
        )
        for at, stage in enumerate(stages)
    )
