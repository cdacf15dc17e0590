"""The forward pass for a one-token answer: the shared prefix once, the last position's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.errors import ProofFailed

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
