"""Scores of rows: what the model gives each label's code, as plain arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.model.forward import answer_logits, collate
from trainer.model.rows import Row
from trainer.model.student import LoraModel

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROWS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Scores:
    """Raw natural log-probabilities of the codes, (rows, labels), under a softmax over the whole
    vocabulary, and each row's true label as an index."""

    logprobs: Floats
    truth: Ints

    @property
    def predicted(self) -> Ints:
        """The best label of each row; ties go to the first, as in the contract."""
        best: Ints = self.logprobs.argmax(axis=1)
        return best

    @property
    def off_label_mass(self) -> Floats:
        """Share of probability that each row gives to answers outside the label set."""
        mass: Floats = np.clip(1.0 - np.exp(self.logprobs).sum(axis=1), 0.0, 1.0)
        return mass

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the right code, in nats: the training loss."""
        return float(-self.logprobs[np.arange(len(self.truth)), self.truth].mean())


def score_rows(
    student: LoraModel,
    rows: Sequence[Row],
    prefix: Tensor,
    label_ids: Sequence[int],
    *,
    share_prefix: bool,
    autocast: bool = False,
) -> Scores:
    """Score every row, longest first, without gradients and without dropout."""
    order = sorted(range(len(rows)), key=lambda at: -len(rows[at].ids))
    codes = torch.tensor(label_ids, device=student.device)
    logprobs = np.empty((len(rows), len(label_ids)))
    was_training = student.peft.training
    student.peft.eval()
    precision = torch.autocast(student.device.type, dtype=torch.bfloat16, enabled=autocast)
    with torch.inference_mode(), precision:
        for start in range(0, len(order), _ROWS_AT_ONCE):
            chosen = order[start : start + _ROWS_AT_ONCE]
            batch = collate([rows[at] for at in chosen], len(prefix), 0, student.device)
            logits = answer_logits(student.causal, prefix, batch, share_prefix=share_prefix)
            found = torch.log_softmax(logits, dim=-1)[:, codes]
            logprobs[chosen] = found.double().cpu().numpy()
    student.peft.train(was_training)
    return Scores(logprobs, true_indexes(rows, label_ids))


def true_indexes(rows: Sequence[Row], label_ids: Sequence[int]) -> Ints:
    """Return each row's true label as an index into the codes."""
    index = {token: at for at, token in enumerate(label_ids)}
    return np.array([index[row.targets[row.answer_at]] for row in rows], dtype=np.int64)
