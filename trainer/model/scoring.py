"""Scores of prompts: the forward pass for a one-token answer (the shared prefix once, the last
position's logits), and the loop that scores many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.errors import ProofFailed
from trainer.model.lora_model import LoraModel

PromptIds = tuple[int, ...]
"""A prompt's token ids, prefix and suffix included."""

BATCH_SIZE = 64
"""Rows of a scoring batch at most."""

BATCH_TOKENS = 4096
"""Tokens of a scoring batch at most, prefixes and padding included. Memory grows with them and not
with the rows; so many keep a GPU busy, and take less than a training step of the same base."""

_PROBES = 4
_LOWEST = -1e4
"""Stands for minus infinity, which JSON has no number for."""

_TOLERANCE = 0.1
"""Above what bfloat16 rounds away, below what a missing scale or cap does to the logits."""

_PADDING = 0
"""Any token id: under a causal mask nothing that is read ever sees the padding."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts as tensors, without their common prefix.

    ``tails`` is (prompts, longest tail), padded on the right; there is no attention mask, since
    the causal one suffices. ``last`` (prompts) is the position whose logits answer, ``tokens``
    counts what the full prompts hold, prefix included.
    """

    tails: Tensor
    last: Tensor
    tokens: int


def token_batches(
    lengths: Sequence[int], *, rows: int = BATCH_SIZE, tokens: int = BATCH_TOKENS
) -> Iterator[list[int]]:
    """Yield the index of every length once, the longest first (what does not fit is known at
    once), in batches that hold at most so many rows and, padded to their longest, so many tokens.
    A prompt that is longer than that goes alone."""
    order = sorted(range(len(lengths)), key=lambda at: -lengths[at])
    start = 0
    while start < len(order):
        count = max(1, min(rows, tokens // max(1, lengths[order[start]])))
        yield order[start : start + count]
        start += count


def collate(prompts: Sequence[Sequence[int]], prefix_tokens: int, device: torch.device) -> Batch:
    """Put prompts (token ids, prefix included) into one batch."""
    tails = [prompt[prefix_tokens:] for prompt in prompts]
    width = max(len(tail) for tail in tails)
    padded = [[*tail, *[_PADDING] * (width - len(tail))] for tail in tails]
    return Batch(
        torch.tensor(padded, device=device),
        torch.tensor([len(tail) - 1 for tail in tails], device=device),
        sum(len(prompt) for prompt in prompts),
    )


def answer_states(causal_lm: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> Tensor:
    """Return the last layer's states, (prompts, hidden size), at each prompt's last position.

    ``causal_lm`` is the language model, LoRA layers inside; ``prefix`` the common ids (prefix).
    With ``share_prefix`` the prefix runs once a batch and its keys and values, with their
    gradients, serve every row: the same sums in a fraction of the time, since the prompt's fixed
    part is longer than most messages. Without it every row runs whole, which gradient
    checkpointing needs.
    """
    rows = batch.tails.shape[0]
    decoder = causal_lm.get_decoder()
    if share_prefix:
        from transformers import DynamicCache  # takes seconds

        cache = DynamicCache(config=causal_lm.config)
        decoder(input_ids=prefix[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
        hidden = decoder(input_ids=batch.tails, past_key_values=cache, use_cache=True)
        last = batch.last
    else:
        whole = torch.cat([prefix.expand(rows, -1), batch.tails], dim=1)
        hidden = decoder(input_ids=whole, use_cache=False)
        last = batch.last + prefix.shape[0]
    states: Tensor = hidden.last_hidden_state[torch.arange(rows, device=last.device), last]
    return states


def answer_logits(causal_lm: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> Tensor:
    """Return float32 logits over the vocabulary, (prompts, vocabulary), at each prompt's last
    position: the head runs there and nowhere else."""
    states = answer_states(causal_lm, prefix, batch, share_prefix=share_prefix)
    logits: Tensor = causal_lm.get_output_embeddings()(states)
    return logits.float()


def score_batch(
    causal_lm: Any, prefix: Tensor, codes: Tensor, batch: Batch, *, share_prefix: bool
) -> tuple[Tensor, Tensor]:
    """Return the codes' log-probabilities, (prompts, codes), and whether the likeliest token is a
    code, (prompts). The vocabulary is there at the last position alone, for its sum: the mass
    that no label gets is one minus the codes'."""
    logits = answer_logits(causal_lm, prefix, batch, share_prefix=share_prefix)
    of_codes = logits[:, codes] - logits.logsumexp(dim=-1, keepdim=True)
    return of_codes, torch.isin(logits.argmax(dim=-1), codes)


def verify_forward(causal_lm: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> float:
    """Compare ``answer_logits`` with the model's own forward pass over whole prompts, one by one.

    Some architectures scale or cap their logits after the head or crop their cache; those must
    not be trained by the short way. Returns the worst prompt's difference (root mean square,
    relative to the logits' spread); raises ProofFailed above a tenth.
    """
    worst = 0.0
    with torch.inference_mode():
        found = answer_logits(causal_lm, prefix, batch, share_prefix=share_prefix)
        for row, (tail, last) in enumerate(zip(batch.tails, batch.last.tolist(), strict=True)):
            ids = torch.cat([prefix, tail[: last + 1]])[None]
            output = causal_lm(input_ids=ids, use_cache=False, logits_to_keep=1)
            expected = output.logits[0, -1].float()
            error = (found[row] - expected).square().mean().sqrt()
            worst = max(worst, float(error / expected.std()))
    if not worst <= _TOLERANCE:
        raise ProofFailed(
            f"the short forward pass differs from the model's own by {worst:.3f} of the logits' "
            "spread: this architecture needs its own head; try share_prefix = false"
        )
    return worst


@dataclass(frozen=True, slots=True)
class Scores:
    """The model's raw scores, (prompts, outputs): natural log-probabilities of the labels' codes
    under a softmax over the whole vocabulary, or the logits of a head. Whether the likeliest answer
    of all is a label, (prompts); and how long each prompt's batch took, (prompts), and all of them,
    in seconds."""

    logprobs: NDArray[np.float64]
    in_set: NDArray[np.bool_]
    batch_seconds: NDArray[np.float64]
    seconds: float


class PromptScorer(Protocol):
    """Scores prompts: a language model by its codes, or an encoder by its head."""

    def score(
        self,
        prompts: Sequence[PromptIds],
        *,
        batch_size: int = BATCH_SIZE,
        autocast: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> Scores:
        """Score prompts without gradients and without dropout, in ``token_batches`` of at most
        ``batch_size`` rows."""


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
        """Score prompts without gradients and without dropout, in ``token_batches`` of at most
        ``batch_size`` rows.

        ``autocast`` computes in bfloat16; ``on_progress`` is told how many more are done.
        """
        device = self.model.device
        prefix = torch.tensor(self.prefix_ids, device=device)
        codes = torch.tensor(self.label_ids, device=device)
        logprobs = np.empty((len(prompts), len(self.label_ids)))
        in_set = np.empty(len(prompts), dtype=bool)
        batch_seconds = np.empty(len(prompts))
        precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)
        started = time.perf_counter()
        with torch.inference_mode(), precision, self.model.without_dropout():
            for chosen in token_batches([len(prompt) for prompt in prompts], rows=batch_size):
                began = time.perf_counter()
                batch = collate([prompts[at] for at in chosen], len(prefix), device)
                of_codes, inside = score_batch(
                    self.model.causal_lm, prefix, codes, batch, share_prefix=self.share_prefix
                )
                logprobs[chosen] = np.maximum(of_codes.double().cpu().numpy(), _LOWEST)
                in_set[chosen] = inside.cpu().numpy()
                batch_seconds[chosen] = time.perf_counter() - began
                if on_progress:
                    on_progress(len(chosen))
        return Scores(logprobs, in_set, batch_seconds, time.perf_counter() - started)

    def verify(self, prompts: Sequence[PromptIds]) -> None:
        """Compare the forward pass on a few prompts with the model's own. Raises ProofFailed."""
        verify_prompts(self.model, self.prefix_ids, prompts, share_prefix=self.share_prefix)


def verify_prompts(
    model: LoraModel,
    prefix_ids: Sequence[int],
    prompts: Sequence[PromptIds],
    *,
    share_prefix: bool,
) -> None:
    """Compare the forward pass on a few prompts with the model's own. Raises ProofFailed."""
    prefix = torch.tensor(prefix_ids, device=model.device)
    few = list(prompts[:_PROBES])
    batch = collate(few, len(prefix), model.device)
    verify_forward(model.causal_lm, prefix, batch, share_prefix=share_prefix)


def may_share_prefix(
    model: LoraModel, prefix_ids: Sequence[int], prompts: Sequence[PromptIds]
) -> bool:
    """Return whether the prompts' fixed part may run once a batch, as it was verified on a few of
    ``prompts``.

    On architectures on which it may not whole prompts are run. Raises ProofFailed where those
    differ from the model's own as well.
    """
    if prefix_ids:
        try:
            verify_prompts(model, prefix_ids, prompts, share_prefix=True)
        except ProofFailed:
            pass
        else:
            return True
    verify_prompts(model, prefix_ids, prompts, share_prefix=False)
    return False


def make_verified_scorer(
    model: LoraModel,
    prefix_ids: tuple[int, ...],
    label_ids: tuple[int, ...],
    prompts: Sequence[PromptIds],
) -> Scorer:
    """Return a scorer by codes whose forward pass was verified (``may_share_prefix``). Raises
    ProofFailed."""
    return Scorer(model, prefix_ids, label_ids, may_share_prefix(model, prefix_ids, prompts))
