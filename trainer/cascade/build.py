"""One cascade, from two evaluated runs to a new run folder."""

from __future__ import annotations

import math
import os
import platform
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer import __version__
from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    EvaluatedAdapter,
    EvaluationRecord,
    PairAnswer,
    Prediction,
)
from trainer.artifacts.files import check_target, fresh_folder
from trainer.artifacts.training import AdapterName, DatasetName
from trainer.cascade.table import (
    ADAPTER,
    CASCADE,
    Answers,
    CascadeRecord,
    CascadeRow,
    Rule,
    StageRun,
    answers_of,
    check_together,
    describe_alone,
    make_row,
    may_answer,
    read_stage,
    verdict_of,
)
from trainer.dataset.folder import Example, open_dataset
from trainer.dataset.split import first_of_each
from trainer.evaluation.predictions import PRECISION, Outputs, predict, promised_by
from trainer.evaluation.summary import Predictions, Setup, summarize, write_predictions
from trainer.statistics.calibration import ece, nll
from trainer.statistics.cascade import messages_needed
from trainer.statistics.metrics import interval_of
from worker.contract import (
    Calibration,
    CascadeStage,
    Decision,
    Manifest,
    Probe,
    Reference,
    Thresholds,
    review_reasons,
    write_manifest,
)
from worker.contract.digest import sha256_json
from worker.contract.timestamps import rfc3339_now
from worker.contract.verify import ProbeFile, probes_path, write_probes

_MARGINS = (0.0025, 0.005, 0.01, 0.02, 0.03)
_CONFIDENCE = (0.01, 0.05, 0.1, 0.25, 0.5)
# A stage may give a label no probability, and JSON has no minus infinity.
_LEAST = 1e-12
_PROBES_PER_LABEL = 5


@dataclass(frozen=True, slots=True)
class CascadeRequest:
    """Two runs, the small model first.

    ``margin`` is the share by which the cascade may be worse than the last stage alone;
    ``precision`` None means the last stage's promise.
    """

    first: Path
    last: Path
    out: Path
    margin: float
    precision: float | None


def make_cascade(request: CascadeRequest) -> CascadeRecord:
    """Choose the thresholds on validation and write the run folder: the record and, if a cascade is
    worth it, the stages, their manifest, and the cascade's evaluation.

    No hold-out is opened: the stages' evaluations have their answers to it. Raises BadInput and
    AdapterRefused.
    """
    check_target(request.out, CASCADE.name)
    first, last = read_stage(request.first), read_stage(request.last)
    check_together(first, last)
    precision = _promised(request, last)
    tried = {
        margin: make_row(first, last, margin, precision=precision)
        for margin in sorted({*_MARGINS, request.margin})
    }
    row, rule = tried[request.margin]
    bound = None
    if verdict_of(row, first, last)[0] and rule is not None:
        bound = Bound(first, last, rule, _bind(request, first, last, rule, row))
    record = _describe(request, (first, last), [each for each, _ in tried.values()], row, bound)
    with fresh_folder(request.out) as draft:
        if bound is not None:
            write_adapter(draft, bound)
            evaluation = write_evaluation(draft, (request.out / ADAPTER).resolve(), bound)
            told = {"taught": evaluation.taught, "note": _note(first, last, evaluation)}
            record = record.model_copy(update=told)
        CASCADE.write(draft, record)
    return record


def _note(first: StageRun, last: StageRun, evaluation: EvaluationRecord) -> str | None:
    """Return why a stage has figures with the teacher's help and the cascade has none."""
    alone = [run for run in (first, last) if run.pool is not None]
    if evaluation.taught is not None or not alone:
        return None
    return (
        f"no accuracy with the teacher's help: only {alone[0].manifest.name} was evaluated on the "
        "messages that the teacher labelled: evaluate the other with --trained-on"
        if len(alone) == 1
        else "no accuracy with the teacher's help: the two were not evaluated on the same messages "
        "that the teacher labelled: evaluate both again"
    )


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
        name=f"{last.manifest.taxonomy.name}-cascade",
        created_at=rfc3339_now(),
        kind="cascade",
        base=last.manifest.base,
        taxonomy=last.manifest.taxonomy,
        prompt=first.manifest.prompt,
        calibration=Calibration(
            # Each stage has applied its own temperature already.
            1.0,
            len(decisions),
            nll(probabilities, truth),
            ece(confidence, correct),
        ),
        thresholds=rule.last,
        golden=first.manifest.golden,
        files={},
        stages=_stages(first, last, rule, row),
        reference=None
        if known is None
        else Reference(
            known.label_shares,
            # Without off-label mass and out-of-scope scores: those of the two stages are not on one
            # scale.
            {f"{at:g}": float(np.quantile(confidence, at)) for at in _CONFIDENCE},
            {},
        ),
        data={
            **last.manifest.data,
            **_imported(first, last),
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


def _imported(first: StageRun, last: StageRun) -> dict[str, Any]:
    """Return where a stage comes from that was trained elsewhere; of two the one for which no
    reason was given why it cannot have learnt these messages."""
    data = [run.manifest.data for run in (first, last)]
    found = [each["imported"] for each in data if "imported" in each]
    return {"imported": min(found, key=lambda each: bool(each.get("unseen")))} if found else {}


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
        needed = messages_needed(
            first.validation.confidence,
            may_answer(first.validation, first.limits),
            first.validation.correct,
            last.validation.correct,
            request.margin,
        )
    made = bound.manifest if bound else None
    worth_it, verdict = verdict_of(chosen, first, last)
    return CascadeRecord(
        created_at=rfc3339_now(),
        dataset=DatasetName(name=dataset.name, digest=dataset.digest, directory=dataset.directory),
        validation_messages=len(first.validation.ids),
        margin=request.margin,
        alone=(describe_alone(first), describe_alone(last)),
        rows=tuple(rows),
        chosen=chosen,
        worth_it=worth_it,
        verdict=verdict,
        messages_needed=needed,
        adapter=AdapterName(name=made.name, digest=made.digest) if made else None,
        holdout_accuracy=float(right.mean()) if made else None,
        holdout_accuracy_interval_95=interval_of(right, held.together) if made else None,
        holdout_last_alone=float(held.correct.mean()) if made else None,
    )


@dataclass(frozen=True, slots=True)
class Bound:
    """Two stages, the rule by which they answer, and the cascade's manifest."""

    first: StageRun
    last: StageRun
    rule: Rule
    manifest: Manifest

    @property
    def limits(self) -> Thresholds:
        """The review thresholds that apply to the cascade's own scores."""
        return replace(self.manifest.thresholds, review_disagreement=None, review_out_of_scope=None)


def write_adapter(draft: Path, bound: Bound) -> None:
    """Write the stages, each under its digest, and the cascade's manifest and probes."""
    for run in (bound.first, bound.last):
        shutil.copytree(run.adapter, draft / run.manifest.digest, copy_function=_link)
    (draft / ADAPTER).mkdir()
    write_manifest(draft / ADAPTER, bound.manifest)
    if probes := _probes(bound):
        file = ProbeFile(bound.manifest.digest, "validation", probes)
        write_probes(probes_path(draft / ADAPTER), file)


def write_evaluation(draft: Path, adapter: Path, bound: Bound) -> EvaluationRecord:
    """Write the cascade's evaluation and return it; its adapter will be at ``adapter``. Raw scores
    are the logarithms of the probabilities of the stage that answered."""
    folder = draft / EVALUATION_FOLDER
    folder.mkdir()
    first, last = bound.first, bound.last
    pool = _predict_common(first.pool, last.pool, bound)
    predictions = Predictions(
        holdout=_predict(first.holdout, last.holdout, bound),
        validation=_predict(first.validation, last.validation, bound),
        out_of_scope=_predict_common(first.out_of_scope, last.out_of_scope, bound),
        vllm=None,
        pairs=_predict_pairs(bound) or None,
        pool=pool,
        teacher=last.teacher if pool else None,
    )
    write_predictions(folder, predictions)
    record = _evaluation(adapter, bound, predictions)
    EVALUATION.write(folder, record)
    return record


def _link(source: str, target: str) -> None:
    """Hard-link a file, or copy it if the file system does not allow that."""
    # A stage can have gigabytes, and its run folder already has the same immutable files.
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _probes(bound: Bound) -> tuple[Probe, ...]:
    """Choose validation messages that both stages get right without review, so that the label does
    not depend on which stage answers or how a machine rounds."""
    first, last, rule = bound.first.validation, bound.last.validation, bound.rule
    messages = open_dataset(Path(bound.last.evaluation.dataset.directory)).validation
    examples = {example.id: example for example in messages}
    candidates: list[Example] = []
    for at, decision in enumerate(rule.decide(first, last)):
        other = last.decisions[at]
        agreed = first.decisions[at].label == other.label == decision.label == first.truth[at]
        accepted = not review_reasons(other, rule.last) and not rule.reasons(decision)
        example = examples.get(first.ids[at])
        if example is not None and agreed and accepted:
            candidates.append(example)
    places = [sha256_json([1, example.id]) for example in candidates]
    picked = first_of_each([each.label for each in candidates], places, _PROBES_PER_LABEL)
    return tuple(Probe(candidates[at].message, candidates[at].label) for at in picked)


def _evaluation(adapter: Path, bound: Bound, predictions: Predictions) -> EvaluationRecord:
    made, known = bound.manifest, bound.last.evaluation
    return summarize(
        Setup(
            created_at=made.created_at,
            adapter=EvaluatedAdapter(name=made.name, digest=made.digest, path=str(adapter)),
            dataset=known.dataset,
            outputs=Outputs(made.taxonomy.names),
            temperature=1.0,
            limits=bound.limits,
            wanted_precision=known.review.wanted_precision,
            # Nothing was run: the answers come from the stages' own evaluations.
            speeds=(),
            disjoint=known.disjoint,
            promised=promised_by(made),
        ),
        predictions,
    )


def _predict_common(
    first: Answers | None, last: Answers | None, bound: Bound
) -> list[Prediction] | None:
    """Return the cascade's predictions of messages that a stage need not have answered; None unless
    both answered the same."""
    if first is None or last is None or (first.ids, first.truth) != (last.ids, last.truth):
        return None
    return _predict(first, last, bound)


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


def _predict_pairs(bound: Bound) -> list[PairAnswer]:
    """Return the cascade's answers to the pairs that both stages answered, if they are the same."""
    first, last = bound.first, bound.last
    if [pair.id for pair in first.pairs] != [pair.id for pair in last.pairs]:
        return []

    def answer(take: Callable[[PairAnswer], Prediction]) -> list[Prediction]:
        one, other = (
            answers_of(run.manifest, [take(pair) for pair in run.pairs]) for run in (first, last)
        )
        return _predict(one, other, bound)

    steered, neutral = answer(lambda pair: pair.steered), answer(lambda pair: pair.neutral)
    return [
        pair.model_copy(update={"steered": with_it, "neutral": without})
        for pair, with_it, without in zip(last.pairs, steered, neutral, strict=True)
    ]


def _log(decision: Decision, label: str) -> float:
    return math.log(max(_LEAST, decision.scores.get(label, 0.0)))
