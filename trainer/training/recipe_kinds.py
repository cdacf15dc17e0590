"""The kinds of model that a recipe may name, and which settings mean something for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

RecipeKind = Literal["lora-code", "encoder", "embedding-linear"]
"""What is trained (``worker.contract.kinds``): LoRA layers on an instruct model that answers with a
label's code; a small encoder with a linear head; logistic regression over frozen sentence
embeddings."""

_CODE: frozenset[RecipeKind] = frozenset({"lora-code"})
HEADS: frozenset[RecipeKind] = frozenset({"encoder", "embedding-linear"})
_LEARNT: frozenset[RecipeKind] = frozenset({"lora-code", "encoder"})

_OF_CODES = """
instruction list_labels descriptions prefix_block base_dtype load_in_4bit serve_in_4bit
attn_implementation share_prefix packing
"""
_OF_HEADS = "pooling onnx"
_GRADIENT = """
lora_rank lora_alpha lora_dropout lora_target_modules adapter_dtype mixed_precision
gradient_checkpointing epochs early_stopping_patience metric_for_best_model batch_size
micro_batch_size learning_rate weight_decay warmup_ratio label_smoothing
distillation_weight ema_decay checkpoint_every_s
"""

_SETTINGS: Mapping[str, frozenset[RecipeKind]] = {
    **dict.fromkeys(_OF_CODES.split(), _CODE),
    **dict.fromkeys(_OF_HEADS.split(), HEADS),
    **dict.fromkeys(("tuning", "head_learning_rate"), frozenset({"encoder"})),
    **dict.fromkeys(_GRADIENT.split(), _LEARNT),
}


def concerns(setting: str, kind: RecipeKind) -> bool:
    """Whether a setting means something for a kind of model; one that is in no list does for
    all."""
    return kind in _SETTINGS.get(setting, {kind})
