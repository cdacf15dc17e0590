"""The parts of a training that all kinds of model share, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from trainer.artifacts.training import CalibrationFigures, ScoredExample, Step, ValidationFigures
from trainer.dataset.folder import Example
from trainer.model.device import Compute
from trainer.model.lora_model import round_weights
from trainer.statistics.calibration import Calibrated, Floats, Ints, calibrate, temperature_softmax
from trainer.statistics.figures import Figures
from trainer.statistics.metrics import measure
from trainer.statistics.thresholds import FOLD_LEVEL, LEVEL
from trainer.training.inputs import Inputs, weights_identity
from trainer.training.learner import Learner, Validation, Validator
from trainer.training.memory import MemoryPlan
from trainer.training.recipe import Recipe
from trainer.training.run_folder import Save, TrainState, has_checkpoint, load_checkpoint
from trainer.training.teacher import Teacher
from worker.contract import BaseModel, Manifest

# So these rules send at most 0.5 and 1 % of ordinary messages to review. The share of review is set
# by the promised precision, not here.
_OFF_LABEL_QUANTILE = 0.995
_OUT_OF_SCOPE_QUANTILE = 0.99
"""A message goes to review if its off-label mass (with a head: its energy) is above this quantile
over validation."""


class Loop(Protocol):
    """A training loop that can continue from a checkpoint."""

    state: TrainState

    @property
    def best(self) -> int:
        """The number of the best epoch."""

    @property
    def kept(self) -> str:
        """A description of the weights that are kept."""

    @property
    def stopped_early(self) -> bool:
        """Whether it stopped before its last epoch."""

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""

    def run(
        self,
        validate: Callable[[], Validation],
        say: Callable[[str], None],
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Train to the end. Raises BadInput if the loss is not a number."""


@dataclass(frozen=True, slots=True)
class Training:
    """The parts of one training. ``inputs`` and ``model`` are of the recipe's kind;
    ``total_weights`` counts the base's weights; ``teacher`` is None without distillation."""

    recipe: Recipe
    compute: Compute
    inputs: Inputs
    base: BaseModel
    total_weights: int
    plan: MemoryPlan
    model: Learner
    validator: Validator
    loop: Loop
    teacher: Teacher | None = None

    @property
    def name(self) -> str:
        """The adapter's name: the taxonomy's, followed by the kind unless that is a language model.
        The digest identifies an adapter; the name is for people."""
        taxonomy, kind = self.inputs.dataset.taxonomy.name, self.recipe.kind
        return taxonomy if kind == "lora-code" else f"{taxonomy}-{kind}"

    @property
    def compute_dtype(self) -> Literal["bfloat16", "float32"]:
        """The precision of forward and backward pass."""
        return "bfloat16" if self.compute.bf16 else "float32"

    @property
    def identity(self) -> dict[str, Any]:
        """The values that must not change between a checkpoint and the training that resumes it."""
        return weights_identity(self.recipe, self.inputs.dataset, self.base) | {
            # Other numbers of threads add in another order and round differently, so the resumed
            # weights would not be those of an uninterrupted training.
            "threads": torch.get_num_threads(),
            "bf16": self.compute.bf16,
            **({"teacher": self.teacher.record.teacher} if self.teacher else {}),
        }

    @property
    def taught(self) -> dict[str, Any]:
        """What the manifest says of the teacher."""
        return {"distillation": self.teacher.record.to_json()} if self.teacher else {}

    def resume(self, console: Console) -> None:
        """Continue from the run's checkpoint, if there is one. Raises BadInput."""
        if has_checkpoint(self.recipe.run):
            self.loop.restore(*load_checkpoint(self.recipe.run, self.identity))
            console.print(f"continuing after step {self.loop.state.step}")


class Kind(Protocol):
    """How a kind of model is trained and written."""

    def prepare(self, recipe: Recipe, compute: Compute, console: Console) -> Training:
        """Read the inputs, check rows, memory and forward pass, and load the model. Raises
        BadInput, ContractError and ProofFailed."""

    def as_served(self, training: Training) -> Training:
        """Return the training with the model in the precision in which workers load it."""

    def write(
        self, training: Training, result: Result, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write the adapter into the run folder, the manifest last, and check that the written
        files score validation as measured. Return the manifest, and the result calibrated on the
        scores of the file that workers prefer. Raises ProofFailed, AdapterRefused."""


@dataclass(frozen=True, slots=True)
class Result:
    """The best weights, rounded as in the file, and their ``logprobs``, (validation messages,
    outputs). ``truth``, (validation messages,), are the right labels' indexes, ``label_of``,
    (outputs,), those of a head's outputs. ``served`` are the raw scores of the file that workers
    prefer, if it computes differently (8-bit weights). ``held_out`` are those of models that did
    not learn the message, if the served one learnt all."""

    weights: dict[str, Tensor]
    logprobs: Floats
    outputs: tuple[str, ...]
    truth: Ints
    label_of: Ints | None
    figures: Figures
    calibrated: Calibrated
    served: Floats | None = None
    held_out: Floats | None = None
    folds: int | None = None

    @property
    def served_scores(self) -> Floats:
        """The raw scores, (validation messages, outputs), of the file that workers prefer."""
        return self.logprobs if self.served is None else self.served

    @property
    def unseen_scores(self) -> Floats:
        """The raw scores, (validation messages, outputs), that the calibration uses: without folds
        those of the file. The models of folds have no file, so the difference that 8-bit weights
        make to the served model's scores is added to theirs."""
        if self.held_out is None:
            return self.served_scores
        return self.held_out + (self.served_scores - self.logprobs)

    @property
    def probabilities(self) -> Floats:
        """Calibrated probabilities of the labels, (validation messages, labels)."""
        temperature = self.calibrated.calibration.temperature
        return temperature_softmax(self.unseen_scores, temperature, self.label_of)

    @property
    def chosen(self) -> Ints:
        """The index of the most probable label, (validation messages,)."""
        chosen: Ints = self.probabilities.argmax(axis=1)
        return chosen

    def scored_examples(
        self, validation: Sequence[Example], groups: Sequence[int | None]
    ) -> list[ScoredExample]:
        """Return the scores of every validation message as records."""
        return [
            ScoredExample(
                id=example.id,
                label=example.label,
                logprobs=dict(zip(self.outputs, scores, strict=True)),
                group=group,
            )
            for example, scores, group in zip(
                validation, self.unseen_scores.tolist(), groups, strict=True
            )
        ]

    def validation_figures(self) -> ValidationFigures:
        """Return the validation figures of the manifest and the training record."""
        return ValidationFigures(
            examples=self.figures.examples,
            accuracy=self.figures.accuracy,
            accuracy_interval_95=self.figures.interval,
            macro_f1=self.figures.macro_f1,
            accepted_share=self.calibrated.accepted_share,
            accepted_precision=self.calibrated.accepted_precision,
            point_accepted_share=self.calibrated.point_accepted_share,
            promise=self.calibrated.promise,
            folds=self.folds,
        )

    def calibration_figures(self) -> CalibrationFigures:
        """Return the calibration figures of the training record."""
        fitted = self.calibrated.calibration
        assert fitted.nll is not None
        assert fitted.ece is not None
        return CalibrationFigures(
            temperature=fitted.temperature,
            examples=fitted.examples,
            nll=fitted.nll,
            ece=fitted.ece,
            nll_uncalibrated=self.calibrated.raw_nll,
            ece_uncalibrated=self.calibrated.raw_ece,
            ece_by_chance=self.calibrated.ece_by_chance,
        )


def score_best(training: Training) -> Result:
    """Load the best weights, rounded as in the file, into the model and calibrate them."""
    # Rounded first: the temperature and the thresholds must fit the weights that are served.
    weights = round_weights(training.loop.state.best, training.recipe.weights_dtype)
    training.model.load_state_dict(weights)
    validator, folds = training.validator, training.inputs.folds
    logprobs = validator.score()
    unseen = logprobs if validator.held_out is None else validator.held_out
    return Result(
        weights,
        logprobs,
        training.inputs.outputs,
        validator.truth,
        validator.label_of,
        *_judge(training, unseen),
        held_out=validator.held_out,
        folds=None if folds is None else len(np.unique(folds)),
    )


def calibrate_as_served(training: Training, result: Result, served: Floats) -> Result:
    """Return the result calibrated on ``served``, (validation messages, outputs), the raw scores of
    the file that workers prefer."""
    result = replace(result, served=served)
    figures, calibrated = _judge(training, result.unseen_scores)
    return replace(result, figures=figures, calibrated=calibrated)


def _judge(training: Training, scores: Floats) -> tuple[Figures, Calibrated]:
    validator = training.validator
    return judge(training.recipe, training.inputs, scores, validator.truth, validator.label_of)


def judge(
    recipe: Recipe, inputs: Inputs, scores: Floats, truth: Ints, label_of: Ints | None
) -> tuple[Figures, Calibrated]:
    """Calibrate raw scores of the validation messages, (messages, outputs), and measure them."""
    calibrated = calibrate(
        scores,
        truth,
        review_precision=recipe.review_precision,
        review_floor=recipe.review_floor,
        review_precision_by=recipe.review_precision_by,
        off_label_quantile=_OFF_LABEL_QUANTILE,
        seed=recipe.seed,
        label_of=label_of,
        out_of_scope_quantile=_OUT_OF_SCOPE_QUANTILE if recipe.has_head else None,
        groups=inputs.validation_groups,
        level=LEVEL if inputs.folds is None else FOLD_LEVEL,
    )
    temperature = calibrated.calibration.temperature
    predicted = temperature_softmax(scores, temperature, label_of).argmax(axis=1)
    return measure(truth, predicted, inputs.labels, inputs.validation_groups), calibrated
