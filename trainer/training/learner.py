"""The interfaces of the training loop (learner, objective), and validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from trainer.model.device import Compute
from trainer.model.prompt import Row
from trainer.model.scoring import PromptScorer
from trainer.statistics.calibration import Floats, Ints, fit_temperature, nll, temperature_softmax
from trainer.statistics.metrics import measure


class Learner(Protocol):
    """A model that is trained."""

    @property
    def device(self) -> torch.device:
        """The device of its weights."""

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients."""

    def head_parameters(self) -> list[Tensor]:
        """Return those of them that are newly initialized and have their own learning rate."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the trainable weights."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace the trainable weights. Raises BadInput."""

    def start_training(self) -> None:
        """Switch dropout on."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss to differentiate, and its two parts as numbers: sums in nats over the rows."""

    total: Tensor
    label: float
    sublabel: float
    tokens: int


class Objective(Protocol):
    """A loss function. ``head`` is an auxiliary layer that is discarded after training;
    ``has_sublabels`` is whether finer labels are part of the loss."""

    head: torch.nn.Linear | None
    has_sublabels: bool

    def __call__(self, rows: Sequence[Row], batch_rows: int) -> Loss:
        """Return the loss of ``rows``, part of a batch of ``batch_rows``; the losses of the parts
        add up to the batch's mean. Call it under autocast."""


@dataclass(frozen=True, slots=True)
class Validation:
    """Validation figures after an epoch: ``loss`` in nats per row, ``calibrated_loss`` with a
    temperature fitted on the same rows."""

    loss: float
    calibrated_loss: float
    accuracy: float
    macro_f1: float


# Keeps the logarithm finite for a probability that underflowed to 0.
_SMALLEST = 1e-300


class Validator:
    """Scores the validation rows with the current weights.

    ``label_of``, (outputs), is the label index of each of the model's outputs; None if output i is
    label i. ``held_out``, (rows, outputs), are the scores of models that did not learn the row,
    where all rows are learnt: they replace the model's own wherever it is judged.
    """

    held_out: Floats | None = None

    def __init__(
        self,
        scorer: PromptScorer,
        rows: Sequence[Row],
        labels: Sequence[str],
        compute: Compute,
        label_of: Ints | None = None,
    ) -> None:
        self._scorer = scorer
        self._prompts = [row.prompt for row in rows]
        self._labels = labels
        self._compute = compute
        self.label_of = label_of
        self.truth: Ints = np.array([labels.index(row.label) for row in rows], dtype=np.int64)

    def score(self, *, autocast: bool = False) -> Floats:
        """Return the raw scores of all rows, (rows, outputs)."""
        return self._scorer.score(self._prompts, autocast=autocast).logprobs

    def validate(self) -> Validation:
        """Return the figures after an epoch. The loss is over the labels' log-probabilities; those
        of codes are over the whole vocabulary."""
        scores = self.held_out
        if scores is None:
            # In the precision of training, because epochs are only compared with each other. The
            # temperature and the thresholds are fitted on scores of full precision (score_best).
            scores = self.score(autocast=self._compute.bf16)
        logprobs = scores
        if self.label_of is not None:
            probabilities = temperature_softmax(logprobs, 1.0, self.label_of)
            logprobs = np.log(np.maximum(probabilities, _SMALLEST))
        figures = measure(self.truth, logprobs.argmax(axis=1), self._labels)
        loss = float(-logprobs[np.arange(len(self.truth)), self.truth].mean())
        # No temperature fits a training that diverged; the loop reports it by the loss.
        calibrated = self._calibrated(scores) if math.isfinite(loss) else loss
        return Validation(loss, calibrated, figures.accuracy, figures.macro_f1)

    def _calibrated(self, scores: Floats) -> float:
        # Fitted on the rows it is measured on: one parameter hardly overfits, and cross-fitting
        # selected equally good epochs.
        temperature = fit_temperature(scores, self.truth, self.label_of)
        return nll(temperature_softmax(scores, temperature, self.label_of), self.truth)
