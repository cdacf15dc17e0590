"""The files of an evaluation: the figures on the hold-out, and the predictions behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from trainer.artifacts.files import LinesFile, Record, RecordFile
from trainer.artifacts.training import DatasetName, Interval
from trainer.errors import BadInput
from trainer.statistics.figures import CoveragePoint, LabelFigures, ReliabilityBin, ThresholdRule
from worker.contract.head import OutOfScopeMethod
from worker.contract.scoring import ReviewReason

EVALUATION_FOLDER = "evaluation"
"""Where ``clerk-trainer evaluate`` writes, next to the adapter."""


PROBES_NAME = "probes.json"
"""Written messages that the adapter gets right, with text: the only private file of an
evaluation."""


class EvaluatedAdapter(Record):
    """The evaluated adapter and its path."""

    name: str
    digest: str
    path: str


class EvaluatedDataset(DatasetName):
    """The hold-out, how often it had been opened, this time included, and how many of its labels
    come from each source, and of those on which the thresholds were chosen. Empty sources mean the
    export. ``tried`` are the digests of the adapters that were evaluated on it, in order, this one
    included."""

    holdout_sha256: str
    openings: int
    tried: tuple[str, ...] = ()
    holdout_sources: dict[str, int] = Field(default_factory=dict)
    validation_sources: dict[str, int] = Field(default_factory=dict)


class DisjointProof(Record):
    """A comparison to show that a hold-out is unseen: both datasets and the hold-out's file by
    digest, the number of messages on each side, and how many hold-out messages are copies of seen
    messages, near-copies (Jaccard index of at least ``similarity``), or others with the id of one.
    Each counts once."""

    trained_on: str
    evaluated_on: str
    holdout_sha256: str
    similarity: float
    seen_messages: int
    holdout_messages: int
    copies: int
    near_copies: int
    same_ids: int

    @property
    def shared(self) -> int:
        """The number of hold-out messages that were seen in any form."""
        return self.copies + self.near_copies + self.same_ids

    def describe(self) -> str:
        """Return the numbers by kind, as text."""
        return (
            f"{self.copies} copies, {self.near_copies} near-copies, {self.same_ids} more by their "
            "ids"
        )


class OutsideLabels(Record):
    """Answers outside the label set, with and without the constraint to it (None: the engine does
    not report it)."""

    constrained: int
    unconstrained: int | None
    unconstrained_share: float | None


class HoldoutCalibration(Record):
    """NLL (nats) and ECE on the hold-out, under the adapter's temperature and without it."""

    temperature: float
    nll: float
    nll_uncalibrated: float
    ece: float
    ece_uncalibrated: float
    reliability: tuple[ReliabilityBin, ...]


class ReviewFigures(Record):
    """The thresholds in force and their effect; then the threshold for the wanted precision, by its
    lower bound on validation, applied to the hold-out.

    ``coverage_by_point`` and ``accuracy_by_point`` are those of the threshold by the point value:
    the difference is the cost of the guarantee.
    """

    confidence_below: float | None
    off_label_mass_above: float | None
    out_of_scope_above: float | None = None
    share: float
    accepted_accuracy: float | None
    wanted_precision: float
    threshold_for_wanted: float
    coverage_at_wanted: float
    accuracy_at_wanted: float | None
    coverage_by_point: float
    accuracy_by_point: float | None
    level: float = 0.95


class Accepted(Record):
    """Messages without review, and how many are right. ``effect`` grouped messages count as one
    independent message. ``p`` is one-sided and exact."""

    messages: int
    right: int
    effect: float
    p: float


class KeptPromise(Record):
    """Tests of the promised precision of labels without review, on validation and on the hold-out.

    ``precision`` was promised by its lower bound or as the share found (``by``). The null
    hypothesis on validation, on which the threshold was chosen, is "the precision is below the
    promised one"; on the hold-out it is "the precision is at least the promised one".
    """

    precision: float
    by: ThresholdRule
    validation: Accepted
    holdout: Accepted


class Spread(Record):
    """A value over the hold-out's answers: off-label mass, or the out-of-scope score."""

    mean: float
    p50: float
    p99: float


class EngineLatency(Record):
    """Latency in milliseconds, one message at a time."""

    p50: float
    p99: float


class EngineFigures(Record):
    """One engine's results on the hold-out, and its machine."""

    name: str
    messages: int
    accuracy: float
    messages_per_s: float
    latency_ms: EngineLatency | None
    machine: str


class EngineAgreement(Record):
    """The differences between the worker's engine and transformers on the same messages.

    ``widest_tie`` is the largest gap, among messages with different labels, between the two labels'
    probabilities by transformers; within the tolerance it is a tie, which rounding may decide
    either way.
    """

    messages: int
    labels_differ: int
    widest_tie: float
    max_confidence_difference: float
    tolerance: float


class OutOfScope(Record):
    """How well messages that fit no label are detected, by confidence and by off-label mass or,
    with a head, by its out-of-scope score; and how many would go to review."""

    messages: int
    auroc_confidence: float
    auroc_off_label_mass: float | None
    auroc_out_of_scope: float | None = None
    review_share: float


class Flips(Record):
    """How many answers become the label that is named, of ``pairs``: with an instruction, with the
    neutral sentence, and with one of them alone. The interval is that of the share with an
    instruction; ``effect`` of the pairs count as one, since several have the same message."""

    pairs: int
    steered: int
    neutral: int
    steered_only: int
    neutral_only: int
    effect: float
    interval_95: Interval

    @property
    def excess(self) -> float:
        """The share of answers that the instruction flips beyond the neutral sentence."""
        return (self.steered - self.neutral) / self.pairs


class FamilyFlips(Record):
    """The flips by one family of instructions. ``unseen``: training has no sentence of the kind."""

    family: str
    unseen: bool
    every: Flips
    unreviewed: Flips


class SteeringFigures(Record):
    """Whether a sentence in a message can choose its label: all flips, and those that no reviewer
    sees. ``sentences`` is the digest of the instructions, for others give other figures."""

    sentences: str
    seed: int
    every: Flips
    unreviewed: Flips
    families: tuple[FamilyFlips, ...]


class OutputName(Record):
    """An output of a head, and its label."""

    name: str
    label: str


class HeadRecord(Record):
    """The outputs of a model with a head, in order, and its method to detect messages that fit
    none of them."""

    out_of_scope: OutOfScopeMethod
    outputs: tuple[OutputName, ...]


class TaughtFigures(Record):
    """The adapter and its teacher, both against people.

    People decided the hold-out, drawn at random; the teacher labelled ``compared`` of it, and the
    ``pool``, which the adapter has not learnt. ``accuracy`` is that of all messages, by hold-out
    and pool. ``agreement`` is the share of the pool with the teacher's label. Of the ``compared``,
    ``both_wrong`` have two wrong labels, the others one; ``error_correlation`` is None if one of
    the two makes no mistake. ``reachable`` bounds the accuracy on messages that the teacher labels:
    see ``trainer.statistics.prediction_powered``.
    """

    accuracy: float
    accuracy_interval_95: Interval
    compared: int
    pool: int
    agreement: float
    agreement_interval_95: Interval
    teacher_accuracy: float
    teacher_accuracy_interval_95: Interval
    both_wrong: int
    adapter_wrong: int
    teacher_wrong: int
    error_correlation: float | None
    reachable: Interval
    reachable_95: Interval


class EvaluationRecord(Record):
    """``evaluation.json``. ``confusion[i][j]`` counts messages of true label i with predicted label
    j; ``design_effect`` grouped messages count
    as one in the accuracy's interval. ``promise`` is None if the adapter promises no precision."""

    schema_id: Literal["evaluation/1"] = Field("evaluation/1", alias="schema")
    created_at: str
    adapter: EvaluatedAdapter
    dataset: EvaluatedDataset
    labels: tuple[str, ...]
    examples: int
    accuracy: float
    accuracy_interval_95: Interval
    design_effect: float = 1.0
    macro_f1: float
    per_label: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    outside_labels: OutsideLabels
    calibration: HoldoutCalibration
    coverage: tuple[CoveragePoint, ...]
    review: ReviewFigures
    promise: KeptPromise | None = None
    off_label_mass: Spread | None = None
    engines: tuple[EngineFigures, ...]
    agreement: EngineAgreement | None = None
    out_of_scope: OutOfScope | None = None
    steering: SteeringFigures | None = None
    disjoint: DisjointProof | None = None
    head: HeadRecord | None = None
    out_of_scope_score: Spread | None = None
    taught: TaughtFigures | None = None


class TeacherLabel(Record):
    """The teacher's label of a held-out message, by its id; empty if the teacher gave none."""

    id: str
    label: str


class Answer(Record):
    """One message's answer, by its id. ``label`` is the true one (None: out of scope),
    ``unconstrained_in_set`` is true if the most probable token was a label's code (None: the engine
    does not report it). A model with a head has an out-of-scope score and no off-label mass. A
    cascade gives ``reasons`` for a review, since its scores do not show which stage found a message
    out of scope. Messages of one ``group`` (a thread, or near-copies; None: alone) count as fewer
    in tests."""

    id: str
    label: str | None
    predicted: str
    confidence: float
    off_label_mass: float | None
    out_of_scope: float | None = None
    review: bool
    unconstrained_in_set: bool | None
    reasons: tuple[ReviewReason, ...] | None = None
    group: int | None = None


class Prediction(Answer):
    """An answer with the scores behind it: ``logprobs`` is the raw natural log-probability of
    each label's code over the whole vocabulary, or the raw logit of each of a head's outputs.
    ``language`` is that of a held-out message, as it was found (``trainer.languages``)."""

    logprobs: dict[str, float]
    language: str = ""


class PairAnswer(Record):
    """The answers to a held-out ``message`` (its id) with an instruction that names another label,
    and with a neutral sentence in its place. In both, ``label`` is the one that is named."""

    id: str
    message: str
    family: str
    position: str
    sentences: int
    steered: Prediction
    neutral: Prediction


class WorkerAnswer(Record):
    """One message's answer by the worker's engine. ``scores`` are calibrated probabilities,
    ``seconds_alone`` is the time of an answer that was requested alone."""

    id: str
    label: str
    predicted: str
    confidence: float
    off_label_mass: float | None
    scores: dict[str, float]
    seconds_alone: float | None


_COMMAND = "clerk-trainer evaluate"

EVALUATION = RecordFile("evaluation.json", EvaluationRecord, _COMMAND)
PREDICTIONS = LinesFile("predictions.jsonl", Prediction, _COMMAND)
ANSWERS = LinesFile("predictions.jsonl", Answer, _COMMAND)
"""The same file without the scores, the form that a store keeps."""
VALIDATION = LinesFile("validation_predictions.jsonl", Prediction, _COMMAND)
OUT_OF_SCOPE = LinesFile("out_of_scope_predictions.jsonl", Prediction, _COMMAND)
PAIR_ANSWERS = LinesFile("steering_answers.jsonl", PairAnswer, _COMMAND)
POOL = LinesFile("teacher_pool_predictions.jsonl", Prediction, _COMMAND)
"""The answers to messages that only the teacher labelled; ``label`` is the teacher's."""
TEACHER_LABELS = LinesFile("teacher_labels.jsonl", TeacherLabel, _COMMAND)
VLLM = LinesFile("vllm_predictions.jsonl", WorkerAnswer, _COMMAND)


def check_unique(answers: tuple[Answer, ...], path: Path) -> None:
    """Raise BadInput if an id occurs twice; ``path`` is the answers' file."""
    seen: set[str] = set()
    for number, answer in enumerate(answers, start=1):
        if answer.id in seen:
            raise BadInput(f"{path}:{number}: the id {answer.id!r} occurs twice")
        seen.add(answer.id)


# --- audit: What an audit of a hold-out's labels leaves, next to the evaluation that it corrects.


class Relabelled(Record):
    """The number of audited messages of a given label with another true one (None: no label
    fits)."""

    given: str
    true: str | None
    messages: int


class AuditRecord(Record):
    """``audit.json``. ``label_error_rate`` is the hold-out's. ``accuracy`` is by the given labels,
    as in the evaluation, ``corrected_accuracy`` by the true ones. Of the ``audited`` messages,
    ``gained`` have a right answer and a wrong given label; ``lost`` the opposite."""

    schema_id: Literal["audit/1"] = Field("audit/1", alias="schema")
    created_at: str
    adapter: EvaluatedAdapter
    dataset: EvaluatedDataset
    examples: int
    audited: int
    label_errors: int
    label_error_rate: float
    label_error_rate_interval_95: Interval
    accuracy: float
    accuracy_interval_95: Interval
    corrected_accuracy: float
    corrected_accuracy_interval_95: Interval
    gained: int
    lost: int
    relabelled: tuple[Relabelled, ...]


AUDIT = RecordFile("audit.json", AuditRecord, "clerk-trainer audit")
