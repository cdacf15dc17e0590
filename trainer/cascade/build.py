"""One cascade, from two evaluated runs to a run folder of its own: read it top to bottom."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer import __version__
from trainer.artifacts.cascade import CASCADE, CascadeRecord, CascadeRow
from trainer.artifacts.files import check_target, fresh_folder
from trainer.artifacts.training import AdapterName, DatasetName
from trainer.cascade.stages import StageRun, check_together, read_stage
from trainer.cascade.table import Rule, describe_alone, make_row, may_answer, verdict_of
from trainer.cascade.write import ADAPTER, Bound, write_adapter, write_evaluation
from trainer.evaluation.outputs import PRECISION
from trainer.statistics.calibration import ece, nll
from trainer.statistics.cascade import messages_needed
from trainer.statistics.metrics import interval_of
from worker.contract import Calibration, CascadeStage, Manifest, Reference
from worker.contract.timestamps import rfc3339_now

_MARGINS = (0.0025, 0.005, 0.01, 0.02, 0.03)
_CONFIDENCE = (0.01, 0.05, 0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True)
class CascadeRequest:
    """Two runs, the small model first; ``margin`` is the share by which the whole may be worse than
    the last alone, ``disagreement`` the confidence of the first stage in another label from which
    on a person looks (None: never). ``precision`` None: what the last stage promised."""

    first: Path
    last: Path
    out: Path
    name: str
    margin: float
    disagreement: float | None
    precision: float | None


def make_cascade(request: CascadeRequest) -> CascadeRecord:
    """Choose on validation and write the run folder: the record, and where a cascade is worth it
    the stages, the manifest that binds them, and the evaluation of the whole.

    No hold-out is opened: what the stages' evaluations answered on it is put together. Raises
    BadInput and AdapterRefused.
    """
    check_target(request.out, CASCADE.name)
    first, last = read_stage(request.first), read_stage(request.last)
    check_together(first, last)
    precision = _promised(request, last)
    tried = {
        margin: make_row(
            first, last, margin, precision=precision, disagreement=request.disagreement
        )
        for margin in sorted({*_MARGINS, request.margin})
    }
    row, rule = tried[request.margin]
    worth_it, verdict = verdict_of(row, first, last)
    bound = None
    if worth_it and rule is not None:
        bound = Bound(first, last, rule, _bind(request, first, last, rule, row))
    record = _describe(request, (first, last), [each for each, _ in tried.values()], row, bound)
    record = record.model_copy(update={"worth_it": worth_it, "verdict": verdict})
    with fresh_folder(request.out) as draft:
        if bound is not None:
            write_adapter(draft, bound)
            write_evaluation(draft, (request.out / ADAPTER).resolve(), bound)
        CASCADE.write(draft, record)
    return record


def _promised(request: CascadeRequest, last: StageRun) -> float:
    recipe = last.manifest.data.get("recipe", {})
    return request.precision or float(recipe.get("review_precision", PRECISION))


def _bind(
    request: CascadeRequest, first: StageRun, last: StageRun, rule: Rule, row: CascadeRow
) -> Manifest:
    decisions = rule.decide(first.validation, last.validation)
    confidence = np.array([decision.confidence for decision in decisions])
    labels = last.manifest.taxonomy.names
    truth = np.array([labels.index(str(label)) for label in first.validation.truth])
    probabilities = np.array([[each.scores[label] for label in labels] for each in decisions])
    correct = probabilities.argmax(axis=1) == truth
    known = last.manifest.reference
    return Manifest(
        name=request.name,
        created_at=rfc3339_now(),
        kind="cascade",
        base=last.manifest.base,
        taxonomy=last.manifest.taxonomy,
        prompt=first.manifest.prompt,
        calibration=Calibration(
            1.0, len(decisions), nll(probabilities, truth), ece(confidence, correct)
        ),
        thresholds=rule.last,
        golden=first.manifest.golden,
        files={},
        stages=_stages(first, last, rule, row),
        reference=None
        if known is None
        else Reference(
            known.label_shares,
            {f"{at:g}": float(np.quantile(confidence, at)) for at in _CONFIDENCE},
            {},
        ),
        data={
            **last.manifest.data,
            "recipe": {
                **last.manifest.data.get("recipe", {}),
                "review_precision": _promised(request, last),
                "review_precision_by": "lower",
            },
        },
        metrics={
            "validation": {
                "examples": len(decisions),
                "accuracy": row.accuracy,
                "accuracy_interval_95": list(row.accuracy_interval_95),
            },
            "margin": request.margin,
        },
        versions={"python": platform.python_version(), "trainer": __version__},
    )


def _stages(
    first: StageRun, last: StageRun, rule: Rule, row: CascadeRow
) -> tuple[CascadeStage, ...]:
    return tuple(
        CascadeStage(
            digest=run.manifest.digest,
            name=run.manifest.name,
            kind=run.manifest.kind,
            base=run.manifest.base.name,
            base_revision=run.manifest.base.revision,
            thresholds=thresholds,
            share=share,
            sure_from=sure_from,
            out_of_scope=run.manifest.head.out_of_scope if run.manifest.head else None,
        )
        for run, thresholds, share, sure_from in (
            (first, rule.first, row.first_share, rule.sure_from),
            (last, rule.last, row.last_share, None),
        )
    )


def _describe(
    request: CascadeRequest,
    runs: tuple[StageRun, StageRun],
    rows: Sequence[CascadeRow],
    chosen: CascadeRow,
    bound: Bound | None,
) -> CascadeRecord:
    first, last = runs
    dataset, held = last.evaluation.dataset, last.holdout
    right = held.correct
    if bound is not None:
        decisions = bound.rule.decide(first.holdout, held)
        pairs = zip(decisions, held.truth, strict=True)
        right = np.array([one.label == label for one, label in pairs], dtype=np.bool_)
    needed = None
    if chosen.sure_from is None and chosen.promise_shown:
        limits = replace(first.manifest.thresholds, review_confidence=None)
        needed = messages_needed(
            first.validation.confidence,
            may_answer(first.validation, limits),
            first.validation.correct,
            last.validation.correct,
            request.margin,
        )
    made = bound.manifest if bound else None
    return CascadeRecord(
        created_at=rfc3339_now(),
        dataset=DatasetName(name=dataset.name, digest=dataset.digest, directory=dataset.directory),
        validation_messages=len(first.validation.ids),
        margin=request.margin,
        alone=(describe_alone(first), describe_alone(last)),
        rows=tuple(rows),
        chosen=chosen,
        worth_it=False,
        verdict="",
        messages_needed=needed,
        adapter=AdapterName(name=made.name, digest=made.digest) if made else None,
        holdout_accuracy=float(right.mean()) if made else None,
        holdout_accuracy_interval_95=interval_of(right, held.together) if made else None,
        holdout_last_alone=float(held.correct.mean()) if made else None,
    )
