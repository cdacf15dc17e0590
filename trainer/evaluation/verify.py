"""Every figure of an evaluation again, from its prediction files alone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from trainer.artifacts.evaluation import (
    BATCHES,
    EVALUATION,
    OUT_OF_SCOPE,
    PREDICTIONS,
    VALIDATION,
    VLLM,
    EvaluationRecord,
)
from trainer.errors import ProofFailed
from trainer.evaluation.outputs import outputs_from
from trainer.evaluation.summary import EngineSpeed, Predictions, Setup, summarize
from worker.contract import Thresholds

_TOLERANCE = 1e-8


def recompute(directory: Path) -> EvaluationRecord:
    """Return what ``evaluation.json`` should hold.

    Identities, settings and measured speeds are taken from the record, all figures from the
    prediction files: the result equals the record unless one of them was altered. Raises
    BadInput for unreadable files, ProofFailed for predictions that contradict themselves.
    """
    return summarize(_setup_of(EVALUATION.read(directory)), _read_predictions(directory))


def verify_evaluation(directory: Path) -> EvaluationRecord:
    """Return the record after comparing it with what its predictions give, figure by figure (to
    eight digits: another machine may round the last ones otherwise).

    Raises ProofFailed with the first figure that differs, and what ``recompute`` raises.
    """
    record = EVALUATION.read(directory)
    path = directory / EVALUATION.name
    in_file = json.loads(path.read_bytes())  # whole: what no model names may not be there either
    if place := _difference(in_file, recompute(directory).to_json(), ""):
        raise ProofFailed(f"{path}: {place} is not what the predictions give")
    return record


def _difference(given: Any, found: Any, place: str) -> str | None:
    """Return the dotted place of the first value that differs, None where all are equal."""
    if isinstance(given, dict) and isinstance(found, dict) and given.keys() == found.keys():
        places = (
            _difference(given.get(key), found[key], f"{place}.{key}".lstrip(".")) for key in found
        )
    elif isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        pairs = enumerate(zip(given, found, strict=True))
        places = (_difference(*pair, f"{place}[{at}]") for at, pair in pairs)
    elif isinstance(given, float) and isinstance(found, float):
        close = math.isclose(given, found, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE)
        return None if close else place
    else:
        return None if given == found else place or "the set of its keys"
    return next((place for place in places if place), None)


def _setup_of(record: EvaluationRecord) -> Setup:
    """Take what no prediction tells out of the record."""
    return Setup(
        created_at=record.created_at,
        limited=record.limited,
        adapter=record.adapter,
        dataset=record.dataset,
        outputs=outputs_from(record.labels, record.head),
        temperature=record.calibration.temperature,
        limits=Thresholds(
            record.review.confidence_below,
            record.review.off_label_mass_above,
            record.review.out_of_scope_above,
        ),
        wanted_precision=record.review.wanted_precision,
        wanted_by=record.review.wanted_by,
        tolerance=record.agreement.tolerance if record.agreement else 0.0,
        speeds=tuple(
            EngineSpeed(engine.name, engine.messages_per_s, engine.machine)
            for engine in record.engines
        ),
        disjoint=record.disjoint,
        promised=(record.promise.precision, record.promise.by) if record.promise else None,
    )


def _read_predictions(directory: Path) -> Predictions:
    return Predictions(
        holdout=PREDICTIONS.read(directory),
        validation=VALIDATION.read(directory),
        out_of_scope=OUT_OF_SCOPE.read_if_present(directory),
        batches=BATCHES.read_if_present(directory),
        vllm=VLLM.read_if_present(directory),
    )
