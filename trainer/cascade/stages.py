"""A run as a stage: its adapter, and what it answered on the messages that all stages answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    OUT_OF_SCOPE,
    PREDICTIONS,
    VALIDATION,
    EvaluatedDataset,
    EvaluationRecord,
    Prediction,
)
from trainer.errors import BadInput
from trainer.evaluation.predictions import logprobs_of, outputs_of
from trainer.statistics.calibration import Bools, Floats
from trainer.statistics.metrics import Groups, as_groups
from worker.contract import Decision, Manifest, load_adapter

_ADAPTER = "adapter"
_SERVED_BY = ("worker", "vllm")
_PARTS = ("train", "validation", "holdout")


@dataclass(frozen=True, slots=True)
class Answers:
    """What a stage thought of a set of messages, in their order; ``truth`` None: out of scope.
    Messages of one number in ``groups`` belong together (None: alone)."""

    ids: tuple[str, ...]
    truth: tuple[str | None, ...]
    decisions: tuple[Decision, ...]
    groups: tuple[int | None, ...] = ()

    @property
    def correct(self) -> Bools:
        """Where it is right, (messages)."""
        pairs = zip(self.decisions, self.truth, strict=True)
        return np.array([decision.label == label for decision, label in pairs], dtype=np.bool_)

    @property
    def together(self) -> Groups | None:
        """Which messages belong together, (messages); None: all are independent."""
        return as_groups(self.groups)

    @property
    def confidence(self) -> Floats:
        """How sure it is, (messages)."""
        return np.array([decision.confidence for decision in self.decisions])


@dataclass(frozen=True, slots=True)
class StageRun:
    """A run folder's adapter with its evaluation."""

    adapter: Path
    manifest: Manifest
    evaluation: EvaluationRecord
    validation: Answers
    holdout: Answers
    out_of_scope: Answers | None

    @property
    def messages_per_s(self) -> float | None:
        """How fast the worker's engine answered, else the trainer's; None: not measured."""
        speeds = {figures.name: figures.messages_per_s for figures in self.evaluation.engines}
        served = [speeds[name] for name in _SERVED_BY if name in speeds]
        return next(iter([*served, *speeds.values()]), None)


def read_stage(run: Path) -> StageRun:
    """Read and verify a run. Raises BadInput where it was not evaluated, AdapterRefused."""
    adapter, folder = run / _ADAPTER, run / EVALUATION_FOLDER
    manifest = load_adapter(adapter)
    if manifest.stages:
        raise BadInput(f"{run}: is a cascade itself: name the runs of its stages")
    evaluation = EVALUATION.read(folder)
    if evaluation.adapter.digest != manifest.digest:
        raise BadInput(f"{folder}: is of another adapter: run clerk-trainer evaluate {adapter}")
    if evaluation.limited:
        raise BadInput(f"{folder}: covers a part of the messages: evaluate without --limit")
    outside = OUT_OF_SCOPE.read_if_present(folder)
    return StageRun(
        adapter,
        manifest,
        evaluation,
        _answers(manifest, VALIDATION.read(folder)),
        _answers(manifest, PREDICTIONS.read(folder)),
        _answers(manifest, outside) if outside else None,
    )


def check_together(first: StageRun, last: StageRun) -> None:
    """Raise BadInput unless the two can be compared message by message."""
    one, other = first.evaluation.dataset, last.evaluation.dataset
    if first.manifest.digest == last.manifest.digest:
        raise BadInput("the two runs hold the same adapter: a cascade is of two")
    if first.manifest.taxonomy != last.manifest.taxonomy:
        raise BadInput("the two adapters have other taxonomies: train both on one dataset")
    if one.digest != other.digest or not _learnt_from_one((first.manifest, last.manifest), one):
        raise BadInput(
            "the two were not trained and evaluated on one dataset: one of them may have learnt "
            "from the messages that thresholds are chosen on; train and evaluate both on the same"
        )
    for ours, theirs in ((first.validation, last.validation), (first.holdout, last.holdout)):
        if (ours.ids, ours.truth) != (theirs.ids, theirs.truth):
            raise BadInput("the two evaluations do not hold the same messages: evaluate both again")


def _learnt_from_one(manifests: Sequence[Manifest], dataset: EvaluatedDataset) -> bool:
    """Whether all were trained on the messages of one dataset, the one that they were evaluated on:
    by its digest, or by those of its files where another version of ``prepare`` wrote them."""
    named = [each.data.get("digest") == dataset.digest for each in manifests]
    files = [[each.data.get(part, {}).get("sha256") for part in _PARTS] for each in manifests]
    return all(named) or (any(named) and None not in files[0] and files[0] == files[1])


def _answers(manifest: Manifest, predictions: Sequence[Prediction]) -> Answers:
    """Decide again from the raw scores, by the contract: a file may have been altered."""
    outputs = outputs_of(manifest)
    scores = logprobs_of(predictions, outputs)
    return Answers(
        tuple(prediction.id for prediction in predictions),
        tuple(prediction.label for prediction in predictions),
        tuple(outputs.decide(scores, manifest.calibration.temperature)),
        tuple(prediction.group for prediction in predictions),
    )
