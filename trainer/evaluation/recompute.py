"""Every figure of an evaluation again, from its prediction files alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from trainer.errors import ProofFailed
from trainer.evaluation.folder import read_record
from trainer.evaluation.predictions import (
    BATCHES,
    OUT_OF_SCOPE,
    PREDICTIONS,
    VALIDATION,
    VLLM,
    read_lines,
    read_predictions,
)
from trainer.evaluation.summary import SCHEMA, Evidence, Facts, summarize
from worker.contract import Thresholds

RECORD = "evaluation.json"


def recompute(directory: Path) -> dict[str, Any]:
    """Return what ``evaluation.json`` should hold.

    Identities, settings and measured speeds are taken from the record, all figures from the
    prediction files: the result equals the record unless one of them was altered. Raises
    BadInput for unreadable files, ProofFailed for predictions that contradict themselves.
    """
    return summarize(read_facts(directory), read_evidence(directory))


def verify_evaluation(directory: Path) -> dict[str, Any]:
    """Return the record after comparing it with what its predictions give, figure by figure (to
    nine digits: another machine may round the last one otherwise).

    Raises ProofFailed with the first figure that differs, and what ``recompute`` raises.
    """
    record = read_record(directory / RECORD, SCHEMA)
    if place := _difference(record, recompute(directory), ""):
        raise ProofFailed(f"{directory / RECORD}: {place} is not what the predictions give")
    return record


def _difference(one: Any, other: Any, place: str) -> str | None:
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        found = (_difference(one[key], other[key], f"{place}.{key}".lstrip(".")) for key in one)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        pairs = enumerate(zip(one, other, strict=True))
        found = (_difference(*pair, f"{place}[{at}]") for at, pair in pairs)
    elif isinstance(one, float) and isinstance(other, float):
        return None if math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-9) else place
    else:
        return None if one == other else place
    return next((place for place in found if place), None)


def read_facts(directory: Path) -> Facts:
    """Read what no prediction tells out of the record. Raises BadInput."""
    record = read_record(directory / RECORD, SCHEMA)
    agreement = record["agreement"]
    return Facts(
        created_at=record["created_at"],
        limited=record["limited"],
        adapter=record["adapter"],
        dataset=record["dataset"],
        labels=tuple(record["labels"]),
        temperature=record["calibration"]["temperature"],
        limits=Thresholds(
            record["review"]["confidence_below"], record["review"]["off_label_mass_above"]
        ),
        wanted_precision=record["review"]["wanted_precision"],
        tolerance=agreement["tolerance"] if agreement else 0.0,
        speeds=tuple(record["engines"]),
    )


def read_evidence(directory: Path) -> Evidence:
    """Read the prediction files. Raises BadInput."""

    def lines(name: str) -> list[Any] | None:
        return read_lines(directory / name) if (directory / name).exists() else None

    outside = directory / OUT_OF_SCOPE
    return Evidence(
        holdout=read_predictions(directory / PREDICTIONS),
        validation=read_predictions(directory / VALIDATION),
        out_of_scope=read_predictions(outside) if outside.exists() else None,
        batches=lines(BATCHES),
        vllm=lines(VLLM),
    )
