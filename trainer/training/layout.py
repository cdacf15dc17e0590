"""How a recipe's prompts lie in the forward pass, and which attention computes it."""

from __future__ import annotations

from importlib.util import find_spec

from trainer.errors import BadInput
from trainer.model.forward import Layout
from trainer.training.recipe import Recipe


def layout_of(recipe: Recipe, *, on_gpu: bool) -> Layout:
    """Return the layout of a training. With ``packing = "auto"`` prompts are packed on a GPU, and
    where gradients are checkpointed, which a prefix that is cached rules out."""
    if not recipe.share_prefix:
        return "whole"
    packs = recipe.packing
    if packs == "auto":
        packs = on_gpu or recipe.gradient_checkpointing is True
    return "packed" if packs else "cached"


def attention_of(recipe: Recipe, *, on_gpu: bool) -> str:
    """Return transformers' name of the attention that a training is loaded with. "auto" is
    ``flex_attention`` for what is packed on a GPU, if Triton is there to compile it; else ``sdpa``,
    but ``eager`` on a CPU. Raises BadInput for FlexAttention on a CPU, where it has no way back."""
    wanted = recipe.attn_implementation
    if wanted == "flex_attention" and not on_gpu:
        raise BadInput(
            "attn_implementation = flex_attention learns on a GPU alone: set it to auto, sdpa or "
            "eager"
        )
    if wanted != "auto":
        return wanted
    if layout_of(recipe, on_gpu=on_gpu) == "packed":
        return "flex_attention" if on_gpu and find_spec("triton") else "sdpa"
    return "sdpa" if on_gpu else "eager"


def served_layout(recipe: Recipe) -> Layout:
    """Return the layout for a base as workers hold it, whose attention masks nothing in blocks."""
    return "cached" if recipe.share_prefix else "whole"
