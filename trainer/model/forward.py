"""The forward pass for a one-token answer: compute the prompts' common prefix once, and only the
last position's logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainer.errors import ProofFailed

PromptIds = tuple[int, ...]
"""A prompt's token ids, with prefix and suffix."""

Layout = Literal["packed", "cached", "whole"]
"""The layout of a batch's prompts in the forward pass.

``packed``: one sequence of the common prefix and then each prompt's rest, under a mask that hides
the prompts from each other. No token is computed twice, there is no padding, and gradient
checkpointing works. For GPUs, with FlexAttention, which skips masked blocks (Dong et al. 2024,
arXiv 2412.05496). ``cached``: the prefix is computed once, its keys and values serve every row, and
rows are padded to the longest. For CPUs, where masked scores are not skipped and would grow with
the square of the batch's tokens. ``whole``: each prompt is a row with its prefix.
"""

FLEX_BLOCK = 128
"""The block size of FlexAttention's mask, in tokens. Sequences are padded to whole blocks, so that
few lengths have to be compiled."""

_TOLERANCE = 0.1
"""Above the rounding of bfloat16, below the effect of a missing scale or cap on the logits."""

_PADDING = 0
"""Any token id would do: no position that is read attends to the padding."""


@dataclass(frozen=True, slots=True)
class Packed:
    """Prompts in one sequence behind their common prefix.

    ``ids`` (tokens); ``positions`` (tokens) in the token's own prompt; ``owners`` (tokens): 0 for
    the prefix, 1 for the first prompt and so on, the padding last; ``last`` (prompts): the
    positions of the answers' logits.
    """

    ids: Tensor
    positions: Tensor
    owners: Tensor
    last: Tensor


def collate(
    prompts: Sequence[PromptIds], prefix_tokens: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Put prompts (token ids, prefix included) into rows without their common prefix: (prompts,
    longest tail), padded on the right, so that the causal mask is enough. Return them, and the
    position of the answer's logits in each row, (prompts)."""
    tails = [prompt[prefix_tokens:] for prompt in prompts]
    width = max(len(tail) for tail in tails)
    padded = [[*tail, *[_PADDING] * (width - len(tail))] for tail in tails]
    return (
        torch.tensor(padded, device=device),
        torch.tensor([len(tail) - 1 for tail in tails], device=device),
    )


def pack(
    prompts: Sequence[PromptIds], prefix_tokens: int, device: torch.device, *, multiple: int = 1
) -> Packed:
    """Put prompts (token ids, prefix included) into one sequence, filled up to a ``multiple``."""
    ids, positions = list(prompts[0][:prefix_tokens]), list(range(prefix_tokens))
    owners, last = [0] * prefix_tokens, []
    for number, prompt in enumerate(prompts, start=1):
        tail = prompt[prefix_tokens:]
        ids += tail
        positions += range(prefix_tokens, len(prompt))
        owners += [number] * len(tail)
        last.append(len(ids) - 1)
    padding = -len(ids) % multiple
    return Packed(
        torch.tensor(ids + [_PADDING] * padding, device=device),
        torch.tensor(positions + [0] * padding, device=device),
        torch.tensor(owners + [len(prompts) + 1] * padding, device=device),
        torch.tensor(last, device=device),
    )


def packed_mask(packed: Packed, prefix_tokens: int, attention: str) -> Any:
    """Return the mask that separates packed prompts, in the form of a transformers attention: a
    ``BlockMask`` for ``flex_attention``, else (1, 1, tokens, tokens), true for visible tokens
    (``sdpa``) or added to the scores (``eager``).

    A token sees the preceding tokens of the prefix and of its own prompt.
    """
    owners, tokens = packed.owners, len(packed.owners)

    def sees(_batch: Any, _head: Any, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((key < prefix_tokens) | (owners[query] == owners[key]))

    if attention == "flex_attention":
        from torch.nn.attention.flex_attention import create_block_mask

        return create_block_mask(
            sees, B=None, H=None, Q_LEN=tokens, KV_LEN=tokens, device=owners.device
        )
    places = torch.arange(tokens, device=owners.device)
    allowed = sees(None, None, places[:, None], places[None, :])[None, None]
    if attention == "sdpa":
        return allowed
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(allowed.shape, device=owners.device).masked_fill_(~allowed, lowest)


def answer_states(
    causal_lm: Any, prefix: Tensor, prompts: Sequence[PromptIds], *, layout: Layout
) -> Tensor:
    """Return the last layer's states, (prompts, hidden size), at each prompt's last position.

    ``causal_lm`` is the language model with its LoRA layers; ``prefix`` the ids with which each
    prompt begins. The layouts differ only by rounding.
    """
    tokens = prefix.shape[0]
    if layout == "packed" and _within_window(causal_lm.config, prompts):
        return _packed_states(causal_lm, tokens, prompts, prefix.device)
    decoder, (tails, last) = causal_lm.get_decoder(), collate(prompts, tokens, prefix.device)
    rows = len(prompts)
    if layout == "cached":
        from transformers import DynamicCache  # takes seconds

        cache = DynamicCache(config=causal_lm.config)
        decoder(input_ids=prefix[None], past_key_values=cache, use_cache=True)
        cache.batch_repeat_interleave(rows)
        hidden = decoder(input_ids=tails, past_key_values=cache, use_cache=True)
    else:
        whole = torch.cat([prefix.expand(rows, -1), tails], dim=1)
        hidden = decoder(input_ids=whole, use_cache=False)
        last = last + tokens
    states: Tensor = hidden.last_hidden_state[torch.arange(rows, device=last.device), last]
    return states


def _packed_states(
    causal_lm: Any, prefix_tokens: int, prompts: Sequence[PromptIds], device: torch.device
) -> Tensor:
    attention = str(causal_lm.config._attn_implementation)
    multiple = FLEX_BLOCK if attention == "flex_attention" else 1
    packed = pack(prompts, prefix_tokens, device, multiple=multiple)
    hidden = causal_lm.get_decoder()(
        input_ids=packed.ids[None],
        position_ids=packed.positions[None],
        attention_mask=packed_mask(packed, prefix_tokens, attention),
        use_cache=False,
    )
    states: Tensor = hidden.last_hidden_state[0, packed.last]
    return states


def _within_window(config: Any, prompts: Sequence[PromptIds]) -> bool:
    """Return whether every token sees all preceding ones, as ``packed_mask`` assumes: in some
    models it sees only a sliding window."""
    window = getattr(config, "sliding_window", None)
    return not window or max(map(len, prompts)) <= window


def answer_logits(
    causal_lm: Any, prefix: Tensor, prompts: Sequence[PromptIds], *, layout: Layout
) -> Tensor:
    """Return float32 logits, (prompts, vocabulary), at each prompt's last position, the only one at
    which the head is computed."""
    states = answer_states(causal_lm, prefix, prompts, layout=layout)
    logits: Tensor = causal_lm.get_output_embeddings()(states)
    return logits.float()


def verify_forward(
    causal_lm: Any, prefix: Tensor, prompts: Sequence[PromptIds], *, layout: Layout
) -> float:
    """Compare ``answer_logits`` with the model's own forward pass over whole prompts, one by one.

    Return the largest difference of a prompt (root mean square, relative to the logits' standard
    deviation). Raises ProofFailed above 0.1.
    """
    # Some architectures scale or cap their logits after the head, crop their cache or ignore a
    # given mask. Training them by the short pass would give a wrong model without an error.
    worst = 0.0
    with torch.inference_mode():
        found = answer_logits(causal_lm, prefix, prompts, layout=layout)
        for row, prompt in enumerate(prompts):
            ids = torch.tensor([prompt], device=prefix.device)
            output = causal_lm(input_ids=ids, use_cache=False, logits_to_keep=1)
            expected = output.logits[0, -1].float()
            error = (found[row] - expected).square().mean().sqrt()
            worst = max(worst, float(error / expected.std()))
    if not worst <= _TOLERANCE:
        raise ProofFailed(
            f"the short forward pass differs from the model's own by {worst:.3f} of the logits' "
            "spread: this architecture needs its own head; try prompt_layout = whole"
        )
    return worst
