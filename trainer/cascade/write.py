"""A cascade's run folder: the stages, the manifest that binds them, the evaluation of the whole."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    OUT_OF_SCOPE,
    PREDICTIONS,
    VALIDATION,
    EvaluatedAdapter,
    EvaluationRecord,
    Prediction,
)
from trainer.cascade.stages import Answers, StageRun
from trainer.cascade.table import Rule
from trainer.dataset.folder import Example, open_dataset
from trainer.dataset.split import first_of_each
from trainer.evaluation.predictions import Outputs, predict, promised_by
from trainer.evaluation.summary import Predictions, Setup, summarize
from worker.contract import Decision, Manifest, Probe, Thresholds, review_reasons, write_manifest
from worker.contract.digest import sha256_json
from worker.contract.probes import ProbeFile, probes_path, write_probes

ADAPTER = "adapter"

_LEAST = 1e-12
_PROBES_PER_LABEL = 5


@dataclass(frozen=True, slots=True)
class Bound:
    """Two stages, the rule by which they answer, and the manifest that says so."""

    first: StageRun
    last: StageRun
    rule: Rule
    manifest: Manifest

    @property
    def limits(self) -> Thresholds:
        """The thresholds of review that the whole's own scores can tell of."""
        return replace(self.manifest.thresholds, review_disagreement=None, review_out_of_scope=None)


def write_adapter(draft: Path, bound: Bound) -> None:
    """Write the stages, each under its digest, the manifest beside them, and its probes."""
    for run in (bound.first, bound.last):
        shutil.copytree(run.adapter, draft / run.manifest.digest, copy_function=_link)
    (draft / ADAPTER).mkdir()
    write_manifest(draft / ADAPTER, bound.manifest)
    if probes := _probes(bound):
        file = ProbeFile(bound.manifest.digest, "validation", probes)
        write_probes(probes_path(draft / ADAPTER), file)


def write_evaluation(draft: Path, adapter: Path, bound: Bound) -> None:
    """Write what the whole answers as an evaluation of its own, whose adapter will be in
    ``adapter``. Its raw scores are the logarithms of the probabilities of the stage that answered.
    """
    folder = draft / EVALUATION_FOLDER
    folder.mkdir()
    first, last = bound.first, bound.last
    outside = None
    if first.out_of_scope and last.out_of_scope and first.out_of_scope.ids == last.out_of_scope.ids:
        outside = _predict(first.out_of_scope, last.out_of_scope, bound)
    predictions = Predictions(
        holdout=_predict(first.holdout, last.holdout, bound),
        validation=_predict(first.validation, last.validation, bound),
        out_of_scope=outside,
        batches=None,
        vllm=None,
    )
    PREDICTIONS.write(folder, predictions.holdout)
    VALIDATION.write(folder, predictions.validation)
    if outside is not None:
        OUT_OF_SCOPE.write(folder, outside)
    EVALUATION.write(folder, _evaluation(adapter, bound, predictions))


def _link(source: str, target: str) -> None:
    """Name a file a second time where that can be done, else copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _probes(bound: Bound) -> tuple[Probe, ...]:
    """Messages of validation that both stages get right and no person would look at: whichever of
    the two answers, and however another machine rounds, the label is the same."""
    first, last, rule = bound.first.validation, bound.last.validation, bound.rule
    messages = open_dataset(Path(bound.last.evaluation.dataset.directory)).validation
    examples = {example.id: example for example in messages}
    candidates: list[Example] = []
    for at, decision in enumerate(rule.decide(first, last)):
        thought = last.decisions[at]
        agreed = first.decisions[at].label == thought.label == decision.label == first.truth[at]
        calm = not review_reasons(thought, rule.last) and not rule.reviews(decision)
        example = examples.get(first.ids[at])
        if example is not None and agreed and calm:
            candidates.append(example)
    places = [sha256_json([1, example.id]) for example in candidates]
    picked = first_of_each([each.label for each in candidates], places, _PROBES_PER_LABEL)
    return tuple(Probe(candidates[at].message, candidates[at].label) for at in picked)


def _evaluation(adapter: Path, bound: Bound, predictions: Predictions) -> EvaluationRecord:
    made, known = bound.manifest, bound.last.evaluation
    return summarize(
        Setup(
            created_at=made.created_at,
            limited=False,
            adapter=EvaluatedAdapter(name=made.name, digest=made.digest, path=str(adapter)),
            dataset=known.dataset,
            outputs=Outputs(made.taxonomy.names),
            temperature=1.0,
            limits=bound.limits,
            wanted_precision=known.review.wanted_precision,
            tolerance=0.0,
            speeds=(),
            disjoint=known.disjoint,
            promised=promised_by(made),
        ),
        predictions,
    )


def _predict(first: Answers, last: Answers, bound: Bound) -> list[Prediction]:
    rule, names = bound.rule, bound.manifest.taxonomy.names
    decisions = rule.decide(first, last)
    scores = np.array([[_log(decision, name) for name in names] for decision in decisions])
    return predict(
        first.ids,
        first.truth,
        scores.reshape(len(decisions), len(names)),
        [None] * len(decisions),
        outputs=Outputs(names),
        temperature=1.0,
        limits=bound.limits,
        reasons=[rule.reasons(decision) for decision in decisions],
        groups=first.groups or None,
    )


def _log(decision: Decision, label: str) -> float:
    return math.log(max(_LEAST, decision.scores.get(label, 0.0)))
