"""Compute the result of each margin on validation, from the stages' recorded answers.

Contains the records of ``cascade.json``, the stages as evaluated, and the rule by which they
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    OUT_OF_SCOPE,
    PAIR_ANSWERS,
    POOL,
    PREDICTIONS,
    TEACHER_LABELS,
    VALIDATION,
    EvaluationRecord,
    PairAnswer,
    Prediction,
    TaughtFigures,
    TeacherLabel,
)
from trainer.artifacts.files import Record, RecordFile
from trainer.artifacts.training import AdapterName, DatasetName, Interval
from trainer.commands import command
from trainer.dataset.folder import open_dataset
from trainer.errors import BadInput
from trainer.evaluation.predictions import logprobs_of, made_by_folds, outputs_of
from trainer.statistics.calibration import Bools, Floats
from trainer.statistics.cascade import LEAST_SHARE, Choice, choose_threshold, combine
from trainer.statistics.metrics import Groups, as_groups, interval_of
from trainer.statistics.thresholds import review_threshold
from worker.contract import (
    Decision,
    Manifest,
    ReviewReason,
    Thresholds,
    load_adapter,
    review_reasons,
)

ADAPTER = "adapter"
_SERVED_BY = ("worker", "vllm")
_TRIES = 10


class CascadeRow(Record):
    """The result of one margin on validation.

    The first stage answers from confidence ``sure_from`` on (None: no part is shown to be
    harmless). ``accepted_precision`` is the accuracy without review (None: everything is
    reviewed); ``promise_shown`` is whether the first stage is shown to keep the promised precision.
    ``messages_per_s`` and ``relative_cost``, per message compared with the last stage alone, follow
    from the stages' measured speeds (None if one was not measured).
    """

    margin: float
    sure_from: float | None
    first_share: float
    last_share: float
    review_share: float
    accepted_precision: float | None = None
    promise_shown: bool = True
    accuracy: float
    accuracy_interval_95: Interval
    p_value: float | None
    messages_per_s: float | None
    relative_cost: float | None


class AloneRow(Record):
    """One stage without the other, with its own thresholds, on the same messages."""

    adapter: AdapterName
    review_share: float | None = None
    accepted_precision: float | None = None
    accuracy: float
    accuracy_interval_95: Interval
    messages_per_s: float | None


class CascadeRecord(Record):
    """``cascade.json``. ``holdout_accuracy`` is of the chosen margin, from the stages' answers to
    the hold-out; ``worth_it`` is whether each stage answers enough. ``taught`` is None without a
    teacher, or if the two did not answer the same of its messages (``note``)."""

    schema_id: Literal["cascade/1"] = Field("cascade/1", alias="schema")
    created_at: str
    dataset: DatasetName
    validation_messages: int
    margin: float
    alone: tuple[AloneRow, ...]
    rows: tuple[CascadeRow, ...]
    chosen: CascadeRow | None
    worth_it: bool
    verdict: str
    messages_needed: int | None
    adapter: AdapterName | None
    holdout_accuracy: float | None
    holdout_accuracy_interval_95: Interval | None
    holdout_last_alone: float | None
    taught: TaughtFigures | None = None
    note: str | None = None


CASCADE = RecordFile("cascade.json", CascadeRecord, "clerk-trainer cascade")


@dataclass(frozen=True, slots=True)
class Answers:
    """A stage's decisions on a set of messages, in order; ``truth`` is None if no label fits.
    Messages with the same number in ``groups`` belong together (None: independent)."""

    ids: tuple[str, ...]
    truth: tuple[str | None, ...]
    decisions: tuple[Decision, ...]
    groups: tuple[int | None, ...] = ()

    @property
    def correct(self) -> Bools:
        """Whether each answer is right, (messages)."""
        pairs = zip(self.decisions, self.truth, strict=True)
        return np.array([decision.label == label for decision, label in pairs], dtype=np.bool_)

    @property
    def together(self) -> Groups | None:
        """The group of each message, (messages); None if all are independent."""
        return as_groups(self.groups)

    @property
    def confidence(self) -> Floats:
        """The confidences, (messages)."""
        return np.array([decision.confidence for decision in self.decisions])


@dataclass(frozen=True, slots=True)
class StageRun:
    """A run folder's adapter with its evaluation; ``pool`` are its answers to messages that a
    teacher labelled, and ``teacher`` that teacher's labels of the hold-out, if there are any."""

    adapter: Path
    manifest: Manifest
    evaluation: EvaluationRecord
    validation: Answers
    holdout: Answers
    out_of_scope: Answers | None
    pairs: tuple[PairAnswer, ...]
    pool: Answers | None = None
    teacher: tuple[TeacherLabel, ...] = ()

    @property
    def limits(self) -> Thresholds:
        """The thresholds, other than its confidence, that keep it from answering as first stage."""
        return replace(self.manifest.thresholds, review_confidence=None)

    @property
    def messages_per_s(self) -> float | None:
        """The speed of the worker's engine, else of the trainer's; None if not measured."""
        speeds = {figures.name: figures.messages_per_s for figures in self.evaluation.engines}
        # The worker's engine first: it is the one that will serve.
        served = [speeds[name] for name in _SERVED_BY if name in speeds]
        return next(iter([*served, *speeds.values()]), None)


def read_stage(run: Path) -> StageRun:
    """Read and verify a run. Raises BadInput if it was not evaluated, and AdapterRefused."""
    adapter, folder = run / ADAPTER, run / EVALUATION_FOLDER
    manifest = load_adapter(adapter)
    if manifest.stages:
        raise BadInput(f"{run}: is a cascade itself: give the runs of its stages")
    evaluation = EVALUATION.read(folder)
    if evaluation.adapter.digest != manifest.digest:
        raise BadInput(f"{folder}: is of another adapter: run {command('evaluate', adapter)}")
    outside, pool = OUT_OF_SCOPE.read_if_present(folder), POOL.read_if_present(folder)
    validation = VALIDATION.read(folder)
    if made_by_folds(manifest):
        # Its predictions by folds include training messages, which the other stage has learnt.
        dataset = open_dataset(Path(evaluation.dataset.directory))
        known = {example.id for example in dataset.validation}
        validation = tuple(each for each in validation if each.id in known)
    return StageRun(
        adapter,
        manifest,
        evaluation,
        answers_of(manifest, validation),
        answers_of(manifest, PREDICTIONS.read(folder)),
        answers_of(manifest, outside) if outside else None,
        tuple(PAIR_ANSWERS.read_if_present(folder) or ()),
        answers_of(manifest, pool) if pool else None,
        tuple(TEACHER_LABELS.read_if_present(folder) or ()),
    )


def check_together(first: StageRun, last: StageRun) -> None:
    """Raise BadInput unless the two can be compared message by message."""
    one, other = first.evaluation.dataset, last.evaluation.dataset
    if first.manifest.digest == last.manifest.digest:
        raise BadInput("the two runs have the same adapter: a cascade needs two different ones")
    if first.manifest.taxonomy != last.manifest.taxonomy:
        raise BadInput("the two adapters have different taxonomies: train both on one dataset")
    learnt = {each.manifest.data.get("digest") for each in (first, last)}
    if one.digest != other.digest or learnt != {one.digest}:
        raise BadInput(
            "the two adapters were not trained and evaluated on one dataset, so one may have "
            "learnt from the messages that thresholds are chosen on: use one dataset for both"
        )
    for ours, theirs in ((first.validation, last.validation), (first.holdout, last.holdout)):
        if (ours.ids, ours.truth) != (theirs.ids, theirs.truth):
            raise BadInput("the two evaluations are not of the same messages: evaluate both again")


def answers_of(manifest: Manifest, predictions: Sequence[Prediction]) -> Answers:
    """Decide again from the raw scores, because the file's decisions may have been altered."""
    outputs = outputs_of(manifest)
    scores = logprobs_of(predictions, outputs)
    return Answers(
        tuple(prediction.id for prediction in predictions),
        tuple(prediction.label for prediction in predictions),
        tuple(outputs.decide(scores, manifest.calibration.temperature)),
        tuple(prediction.group for prediction in predictions),
    )


@dataclass(frozen=True, slots=True)
class Rule:
    """When the first stage answers, and when a message goes to review.

    ``first`` are the other thresholds that keep the first stage from answering, ``last`` the review
    thresholds of the last stage; its ``review_confidence`` applies to the cascade.
    """

    sure_from: float
    first: Thresholds
    last: Thresholds

    def answers(self, stage: Answers) -> Bools:
        """Where the first stage answers, (messages)."""
        return combine(stage.confidence, may_answer(stage, self.first), self.sure_from)

    def decide(self, first: Answers, last: Answers) -> list[Decision]:
        """Return the cascade's decision on each message, as a worker makes it."""
        return [
            one if sure else replace(other, earlier=(one,))
            for sure, one, other in zip(
                self.answers(first), first.decisions, last.decisions, strict=True
            )
        ]

    def reasons(self, decision: Decision) -> tuple[ReviewReason, ...]:
        """Return why a decision of the cascade goes to review; empty if it does not."""
        return review_reasons(decision, self.last if decision.earlier else self.first)


def may_answer(stage: Answers, thresholds: Thresholds) -> Bools:
    """Return where only its confidence can keep a stage from answering, (messages)."""
    return np.array(
        [not review_reasons(decision, thresholds) for decision in stage.decisions], dtype=np.bool_
    )


def make_rule(first: StageRun, last: StageRun, choice: Choice, *, precision: float) -> Rule | None:
    """Return the rule of a choice, with thresholds that keep ``precision`` without review by its
    lower bound; None if no part of the first stage's answers is shown to keep it.

    The first stage's answers are not reviewed. It therefore answers from the confidence at which it
    keeps the promise alone, or from ``choice.sure_from`` if that is higher. If the cascade's review
    threshold is higher still, it is raised again. Raising gives the last stage more messages, and
    the smaller parts were tested before the larger ones of ``choice``, so the margin still holds.
    If the first stage answers nearly everything, no review threshold can be chosen for the last.
    """
    may = may_answer(first.validation, first.limits)
    together = first.validation.together
    # Not the margin's threshold alone: in simulations the promise was then broken in 16 to 100 % of
    # trainings, and like this in 0 to 4.9 % (python -m tests.bench.cascade_promise).
    kept_from = review_threshold(
        first.validation.confidence[may],
        first.validation.correct[may],
        precision,
        floor=choice.sure_from,
        groups=None if together is None else together[may],
    )
    if kept_from >= 1.0:
        return None
    # 0: any other label of the first stage. The worker's review.disagreement overrides it.
    reviewed = replace(last.manifest.thresholds, review_disagreement=0.0)
    rule = Rule(kept_from, first.limits, reviewed)
    share = float(rule.answers(first.validation).mean())
    # Repeated, because a higher sure_from changes the answers that the review threshold is chosen
    # on.
    for _ in range(_TRIES if share <= 1 - LEAST_SHARE else 0):
        decisions = rule.decide(first.validation, last.validation)
        right = _right(decisions, first.validation)
        # The first stage's answers are not reviewed: with a confidence of 1 every threshold accepts
        # them.
        sure = np.array([1.0 if not each.earlier else each.confidence for each in decisions])
        confidence = review_threshold(sure, right, precision, floor=0.5, groups=together)
        rule = replace(rule, last=replace(rule.last, review_confidence=confidence))
        # A threshold of 1 proves nothing: then the last stage's answers all go to review.
        if rule.sure_from >= min(confidence, 1.0) or confidence >= 1.0:
            break
        rule = replace(rule, sure_from=confidence)
    return rule


def make_row(
    first: StageRun, last: StageRun, margin: float, *, precision: float
) -> tuple[CascadeRow, Rule | None]:
    """Try a margin: return the table's row, and the rule (None if the last stage answers all)."""
    choice = choose_threshold(
        first.validation.confidence,
        may_answer(first.validation, first.limits),
        first.validation.correct,
        last.validation.correct,
        margin,
        first.validation.together,
    )
    rule = None
    if choice is not None:
        rule = make_rule(first, last, choice, precision=precision)
    if choice is None or rule is None:
        reviewed = ~may_answer(last.validation, last.manifest.thresholds)
        row = _row(first, last, margin, 0.0, last.validation.correct, reviewed)
        return row.model_copy(update={"promise_shown": choice is None}), None
    decisions = rule.decide(first.validation, last.validation)
    row = _row(
        first,
        last,
        margin,
        float(rule.answers(first.validation).mean()),
        _right(decisions, first.validation),
        np.array([bool(rule.reasons(decision)) for decision in decisions]),
    )
    return row.model_copy(update={"sure_from": rule.sure_from, "p_value": choice.p_value}), rule


def describe_alone(run: StageRun) -> AloneRow:
    """Return the figures of a stage alone on validation."""
    correct = run.validation.correct
    reviewed = ~may_answer(run.validation, run.manifest.thresholds)
    return AloneRow(
        adapter=AdapterName(name=run.manifest.name, digest=run.manifest.digest),
        review_share=float(reviewed.mean()),
        accepted_precision=_mean(correct[~reviewed]),
        accuracy=float(correct.mean()),
        accuracy_interval_95=interval_of(correct, run.validation.together),
        messages_per_s=run.messages_per_s,
    )


def verdict_of(row: CascadeRow, first: StageRun, last: StageRun) -> tuple[bool, str]:
    """Return whether a cascade is worth it, and what to do instead."""
    least = f"less than {LEAST_SHARE:.0%}"
    if not row.promise_shown:
        return False, (
            f"a cascade is not worth it: no part of {first.manifest.name}'s answers is shown to "
            f"keep the promised precision without review: serve {last.manifest.name} alone, or "
            "promise less (--precision)"
        )
    if row.first_share < LEAST_SHARE:
        return False, (
            f"a cascade is not worth it: {first.manifest.name} would answer {row.first_share:.1%}, "
            f"{least}: serve {last.manifest.name} alone"
        )
    if row.last_share < LEAST_SHARE:
        return False, (
            f"a cascade is not worth it: {last.manifest.name} would answer {row.last_share:.1%}, "
            f"{least}: {first.manifest.name} is as good within the margin, serve it alone"
        )
    return True, (
        f"{first.manifest.name} answers {row.first_share:.1%} and {last.manifest.name} "
        f"{row.last_share:.1%}, with {row.accuracy:.2%} right on validation"
    )


def _row(
    first: StageRun,
    last: StageRun,
    margin: float,
    share: float,
    correct: Bools,
    reviewed: Bools,
) -> CascadeRow:
    speed = _speed(first, last, share)
    alone = last.messages_per_s
    return CascadeRow(
        margin=margin,
        sure_from=None,
        first_share=share,
        last_share=1 - share,
        review_share=float(np.mean(reviewed)),
        accepted_precision=_mean(correct[~reviewed]),
        accuracy=float(correct.mean()),
        accuracy_interval_95=interval_of(correct, first.validation.together),
        p_value=None,
        messages_per_s=speed,
        relative_cost=None if speed is None or alone is None else alone / speed,
    )


def _mean(correct: Bools) -> float | None:
    return float(correct.mean()) if len(correct) else None


def _speed(first: StageRun, last: StageRun, share: float) -> float | None:
    """Return messages per second if both stages share the machine each was measured on."""
    if first.messages_per_s is None or last.messages_per_s is None:
        return None
    if share == 0:
        return last.messages_per_s
    # Every message takes the first stage's time, and a share of them the last one's in addition.
    return 1 / (1 / first.messages_per_s + (1 - share) / last.messages_per_s)


def _right(decisions: list[Decision], stage: Answers) -> Bools:
    pairs = zip(decisions, stage.truth, strict=True)
    return np.array([decision.label == label for decision, label in pairs], dtype=np.bool_)
