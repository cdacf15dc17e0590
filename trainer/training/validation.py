"""The validation set, scored again and again as the weights change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from trainer.model.device import ProcessGroup
from trainer.model.scoring import PromptScorer
from trainer.statistics.calibration import (
    Floats,
    Ints,
    fit_temperature,
    nll,
    temperature_softmax,
)
from trainer.statistics.metrics import measure
from trainer.training.learner import LearnerRow, Validation

_SMALLEST = 1e-300


class Validator:
    """Scores the same rows again and again, as the weights change.

    ``label_of``, (outputs), says for which label each of the model's outputs counts; None: each
    for the one at its place.
    """

    def __init__(
        self,
        scorer: PromptScorer,
        rows: Sequence[LearnerRow],
        labels: Sequence[str],
        group: ProcessGroup,
        label_of: Ints | None = None,
    ) -> None:
        self._scorer = scorer
        self._prompts = [row.prompt for row in rows]
        self._labels = labels
        self._group = group
        self.label_of = label_of
        self.truth: Ints = np.array([labels.index(row.label) for row in rows], dtype=np.int64)

    @property
    def is_alone(self) -> bool:
        """Whether one process scores everything."""
        return self._group.world_size == 1

    def score(self, *, autocast: bool = False) -> Floats:
        """Return the model's raw scores, (rows, outputs), of all rows on every process."""
        outputs = len(self._labels) if self.label_of is None else len(self.label_of)
        scores = np.empty((len(self._prompts), outputs))
        shard = self._group.shard(self._prompts)
        own = np.empty((0, outputs))
        if shard:
            own = self._scorer.score(shard, autocast=autocast).logprobs
        for rank, part in enumerate(self._group.all_gather([own])):
            scores[rank :: self._group.world_size] = part
        return scores

    def validate(self) -> Validation:
        """Return the figures that training looks at after an epoch. The loss is of the labels'
        log-probabilities: those of codes are over the whole vocabulary."""
        scores = logprobs = self.score(autocast=self._group.bf16)
        if self.label_of is not None:
            probabilities = temperature_softmax(logprobs, 1.0, self.label_of)
            logprobs = np.log(np.maximum(probabilities, _SMALLEST))
        figures = measure(self.truth, logprobs.argmax(axis=1), self._labels)
        loss = float(-logprobs[np.arange(len(self.truth)), self.truth].mean())
        calibrated = self._calibrated(scores) if math.isfinite(loss) else loss
        return Validation(loss, calibrated, figures.accuracy, figures.macro_f1)

    def _calibrated(self, scores: Floats) -> float:
        """Return the loss under the temperature fitted on the same rows: one number, which hardly
        flatters them (cross-fitted, epochs as good are kept: docs/figures.md)."""
        temperature = fit_temperature(scores, self.truth, self.label_of)
        return nll(temperature_softmax(scores, temperature, self.label_of), self.truth)
