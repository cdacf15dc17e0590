"""The validation set scored by all processes, each its share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.model.rows import TrainingRow
from trainer.model.scoring import Scorer
from trainer.statistics.calibration import Floats, Ints
from trainer.statistics.metrics import measure
from trainer.training.process_group import ProcessGroup


@dataclass(frozen=True, slots=True)
class Validation:
    """What one look at the validation set found; ``loss`` in nats a row."""

    loss: float
    accuracy: float
    macro_f1: float


class Validator:
    """Scores the same rows again and again, as the weights change."""

    def __init__(
        self,
        scorer: Scorer,
        rows: Sequence[TrainingRow],
        labels: Sequence[str],
        group: ProcessGroup,
    ) -> None:
        self._scorer = scorer
        self._prompts = [row.prompt for row in rows]
        self._labels = labels
        self._group = group
        self.truth: Ints = np.array([labels.index(row.label) for row in rows], dtype=np.int64)

    @property
    def is_alone(self) -> bool:
        """Whether one process scores everything."""
        return self._group.world_size == 1

    def score(self, *, autocast: bool = False) -> Floats:
        """Return the raw log-probabilities, (rows, labels), of all rows on every process."""
        shape = (len(self._prompts), len(self._labels))
        logprobs = np.empty(shape)
        shard = self._group.shard(self._prompts)
        own = np.empty((0, shape[1]))
        if shard:
            own = self._scorer.score(shard, autocast=autocast).logprobs
        for rank, part in enumerate(self._group.all_gather([own])):
            logprobs[rank :: self._group.world_size] = part
        return logprobs

    def validate(self) -> Validation:
        """Return the figures that training looks at after an epoch."""
        logprobs = self.score(autocast=self._group.bf16)
        figures = measure(self.truth, logprobs.argmax(axis=1), self._labels)
        loss = -logprobs[np.arange(len(self.truth)), self.truth].mean()
        return Validation(float(loss), figures.accuracy, figures.macro_f1)
