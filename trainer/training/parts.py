"""Everything that takes part in one training, whatever the kind of model, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import torch
from rich.console import Console
from torch import Tensor

from trainer.artifacts.training import CalibrationFigures, ScoredExample, Step, ValidationFigures
from trainer.dataset.folder import Example
from trainer.model.device import ProcessGroup
from trainer.model.lora_model import round_weights
from trainer.statistics.calibration import Calibrated, Floats, calibrate, temperature_softmax
from trainer.statistics.figures import Figures
from trainer.statistics.metrics import measure
from trainer.training.console import Progress
from trainer.training.inputs import Inputs, weights_identity
from trainer.training.learner import Learner, Validation, Validator
from trainer.training.memory import MemoryPlan
from trainer.training.objective import Teacher
from trainer.training.recipe import Recipe
from trainer.training.run_folder import Save, TrainState, has_checkpoint, load_checkpoint
from worker.contract import BaseModel, Manifest

_OFF_LABEL_QUANTILE = 0.995
_OUT_OF_SCOPE_QUANTILE = 0.99
"""Messages go to review that fit less than these shares of validation, by their off-label mass, or
with a head by its energy."""


class Loop(Protocol):
    """What learns, epoch by epoch, and can go on from a checkpoint."""

    state: TrainState

    @property
    def best(self) -> int:
        """Number of the epoch that is kept."""

    @property
    def kept(self) -> str:
        """What is kept, for people."""

    @property
    def stopped_early(self) -> bool:
        """Whether it ended before its last epoch."""

    def restore(self, state: TrainState, state_dicts: Mapping[str, Any]) -> None:
        """Continue from a checkpoint."""

    def run(
        self,
        validate: Callable[[], Validation],
        progress: Progress,
        *,
        save: Save,
        save_every_s: float,
        on_step: Callable[[Step], None],
    ) -> None:
        """Train to the end. Raises BadInput when the loss is not a number."""


@dataclass(frozen=True, slots=True)
class Training:
    """Everything that takes part in one training. ``inputs`` and ``model`` are those of the
    recipe's kind; ``total_weights`` counts the base's; ``teacher`` is None without
    distillation."""

    recipe: Recipe
    group: ProcessGroup
    inputs: Inputs[Any]
    base: BaseModel
    total_weights: int
    plan: MemoryPlan
    model: Learner
    validator: Validator
    loop: Loop
    teacher: Teacher | None = None

    @property
    def compute_dtype(self) -> Literal["bfloat16", "float32"]:
        """In which precision forward and backward pass run."""
        return "bfloat16" if self.group.bf16 else "float32"

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to be continued from."""
        return weights_identity(self.recipe, self.inputs.dataset, self.base) | {
            "threads": torch.get_num_threads(),
            "processes": self.group.world_size,
            "bf16": self.group.bf16,
            **({"teacher": self.teacher.record.teacher} if self.teacher else {}),
        }

    def resume(self, console: Console) -> None:
        """Continue from the run's checkpoint, if there is one. Raises BadInput."""
        if has_checkpoint(self.recipe.run):
            self.loop.restore(*load_checkpoint(self.recipe.run, self.identity))
            console.print(f"continuing after step {self.loop.state.step}")


class Kind(Protocol):
    """How a kind of model is trained and written down."""

    def prepare(self, recipe: Recipe, group: ProcessGroup, console: Console) -> Training:
        """Read the inputs, check the rows, the memory and the forward pass, and load the model.
        Raises BadInput, ContractError and ProofFailed."""

    def as_served(self, training: Training) -> Training:
        """Return the training with the model in the precision in which workers hold it."""

    def write(
        self, training: Training, result: Result, *, created_at: str, outcome: Mapping[str, Any]
    ) -> tuple[Manifest, Result]:
        """Write the adapter into the run folder, the manifest last, and check that what is on disk
        scores validation as it was measured. Return the manifest, and the result as it is served:
        calibrated on the scores of the file that workers take first. Raises ProofFailed,
        AdapterRefused."""


@dataclass(frozen=True, slots=True)
class Result:
    """The kept weights, rounded as the file holds them; ``logprobs``, (validation messages,
    outputs), are the model's raw scores with them, by the outputs' names. ``served`` are those of
    the file that workers take first, where it computes otherwise (8-bit weights)."""

    weights: dict[str, Tensor]
    logprobs: Floats
    outputs: tuple[str, ...]
    figures: Figures
    calibrated: Calibrated
    served: Floats | None = None

    @property
    def served_scores(self) -> Floats:
        """The raw scores, (validation messages, outputs), that it is calibrated on."""
        return self.logprobs if self.served is None else self.served

    def scored_examples(self, validation: Sequence[Example]) -> list[ScoredExample]:
        """Return every validation message's scores for a file."""
        return [
            ScoredExample(
                id=example.id,
                label=example.label,
                logprobs=dict(zip(self.outputs, scores, strict=True)),
            )
            for example, scores in zip(validation, self.served_scores.tolist(), strict=True)
        ]

    def validation_figures(self) -> ValidationFigures:
        """Return what a manifest and a training's record say of validation."""
        return ValidationFigures(
            examples=self.figures.examples,
            accuracy=self.figures.accuracy,
            accuracy_interval_95=self.figures.interval,
            macro_f1=self.figures.macro_f1,
            accepted_share=self.calibrated.accepted_share,
            accepted_precision=self.calibrated.accepted_precision,
            point_accepted_share=self.calibrated.point_accepted_share,
            promise=self.calibrated.promise,
        )

    def calibration_figures(self) -> CalibrationFigures:
        """Return how well the temperature fits."""
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
        )


def score_best(training: Training) -> Result:
    """Load the best epoch's weights, as the file will hold them, into the model and calibrate
    them. All processes score a share and have the same result."""
    weights = round_weights(training.loop.state.best, training.recipe.weights_dtype)
    training.model.load_state_dict(weights)
    logprobs = training.validator.score()
    return Result(weights, logprobs, training.inputs.outputs, *_judge(training, logprobs))


def calibrate_as_served(training: Training, result: Result, served: Floats) -> Result:
    """Return a result calibrated on ``served``, (validation messages, outputs): raw scores of the
    file that workers take first."""
    figures, calibrated = _judge(training, served)
    return replace(result, figures=figures, calibrated=calibrated, served=served)


def _judge(training: Training, scores: Floats) -> tuple[Figures, Calibrated]:
    recipe, validator, inputs = training.recipe, training.validator, training.inputs
    calibrated = calibrate(
        scores,
        validator.truth,
        review_precision=recipe.review_precision,
        review_floor=recipe.review_floor,
        review_precision_by=recipe.review_precision_by,
        off_label_quantile=_OFF_LABEL_QUANTILE,
        seed=recipe.seed,
        label_of=validator.label_of,
        out_of_scope_quantile=_OUT_OF_SCOPE_QUANTILE if recipe.has_head else None,
        groups=inputs.validation_groups,
    )
    temperature = calibrated.calibration.temperature
    predicted = temperature_softmax(scores, temperature, validator.label_of).argmax(axis=1)
    return measure(validator.truth, predicted, inputs.labels, inputs.validation_groups), calibrated
