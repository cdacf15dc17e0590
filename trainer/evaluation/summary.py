"""Compute every figure of ``evaluation.json`` from predictions, and verify a record against them.

The same predictions always give the same figures, so anyone can recompute them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.evaluation import (
    EVALUATION,
    OUT_OF_SCOPE,
    PAIR_ANSWERS,
    POOL,
    PREDICTIONS,
    TEACHER_LABELS,
    VALIDATION,
    VLLM,
    Accepted,
    DisjointProof,
    EngineAgreement,
    EngineFigures,
    EngineLatency,
    EvaluatedAdapter,
    EvaluatedDataset,
    EvaluationRecord,
    HoldoutCalibration,
    KeptPromise,
    OutOfScope,
    OutsideLabels,
    PairAnswer,
    Prediction,
    ReviewFigures,
    Spread,
    TaughtFigures,
    TeacherLabel,
    WorkerAnswer,
)
from trainer.artifacts.files import LinesFile
from trainer.errors import ProofFailed
from trainer.evaluation.predictions import (
    Outputs,
    compare_answers,
    logprobs_of,
    outputs_from,
    predict,
)
from trainer.statistics.calibration import Bools, Floats, Ints, ece, nll, reliability
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.metrics import (
    Groups,
    as_groups,
    auroc,
    design_effect,
    interval_of,
    measure,
)
from trainer.statistics.prediction_powered import (
    count_answers,
    error_correlation,
    powered_accuracy,
    reachable,
)
from trainer.statistics.thresholds import LEVEL, accept, coverage_curve, proof, review_threshold
from trainer.steering.measure import measure_steering
from worker.contract import Thresholds

_WORKER_ENGINES = frozenset({"vllm", "worker"})
"""Names of engines that run in a worker: vLLM for language models, "worker" for encoders."""

_SLACK = 1e-9  # another machine's exponential may differ in the last digit


@dataclass(frozen=True, slots=True)
class EngineSpeed:
    """Messages a second over the hold-out, as measured on a machine."""

    name: str
    messages_per_s: float
    machine: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What predictions do not contain: identities, settings in force, and measured speeds.

    ``promised`` is the precision that the adapter promises without review, and the rule of its
    threshold; ``level`` that of the test on validation.
    """

    created_at: str
    adapter: EvaluatedAdapter
    dataset: EvaluatedDataset
    outputs: Outputs
    temperature: float
    limits: Thresholds
    wanted_precision: float
    speeds: tuple[EngineSpeed, ...]
    disjoint: DisjointProof | None = None
    promised: tuple[float, ThresholdRule] | None = None
    level: float = LEVEL

    @property
    def labels(self) -> tuple[str, ...]:
        """The label names, in the taxonomy's order."""
        return self.outputs.labels


@dataclass(frozen=True, slots=True)
class Predictions:
    """The predictions of each set; None if it was not measured."""

    holdout: Sequence[Prediction]
    validation: Sequence[Prediction]
    out_of_scope: Sequence[Prediction] | None
    vllm: Sequence[WorkerAnswer] | None
    pairs: Sequence[PairAnswer] | None = None
    pool: Sequence[Prediction] | None = None
    teacher: Sequence[TeacherLabel] | None = None


_FILES: Mapping[str, LinesFile[Any]] = {
    "holdout": PREDICTIONS,
    "validation": VALIDATION,
    "out_of_scope": OUT_OF_SCOPE,
    "vllm": VLLM,
    "pairs": PAIR_ANSWERS,
    "pool": POOL,
    "teacher": TEACHER_LABELS,
}
"""The file of each set of ``Predictions``."""


def write_predictions(folder: Path, predictions: Predictions) -> None:
    """Write a file for each set that was measured."""
    for name, file in _FILES.items():
        if (rows := getattr(predictions, name)) is not None:
            file.write(folder, rows)


def summarize(setup: Setup, predictions: Predictions) -> EvaluationRecord:
    """Return ``evaluation.json``. Raises ProofFailed if a prediction contradicts its scores or is
    not a label."""
    labels = setup.labels
    _verify(setup, predictions)
    holdout = predictions.holdout
    truth = np.array([labels.index(str(answer.label)) for answer in holdout], dtype=np.int64)
    predicted = np.array([labels.index(answer.predicted) for answer in holdout], dtype=np.int64)
    confidence = _confidence(holdout)
    correct = predicted == truth
    figures = measure(truth, predicted, labels, as_groups([each.group for each in holdout]))
    return EvaluationRecord(
        created_at=setup.created_at,
        adapter=setup.adapter,
        dataset=setup.dataset,
        labels=labels,
        examples=figures.examples,
        accuracy=figures.accuracy,
        accuracy_interval_95=figures.interval,
        design_effect=figures.effect,
        macro_f1=figures.macro_f1,
        per_label=figures.per_label,
        confusion=figures.confusion,
        outside_labels=_outside(holdout, labels),
        calibration=_calibration(setup, logprobs_of(holdout, setup.outputs), truth),
        coverage=tuple(coverage_curve(confidence, correct)),
        review=_review(setup, predictions, confidence, correct),
        promise=_promise(setup, predictions),
        off_label_mass=None if setup.outputs.head else _spread(_mass(holdout)),
        engines=tuple(_engine(speed, predictions) for speed in setup.speeds),
        agreement=_agreement(setup, predictions),
        out_of_scope=_out_of_scope(setup, predictions, confidence),
        steering=measure_steering(predictions.pairs, holdout) if predictions.pairs else None,
        disjoint=setup.disjoint,
        head=setup.outputs.to_record(),
        out_of_scope_score=_spread(_out_of_scope_scores(holdout)) if setup.outputs.head else None,
        taught=_taught(predictions),
    )


def _taught(predictions: Predictions) -> TaughtFigures | None:
    """Return the figures of adapter and teacher against people; None without a teacher."""
    holdout, pool = predictions.holdout, predictions.pool
    if not pool or not predictions.teacher:
        return None
    said = {each.id: each.label for each in predictions.teacher}
    labels = [said[each.id] for each in holdout]
    known = np.array([bool(label) for label in labels])
    right = np.array([each.predicted == each.label for each in holdout])
    agrees = np.array(
        [each.predicted == label for each, label in zip(holdout, labels, strict=True)]
    )
    follows = np.array([each.predicted == each.label for each in pool])
    groups = as_groups([each.group for each in holdout])
    pool_groups = as_groups([each.group for each in pool])
    found = powered_accuracy(
        count_answers(right, agrees, known, follows, groups=groups, pool_groups=pool_groups)
    )
    wrong = ~right[known]
    teacher_wrong = np.array(
        [each.label != label for each, label in zip(holdout, labels, strict=True)]
    )[known]
    teachers = interval_of(~teacher_wrong, None if groups is None else groups[known])
    agreement = float(follows.mean())
    accuracy = float((~teacher_wrong).mean()) if known.any() else 0.0
    return TaughtFigures(
        accuracy=found.value,
        accuracy_interval_95=found.interval,
        compared=int(known.sum()),
        pool=len(pool),
        agreement=agreement,
        agreement_interval_95=interval_of(follows, pool_groups),
        teacher_accuracy=accuracy,
        teacher_accuracy_interval_95=teachers,
        both_wrong=int((wrong & teacher_wrong).sum()),
        adapter_wrong=int((wrong & ~teacher_wrong).sum()),
        teacher_wrong=int((~wrong & teacher_wrong).sum()),
        error_correlation=error_correlation(wrong, teacher_wrong),
        reachable=reachable(agreement, (accuracy, accuracy)),
        reachable_95=reachable(agreement, teachers),
    )


def _verify(setup: Setup, predictions: Predictions) -> None:
    """Check that every answer is a label and follows from its scores."""
    for answer in predictions.vllm or ():
        if answer.predicted not in setup.labels:
            raise ProofFailed(f"answer {answer.id}: {answer.predicted!r} is not a label")
    pairs = predictions.pairs or ()
    for group in (
        predictions.holdout,
        predictions.validation,
        predictions.out_of_scope or (),
        predictions.pool or (),
        [pair.steered for pair in pairs],
        [pair.neutral for pair in pairs],
    ):
        again = predict(
            [prediction.id for prediction in group],
            [prediction.label for prediction in group],
            logprobs_of(group, setup.outputs),
            [prediction.unconstrained_in_set for prediction in group],
            outputs=setup.outputs,
            temperature=setup.temperature,
            limits=setup.limits,
            reasons=[prediction.reasons for prediction in group],
            groups=[prediction.group for prediction in group],
        )
        for given, found in zip(group, again, strict=True):
            if given.predicted not in setup.labels:
                raise ProofFailed(f"prediction {given.id}: {given.predicted!r} is not a label")
            close = math.isclose(given.confidence, found.confidence, abs_tol=_SLACK)
            close &= _is_close(given.off_label_mass, found.off_label_mass)
            close &= _is_close(given.out_of_scope, found.out_of_scope)
            if not close or (given.predicted, given.review) != (found.predicted, found.review):
                raise ProofFailed(f"prediction {given.id}: does not follow from its scores")


def _confidence(predictions: Sequence[Prediction]) -> Floats:
    return np.array([prediction.confidence for prediction in predictions])


def _mass(predictions: Sequence[Prediction]) -> Floats:
    return np.array([prediction.off_label_mass for prediction in predictions], dtype=np.float64)


def _out_of_scope_scores(predictions: Sequence[Prediction]) -> Floats:
    return np.array([prediction.out_of_scope for prediction in predictions], dtype=np.float64)


def _spread(values: Floats) -> Spread:
    p50, p99 = (float(np.quantile(values, quantile)) for quantile in (0.5, 0.99))
    return Spread(mean=float(values.mean()), p50=p50, p99=p99)


def _is_close(given: float | None, found: float | None) -> bool:
    if given is None or found is None:
        return given is found
    return math.isclose(given, found, rel_tol=_SLACK, abs_tol=_SLACK)


def _outside(holdout: Sequence[Prediction], labels: Sequence[str]) -> OutsideLabels:
    known = [
        prediction.unconstrained_in_set
        for prediction in holdout
        if prediction.unconstrained_in_set is not None
    ]
    return OutsideLabels(
        constrained=sum(prediction.predicted not in labels for prediction in holdout),
        unconstrained=known.count(False) if known else None,
        unconstrained_share=known.count(False) / len(known) if known else None,
    )


def _calibration(setup: Setup, logprobs: Floats, truth: Ints) -> HoldoutCalibration:
    calibrated = setup.outputs.probabilities(logprobs, setup.temperature)
    raw = setup.outputs.probabilities(logprobs, 1.0)
    correct = calibrated.argmax(axis=1) == truth
    return HoldoutCalibration(
        temperature=setup.temperature,
        nll=nll(calibrated, truth),
        nll_uncalibrated=nll(raw, truth),
        ece=ece(calibrated.max(axis=1), correct),
        ece_uncalibrated=ece(raw.max(axis=1), correct),
        reliability=tuple(reliability(calibrated.max(axis=1), correct)),
    )


def _review(
    setup: Setup, predictions: Predictions, confidence: Floats, correct: NDArray[np.bool_]
) -> ReviewFigures:
    """Return the thresholds in force, and the one for the wanted precision, fitted on validation
    only and applied to the hold-out."""
    review: Bools = np.array([prediction.review for prediction in predictions.holdout])
    right = np.array(
        [prediction.predicted == prediction.label for prediction in predictions.validation]
    )
    thresholds = {
        rule: review_threshold(
            _confidence(predictions.validation),
            right,
            setup.wanted_precision,
            # No floor: nothing is served by this threshold, it shows what the precision costs.
            floor=0.0,
            by=rule,
            groups=as_groups([each.group for each in predictions.validation]),
            level=setup.level,
        )
        if len(right)
        # No predictions: an adapter made by folds that was evaluated without its run folder.
        else 1.0
        for rule in get_args(ThresholdRule)
    }
    threshold = thresholds["lower"]
    wanted = accept(confidence, correct, threshold)
    by_point = accept(confidence, correct, thresholds["point"])
    return ReviewFigures(
        confidence_below=setup.limits.review_confidence,
        off_label_mass_above=setup.limits.review_off_label_mass,
        out_of_scope_above=setup.limits.review_out_of_scope,
        share=float(review.mean()),
        accepted_accuracy=float(correct[~review].mean()) if (~review).any() else None,
        wanted_precision=setup.wanted_precision,
        threshold_for_wanted=threshold,
        coverage_at_wanted=wanted.coverage,
        accuracy_at_wanted=wanted.accuracy,
        coverage_by_point=by_point.coverage,
        accuracy_by_point=by_point.accuracy,
        level=setup.level,
    )


def _promise(setup: Setup, predictions: Predictions) -> KeptPromise | None:
    if setup.promised is None:
        return None
    precision, by = setup.promised
    return KeptPromise(
        precision=precision,
        by=by,
        # Validation has to prove the promise; the hold-out can only refute it.
        validation=_accepted(
            predictions.validation, lambda right, groups: proof(right, groups, precision)
        ),
        holdout=_accepted(
            predictions.holdout, lambda right, groups: proof(~right, groups, 1 - precision)
        ),
    )


def _accepted(
    predictions: Sequence[Prediction], test: Callable[[Bools, Groups | None], float]
) -> Accepted:
    """Return the figures of the predictions without review; ``test`` gives a p-value from which of
    them are right and their groups."""
    kept = [each for each in predictions if not each.review]
    right = np.array([each.predicted == each.label for each in kept], dtype=np.bool_)
    groups = as_groups([each.group for each in kept])
    return Accepted(
        messages=len(kept),
        right=int(right.sum()),
        effect=design_effect(right, groups),
        p=test(right, groups),
    )


def _engine(speed: EngineSpeed, predictions: Predictions) -> EngineFigures:
    # Latency is measured one message at a time: the answer time of an idle worker.
    answers: Sequence[Prediction | WorkerAnswer] = predictions.holdout
    alone: list[float] = []
    if speed.name in _WORKER_ENGINES:
        assert predictions.vllm is not None
        answers = predictions.vllm
        alone = [
            answer.seconds_alone for answer in predictions.vllm if answer.seconds_alone is not None
        ]
    latency = None
    if alone:
        p50, p99 = (1000 * float(np.quantile(alone, quantile)) for quantile in (0.5, 0.99))
        latency = EngineLatency(p50=p50, p99=p99)
    return EngineFigures(
        name=speed.name,
        messages=len(answers),
        accuracy=sum(answer.predicted == answer.label for answer in answers) / len(answers),
        messages_per_s=speed.messages_per_s,
        latency_ms=latency,
        machine=speed.machine,
    )


def _agreement(setup: Setup, predictions: Predictions) -> EngineAgreement | None:
    if predictions.vllm is None or all(speed.name in _WORKER_ENGINES for speed in setup.speeds):
        return None
    return compare_answers(predictions.holdout, predictions.vllm, setup.outputs, setup.temperature)


def _out_of_scope(setup: Setup, predictions: Predictions, confidence: Floats) -> OutOfScope | None:
    outside = predictions.out_of_scope
    if not outside:
        return None
    score = _out_of_scope_scores if setup.outputs.head else _mass
    found = auroc(score(predictions.holdout), score(outside))
    return OutOfScope(
        messages=len(outside),
        auroc_confidence=auroc(_confidence(outside), confidence),
        auroc_off_label_mass=None if setup.outputs.head else found,
        auroc_out_of_scope=found if setup.outputs.head else None,
        review_share=sum(prediction.review for prediction in outside) / len(outside),
    )


def recompute(directory: Path) -> EvaluationRecord:
    """Return ``evaluation.json`` recomputed from the prediction files.

    Identities, settings and speeds are taken from the record, so the result equals the record
    unless a file was altered. Raises BadInput for unreadable files, ProofFailed for predictions
    that contradict their scores.
    """
    return summarize(_setup_of(EVALUATION.read(directory)), _read_predictions(directory))


def verify_evaluation(directory: Path) -> EvaluationRecord:
    """Return the record after comparing every figure with the recomputed one, to eight digits.

    Raises ProofFailed with the first figure that differs, and the errors of ``recompute``.
    """
    record = EVALUATION.read(directory)
    path = directory / EVALUATION.name
    in_file = json.loads(path.read_bytes())  # unvalidated, so that unknown keys are found too
    if place := _difference(in_file, recompute(directory).to_json(), ""):
        raise ProofFailed(f"{path}: {place} is not what the predictions give")
    return record


def _difference(given: Any, found: Any, place: str) -> str | None:
    """Return the dotted path of the first value that differs; None if all are equal."""
    if isinstance(given, dict) and isinstance(found, dict) and given.keys() == found.keys():
        places = (
            _difference(given.get(key), found[key], f"{place}.{key}".lstrip(".")) for key in found
        )
    elif isinstance(given, list) and isinstance(found, list) and len(given) == len(found):
        pairs = enumerate(zip(given, found, strict=True))
        places = (_difference(*pair, f"{place}[{at}]") for at, pair in pairs)
    elif isinstance(given, float) and isinstance(found, float):
        close = math.isclose(given, found, rel_tol=1e-8, abs_tol=1e-8)
        return None if close else place
    else:
        return None if given == found else place or "the set of its keys"
    return next((place for place in places if place), None)


def _setup_of(record: EvaluationRecord) -> Setup:
    return Setup(
        created_at=record.created_at,
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
        speeds=tuple(
            EngineSpeed(engine.name, engine.messages_per_s, engine.machine)
            for engine in record.engines
        ),
        disjoint=record.disjoint,
        promised=(record.promise.precision, record.promise.by) if record.promise else None,
        level=record.review.level,
    )


def _read_predictions(directory: Path) -> Predictions:
    found: dict[str, Any] = {name: file.read_if_present(directory) for name, file in _FILES.items()}
    # Every evaluation has these two: reading them raises an error that names file and command.
    for name in ("holdout", "validation"):
        found[name] = _FILES[name].read(directory)
    return Predictions(**found)
