"""Scores of prompts: what the model gives each label's code, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.errors import ProofFailed
from trainer.model.forward import answer_logits, collate, verify_forward
from trainer.model.lora_model import LoraModel

PromptIds = tuple[int, ...]
"""A prompt's token ids, prefix and suffix included."""

BATCH_SIZE = 64
_PROBES = 4
_LOWEST = -1e4
"""Stands for minus infinity, which JSON has no number for."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Natural log-probabilities of the codes under a softmax over the whole vocabulary,
    (prompts, labels); whether the likeliest token of all is a code, (prompts); and how long each
    prompt's batch took, (prompts), and all of them, in seconds."""

    logprobs: NDArray[np.float64]
    in_set: NDArray[np.bool_]
    batch_seconds: NDArray[np.float64]
    seconds: float


@dataclass(frozen=True, slots=True)
class Scorer:
    """A model with one prompt's fixed part and codes. ``share_prefix`` says whether the fixed
    part may run once a batch on this architecture."""

    model: LoraModel
    prefix_ids: tuple[int, ...]
    label_ids: tuple[int, ...]
    share_prefix: bool

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts without gradients and without dropout, the longest first.

        ``autocast`` computes in bfloat16; ``on_progress`` is told how many more are done.
        """
        order = sorted(range(len(prompts)), key=lambda at: -len(prompts[at]))
        device = self.model.device
        prefix = torch.tensor(self.prefix_ids, device=device)
        codes = torch.tensor(self.label_ids, device=device)
        logprobs = np.empty((len(prompts), len(self.label_ids)))
        in_set = np.empty(len(prompts), dtype=bool)
        batch_seconds = np.empty(len(prompts))
        was_training = self.model.peft_model.training
        self.model.peft_model.eval()
        precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)
        started = time.perf_counter()
        with torch.inference_mode(), precision:
            for start in range(0, len(order), batch_size):
                began = time.perf_counter()
                chosen = order[start : start + batch_size]
                batch = collate([prompts[at] for at in chosen], len(prefix), device)
                logits = answer_logits(
                    self.model.causal_lm, prefix, batch, share_prefix=self.share_prefix
                )
                of_codes = torch.log_softmax(logits, dim=-1)[:, codes].double().cpu().numpy()
                logprobs[chosen] = np.maximum(of_codes, _LOWEST)
                in_set[chosen] = torch.isin(logits.argmax(dim=-1), codes).cpu().numpy()
                batch_seconds[chosen] = time.perf_counter() - began
                if on_progress:
                    on_progress(len(chosen))
        self.model.peft_model.train(was_training)
        return Scores(logprobs, in_set, batch_seconds, time.perf_counter() - started)

    def verify(self, prompts: Sequence[PromptIds]) -> None:
        """Compare the forward pass on a few prompts with the model's own. Raises ProofFailed."""
        prefix = torch.tensor(self.prefix_ids, device=self.model.device)
        batch = collate(prompts[:_PROBES], len(prefix), self.model.device)
        verify_forward(self.model.causal_lm, prefix, batch, share_prefix=self.share_prefix)


def make_verified_scorer(
    model: LoraModel,
    prefix_ids: tuple[int, ...],
    label_ids: tuple[int, ...],
    prompts: Sequence[PromptIds],
) -> Scorer:
    """Return a scorer whose forward pass was verified on a few of ``prompts``.

    Architectures on which the prefix cannot be shared run whole prompts. Raises ProofFailed where
    those differ from the model's own as well.
    """
    scorer = Scorer(model, prefix_ids, label_ids, share_prefix=len(prefix_ids) > 0)
    try:
        scorer.verify(prompts)
    except ProofFailed:
        scorer = Scorer(model, prefix_ids, label_ids, share_prefix=False)
        scorer.verify(prompts)
    return scorer
