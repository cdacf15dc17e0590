"""Raw scores of prompts, with and without the constraint to the codes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.errors import ProofFailed
from trainer.model.forward import answer_logits, collate, verify_forward
from trainer.model.rows import IGNORE_INDEX, Row
from trainer.model.student import LoraModel

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_PROBES = 4
_LOWEST = -1e4
"""Stands for minus infinity, which JSON has no number for."""


@dataclass(frozen=True, slots=True)
class RawScores:
    """Natural log-probabilities of the codes under a softmax over the whole vocabulary,
    (messages, labels); whether the most likely token of all is a code, (messages); and how long
    each message's batch took, (messages), in seconds."""

    logprobs: Floats
    in_set: Bools
    batch_seconds: Floats
    seconds: float


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model with one prompt's fixed part and codes. ``share_prefix`` says whether the fixed
    part may run once a batch on this architecture."""

    student: LoraModel
    prefix_ids: tuple[int, ...]
    label_ids: tuple[int, ...]
    share_prefix: bool

    def score(
        self,
        prompts: Sequence[tuple[int, ...]],
        *,
        batch_size: int,
        done: Callable[[int], None] | None = None,
    ) -> RawScores:
        """Score prompts (token ids, prefix and suffix included), like lengths together."""
        rows = _rows(prompts, self.label_ids[0])
        order = sorted(range(len(rows)), key=lambda at: -len(rows[at].ids))
        device = self.student.device
        prefix = torch.tensor(self.prefix_ids, device=device)
        codes = torch.tensor(self.label_ids, device=device)
        logprobs = np.empty((len(rows), len(self.label_ids)))
        in_set = np.empty(len(rows), dtype=bool)
        batch_seconds = np.empty(len(rows))
        started = time.perf_counter()
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                began = time.perf_counter()
                chosen = order[start : start + batch_size]
                batch = collate([rows[at] for at in chosen], len(prefix), 0, device)
                logits = answer_logits(
                    self.student.causal, prefix, batch, share_prefix=self.share_prefix
                )
                scores = torch.log_softmax(logits, dim=-1)
                found = scores[:, codes].double().cpu().numpy()
                logprobs[chosen] = np.maximum(found, _LOWEST)
                in_set[chosen] = torch.isin(logits.argmax(dim=-1), codes).cpu().numpy()
                batch_seconds[chosen] = time.perf_counter() - began
                if done:
                    done(len(chosen))
        return RawScores(logprobs, in_set, batch_seconds, time.perf_counter() - started)


def make_scorer(
    student: LoraModel,
    prefix_ids: tuple[int, ...],
    label_ids: Sequence[int],
    probes: Sequence[tuple[int, ...]],
) -> Scorer:
    """Prove the forward pass on a few prompts against the model's own, and bind everything.

    Architectures on which the prefix cannot be shared run whole rows. Raises ProofFailed where
    those differ from the model's own as well.
    """
    rows = _rows(probes[:_PROBES], label_ids[0])
    prefix = torch.tensor(prefix_ids, device=student.device)
    batch = collate(rows, len(prefix), 0, student.device)
    share_prefix = len(prefix) > 0
    try:
        verify_forward(student.causal, prefix, batch, share_prefix=share_prefix)
    except ProofFailed:
        share_prefix = False
        verify_forward(student.causal, prefix, batch, share_prefix=share_prefix)
    return Scorer(student, prefix_ids, tuple(label_ids), share_prefix)


def _rows(prompts: Sequence[tuple[int, ...]], any_code: int) -> list[Row]:
    """Rows as the forward pass takes them; their answer is a placeholder that nothing reads."""
    return [Row("", (*ids, any_code), (IGNORE_INDEX,) * len(ids) + (any_code,)) for ids in prompts]
