"""The records in a run's folder (training.json and others)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.files import LinesFile, Record, RecordFile
from trainer.statistics.figures import Promise
from worker.contract import Manifest

Interval = tuple[float, float]
"""Lower and upper end of a 95 % interval."""


class AdapterName(Record):
    """An adapter's name and digest."""

    name: str
    digest: str


class DatasetName(Record):
    """A dataset's name, digest, directory, and messages by language (of a sample)."""

    name: str
    digest: str
    directory: str
    languages: dict[str, int] = Field(default_factory=dict)


class BaseName(Record):
    """A base model; ``license`` and ``languages`` (codes) are those named in its ``directory``."""

    name: str
    revision: str
    license: str | None = None
    languages: tuple[str, ...] = ()
    directory: str | None = None


class Machine(Record):
    """The machine on which a speed was measured."""

    cpu: str
    cores: int | None
    threads: int
    device: str
    memory_bytes: int
    system: str


class Epoch(Record):
    """One epoch's figures. Losses are in nats a row. Speeds exclude validation; ``tokens_per_s``
    counts prompt tokens as served, prefix included."""

    number: int
    train_loss: float
    sublabel_loss: float | None
    validation_loss: float
    validation_calibrated_loss: float
    validation_accuracy: float
    validation_macro_f1: float
    seconds: float
    examples_per_s: float
    tokens_per_s: float


class ParameterCounts(Record):
    """The numbers of trained and of all weights."""

    trainable: int
    total: int


class ValidationFigures(Record):
    """The kept weights on the validation set. ``accepted_share`` is not sent to review;
    ``point_accepted_share`` would not be if the threshold were chosen by the point value.
    ``promise`` is there if validation does not prove the promised precision. ``folds`` None: a
    separate validation split; otherwise the figures are of so many models that did not learn the
    message, and the adapter learnt all of them."""

    examples: int
    accuracy: float
    accuracy_interval_95: Interval
    macro_f1: float
    accepted_share: float
    accepted_precision: float | None
    point_accepted_share: float
    promise: Promise | None = None
    folds: int | None = None


class CalibrationFigures(Record):
    """The temperature fitted on validation, with NLL (nats) and ECE with and without it. Perfect
    confidences have an ECE of up to ``ece_by_chance`` on as many messages, in 95 % of all cases."""

    temperature: float
    examples: int
    nll: float
    ece: float
    nll_uncalibrated: float
    ece_uncalibrated: float
    ece_by_chance: float


class OnnxFigures(Record):
    """One ONNX file of an encoder on the validation set: its accuracy; the messages with another
    label than in the trainer's float32; the largest differences of a confidence, and of a logit of
    a golden prompt; and the temperature and calibration error of its own scores."""

    file: str
    precision: Literal["fp32", "int8"]
    bytes: int
    accuracy: float
    labels_differ: int
    max_confidence_difference: float
    max_golden_difference: float
    temperature: float
    ece: float | None


class MemoryEstimate(Record):
    """The estimated bytes that the training needs, and the bytes that were free before it."""

    base: int
    adapter: int
    activations: int
    logits: int
    served_base: int
    scoring: int
    overhead: int
    total: int
    free: int


class TrackedRun(Record):
    """The tracker, project and run with a training's figures."""

    tracker: Literal["mlflow", "tensorboard"]
    project: str
    run: str


class Distillation(Record):
    """The teacher, and the share of training messages with whose label it agrees."""

    teacher: str
    agreement: float


class Difference(Record):
    """Two ways to ask one model, message by message: the labels that differ, and the largest
    difference of a label's probability, without a temperature, if both give one."""

    messages: int
    labels_differ: int
    max_probability_difference: float | None = None


class LearntPrompts(Record):
    """How many of the prompts in a training file that were compared have the tokens that a worker
    sends, and the place of the first token that differs, counted from 0."""

    compared: int
    same_tokens: int
    first_difference: int | None = None


class Imported(Record):
    """A model that was trained elsewhere, and how what is served differs from it.

    ``unseen`` is the reason that was given why the model cannot have learnt the dataset's messages;
    None: what it learnt is unknown. The first three differences are over validation: ``served``,
    what workers prefer and the original with its own prompt (of a LoRA adapter transformers'
    generation); of classifiers ``text``, the original with our prompt and with its own, and
    ``graph``, the ONNX file in float32 and the original, on the same prompts. ``raw`` is like
    ``served``, over messages that nothing had cleaned, if some were given. ``options`` are those of
    the command that say how to read the model, and its settings.
    """

    form: Literal["huggingface", "onnx", "lora"]
    source: str
    options: tuple[str, ...]
    unseen: str | None
    original_accuracy: float
    served_accuracy: float
    served: Difference
    text: Difference | None = None
    graph: Difference | None = None
    raw: Difference | None = None
    prompts: LearntPrompts | None = None

    def to_manifest(self) -> dict[str, str | None]:
        """Return what an adapter's manifest says of its import."""
        return {"form": self.form, "learnt": "unknown", "unseen": self.unseen}


def said_unseen(manifest: Manifest) -> str | None:
    """Return the reason given at an import why the model cannot have learnt its dataset's messages;
    empty if none was given, None for an adapter that was trained here."""
    imported = manifest.data.get("imported")
    return None if imported is None else str(imported.get("unseen") or "")


LEARNT_UNKNOWN = (
    "what the imported model learnt is unknown, so it may be these messages: if it cannot have, "
    "import it again with --unseen REASON"
)


class TrainingRecord(Record):
    """``training.json``: how an adapter was made. ``recipe`` and ``seeds`` are settings by name.
    One that was ``imported`` has no epochs, and no ``memory`` was estimated.

    ``seconds`` is the whole command, ``training_seconds`` the epochs alone; ``resumed`` counts
    how often it continued from a checkpoint.
    """

    schema_id: Literal["training/2"] = Field("training/2", alias="schema")
    name: str
    created_at: str
    adapter: AdapterName
    dataset: DatasetName
    base: BaseName
    recipe: dict[str, Any]
    seeds: dict[str, int]
    machine: Machine
    compute_dtype: Literal["bfloat16", "float32"]
    gradient_checkpointing: bool
    tokens_per_message: float
    epochs: tuple[Epoch, ...]
    best_epoch: int
    kept: str
    stopped_early: bool
    steps: int
    resumed: int
    parameters: ParameterCounts
    validation: ValidationFigures
    calibration: CalibrationFigures
    memory: MemoryEstimate | None
    peak_memory_bytes: int
    seconds: float
    training_seconds: float
    versions: dict[str, str]
    tracking: TrackedRun | None = None
    onnx: tuple[OnnxFigures, ...] | None = None  # of encoders
    distillation: Distillation | None = None
    imported: Imported | None = None


class Step(Record):
    """One optimizer step; losses are in nats a row, ``examples`` counts those seen so far."""

    step: int
    epoch: int
    examples: int
    loss: float
    sublabel_loss: float | None
    learning_rate: float
    gradient_norm: float
    examples_per_s: float


class ScoredExample(Record):
    """A validation message by its id: the raw log-probability of each label's code, or the raw
    logit of each of a head's outputs. Messages of one ``group`` belong together."""

    id: str
    label: str
    logprobs: dict[str, float]
    group: int | None = None


TRAINING = RecordFile("training.json", TrainingRecord, "clerk-trainer train")
STEPS = LinesFile("steps.jsonl", Step, "clerk-trainer train")
VALIDATION_SCORES = LinesFile("validation_predictions.jsonl", ScoredExample, "clerk-trainer train")
