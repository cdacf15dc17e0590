"""Scores of rows by the whole crew: each process scores its share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from trainer.evaluation.metrics import measure
from trainer.model.rows import Row
from trainer.model.score import Scores, score_rows, true_indexes
from trainer.model.student import LoraModel
from trainer.training.crew import ProcessGroup
from trainer.training.schedule import Validation


class Scorer:
    """Scores rows with everything but the rows bound."""

    def __init__(
        self,
        student: LoraModel,
        prefix: Tensor,
        labels: Sequence[str],
        label_ids: Sequence[int],
        crew: ProcessGroup,
        *,
        share_prefix: bool,
    ) -> None:
        self._student = student
        self._prefix = prefix
        self._labels = labels
        self._label_ids = label_ids
        self._crew = crew
        self._share_prefix = share_prefix

    def __call__(self, rows: Sequence[Row], *, autocast: bool = False) -> Scores:
        """Return the scores of all rows, in their order, on every process."""
        logprobs = np.empty((len(rows), len(self._label_ids)))
        mine = self._crew.mine(rows)
        found = np.empty((0, len(self._label_ids)))
        if mine:
            found = score_rows(
                self._student,
                mine,
                self._prefix,
                self._label_ids,
                share_prefix=self._share_prefix,
                autocast=autocast,
            ).logprobs
        for rank, part in enumerate(self._crew.gather([found])):
            logprobs[rank :: self._crew.size] = part
        return Scores(logprobs, true_indexes(rows, self._label_ids))

    @property
    def alone(self) -> bool:
        """Whether one process scores everything."""
        return self._crew.size == 1

    def validate(self, rows: Sequence[Row]) -> Validation:
        """Return the figures that training looks at after an epoch."""
        scores = self(rows, autocast=self._crew.bf16)
        figures = measure(scores.truth, scores.predicted, self._labels)
        return Validation(scores.loss, figures.accuracy, figures.macro_f1)
