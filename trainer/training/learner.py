"""What the training loop needs: a learner, its rows, what they minimize, and their validation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from trainer.model.device import ProcessGroup
from trainer.model.scoring import PromptScorer
from trainer.statistics.calibration import Floats, Ints, fit_temperature, nll, temperature_softmax
from trainer.statistics.metrics import measure

RowT_contra = TypeVar("RowT_contra", contravariant=True)


class Learner(Protocol):
    """A model that is trained."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def trainable_parameters(self) -> list[Tensor]:
        """Return the parameters that have gradients."""

    def head_parameters(self) -> list[Tensor]:
        """Return those of them that start from nothing and learn at a rate of their own."""

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of what is learnt."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Replace what is learnt. Raises BadInput."""

    def start_training(self) -> None:
        """Switch dropout on."""


class LearnerRow(Protocol):
    """A message to learn from: its token ids and its labels."""

    @property
    def label(self) -> str:
        """The class that it is to be given."""

    @property
    def sublabel(self) -> str | None:
        """Its finer label, where the data has one."""

    @property
    def ids(self) -> tuple[int, ...]:
        """Its token ids: rows of like length are batched together."""

    @property
    def prompt(self) -> tuple[int, ...]:
        """The token ids that are read to find the label."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss to go backward through, and its two parts as numbers: sums in nats over the rows."""

    total: Tensor
    label: float
    sublabel: float
    tokens: int


class Objective(Protocol[RowT_contra]):
    """What is minimized. ``head`` is a layer that is learnt next to the model and thrown away;
    ``has_sublabels`` says whether finer labels are part of the loss."""

    head: torch.nn.Linear | None
    has_sublabels: bool

    def __call__(self, rows: Sequence[RowT_contra], batch_rows: int) -> Loss:
        """Return the loss of ``rows``, which are part of a batch of ``batch_rows``: the parts'
        losses add up to the batch's mean. Call it under the process group's autocast."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What one look at the validation set found; ``loss`` in nats a row, ``calibrated_loss`` under
    the temperature that these rows ask for."""

    loss: float
    calibrated_loss: float
    accuracy: float
    macro_f1: float


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
