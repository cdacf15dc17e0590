"""The epoch that is kept: its weights as they are published, and what they give on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from trainer.artifacts.training import CalibrationFigures, ScoredExample, ValidationFigures
from trainer.dataset.folder import Example
from trainer.model.lora_model import round_weights
from trainer.statistics.calibration import Calibrated, Floats, calibrate, temperature_softmax
from trainer.statistics.figures import Figures
from trainer.statistics.metrics import measure
from trainer.training.inputs import Inputs
from trainer.training.learner import Learner
from trainer.training.recipe import Recipe
from trainer.training.validation import Validator

_OFF_LABEL_QUANTILE = 0.995
_OUT_OF_SCOPE_QUANTILE = 0.99
"""Messages go to review that fit less than these shares of validation, by their off-label mass, or
with a head by its energy."""


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


def score_best(
    best: Mapping[str, Tensor],
    recipe: Recipe,
    model: Learner,
    validator: Validator,
    inputs: Inputs[Any],
) -> Result:
    """Load the best epoch's weights, as the file will hold them, into ``model`` and calibrate
    them. All processes score a share and have the same result."""
    weights = round_weights(best, recipe.weights_dtype)
    model.load_state_dict(weights)
    logprobs = validator.score()
    figures, calibrated = _judge(logprobs, recipe, validator, inputs)
    return Result(weights, logprobs, inputs.outputs, figures, calibrated)


def as_served(
    result: Result, served: Floats, recipe: Recipe, validator: Validator, inputs: Inputs[Any]
) -> Result:
    """Return a result calibrated on ``served``, (validation messages, outputs): raw scores of the
    file that workers take first."""
    figures, calibrated = _judge(served, recipe, validator, inputs)
    return replace(result, figures=figures, calibrated=calibrated, served=served)


def _judge(
    scores: Floats, recipe: Recipe, validator: Validator, inputs: Inputs[Any]
) -> tuple[Figures, Calibrated]:
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
