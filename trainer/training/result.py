"""The epoch that is kept: its weights as they are published, and what they give on validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from trainer.artifacts.training import CalibrationFigures, ScoredExample, ValidationFigures
from trainer.dataset.folder import Example
from trainer.model.lora_model import LoraModel, round_weights
from trainer.statistics.calibration import Calibrated, Floats, calibrate
from trainer.statistics.figures import Figures
from trainer.statistics.metrics import measure
from trainer.training.inputs import Inputs
from trainer.training.objective import Validator
from trainer.training.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Result:
    """The kept weights, rounded as the file holds them; ``logprobs``, (validation messages,
    labels), are raw."""

    weights: dict[str, Tensor]
    logprobs: Floats
    figures: Figures
    calibrated: Calibrated

    def scored_examples(
        self, validation: Sequence[Example], labels: Sequence[str]
    ) -> list[ScoredExample]:
        """Return every validation message's scores for a file."""
        return [
            ScoredExample(
                id=example.id, label=example.label, logprobs=dict(zip(labels, scores, strict=True))
            )
            for example, scores in zip(validation, self.logprobs.tolist(), strict=True)
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
    model: LoraModel,
    validator: Validator,
    inputs: Inputs,
) -> Result:
    """Load the best epoch's weights, as the file will hold them, into ``model`` and calibrate
    them. All processes score a share and have the same result."""
    weights = round_weights(best, recipe.adapter_dtype)
    model.load_state_dict(weights)
    logprobs = validator.score()
    calibrated = calibrate(
        logprobs,
        validator.truth,
        review_precision=recipe.review_precision,
        review_floor=recipe.review_floor,
        review_precision_by=recipe.review_precision_by,
        off_label_quantile=recipe.off_label_quantile,
        seed=recipe.seed,
    )
    figures = measure(validator.truth, logprobs.argmax(axis=1), inputs.labels)
    return Result(weights, logprobs, figures, calibrated)
