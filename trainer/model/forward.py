"""The forward pass for a one-token answer: the shared prefix once, the last position's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from trainer.errors import ProofFailed
from trainer.model.rows import Row

_TOLERANCE = 0.1
"""Above what bfloat16 rounds away, below what a missing scale or cap does to the logits."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows as tensors, without their common prefix.

    ``tails`` is (rows, longest tail), padded on the right; under a causal mask nothing that is
    read ever sees the padding, so there is no attention mask. ``last`` (rows) is the position
    whose logits answer, ``answers`` (rows) the token ids to learn.
    """

    tails: Tensor
    last: Tensor
    answers: Tensor
    tokens: int


def collate(rows: Sequence[Row], prefix_tokens: int, pad_id: int, device: torch.device) -> Batch:
    """Put rows into one batch; ``tokens`` counts what the full prompts hold, prefix included."""
    tails = [row.ids[prefix_tokens : row.answer_at] for row in rows]
    width = max(len(tail) for tail in tails)
    padded = [[*tail, *[pad_id] * (width - len(tail))] for tail in tails]
    return Batch(
        torch.tensor(padded, device=device),
        torch.tensor([len(tail) - 1 for tail in tails], device=device),
        torch.tensor([row.targets[row.answer_at] for row in rows], device=device),
        sum(row.answer_at for row in rows),
    )


def answer_states(model: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> Tensor:
    """Return the last layer's states, (rows, hidden size), at each row's last position.

    ``model`` is the causal language model, LoRA layers inside; ``prefix`` the common ids (prefix).
    With ``share_prefix`` the prefix runs once a batch and its keys and values, with their
    gradients, serve every row: the same sums in a fraction of the time, since the prompt's fixed
    part is longer than most messages. Without it every row runs whole, which gradient
    checkpointing needs.
    """
    rows = batch.tails.shape[0]
    decoder = model.get_decoder()
    if share_prefix:
        cache = DynamicCache(config=model.config)
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


def answer_logits(model: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> Tensor:
    """Return float32 logits over the vocabulary, (rows, vocabulary), at each row's last position:
    the head runs there and nowhere else."""
    states = answer_states(model, prefix, batch, share_prefix=share_prefix)
    logits: Tensor = model.get_output_embeddings()(states)
    return logits.float()


def verify_forward(model: Any, prefix: Tensor, batch: Batch, *, share_prefix: bool) -> float:
    """Compare ``answer_logits`` with the model's own forward pass over whole rows, one by one.

    Some architectures scale or cap their logits after the head or crop their cache; those must
    not be trained by the short way. Returns the worst row's difference (root mean square,
    relative to the logits' spread); raises ProofFailed above a tenth.
    """
    worst = 0.0
    with torch.inference_mode():
        found = answer_logits(model, prefix, batch, share_prefix=share_prefix)
        for row, (tail, last) in enumerate(zip(batch.tails, batch.last.tolist(), strict=True)):
            ids = torch.cat([prefix, tail[: last + 1]])[None]
            wanted = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[0, -1].float()
            worst = max(worst, float((found[row] - wanted).square().mean().sqrt() / wanted.std()))
    if not worst <= _TOLERANCE:
        raise ProofFailed(
            f"the short forward pass differs from the model's own by {worst:.3f} of the logits' "
            "spread: this architecture needs its own head; try share_prefix = false"
        )
    return worst
