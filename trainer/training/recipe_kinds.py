"""The kinds of model that a recipe may name, and which settings mean something for which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

RecipeKind = Literal["lora-code", "lora-head", "encoder", "embedding-linear"]
"""What is trained (``worker.contract.kinds``): LoRA layers on an instruct model that answers with a
label's code; the same with a linear head; a small encoder with a linear head; logistic regression
over frozen sentence embeddings."""

_ENCODERS: frozenset[RecipeKind] = frozenset({"encoder", "embedding-linear"})
_LANGUAGE: frozenset[RecipeKind] = frozenset({"lora-code", "lora-head"})
HEADS: frozenset[RecipeKind] = _ENCODERS | {"lora-head"}
_LEARNT: frozenset[RecipeKind] = _LANGUAGE | {"encoder"}

_CODE = "list_labels descriptions sublabel_learning_rate off_label_quantile"
_PROMPTED = """
instruction prefix_block prompt_date base_dtype load_in_4bit serve_in_4bit attn_implementation
share_prefix packing
"""
_ENCODER = "pooling onnx"
_HEAD = "out_of_scope_quantile"
_GRADIENT = """
lora_rank lora_alpha lora_dropout lora_target_modules adapter_dtype mixed_precision
gradient_checkpointing epochs early_stopping_patience metric_for_best_model batch_size
micro_batch_size learning_rate weight_decay warmup_ratio max_grad_norm label_smoothing
distillation_weight ema_decay checkpoint_every_s
"""

_SETTINGS: Mapping[str, frozenset[RecipeKind]] = {
    **dict.fromkeys(_CODE.split(), frozenset({"lora-code"})),
    **dict.fromkeys(_PROMPTED.split(), _LANGUAGE),
    **dict.fromkeys(_ENCODER.split(), _ENCODERS),
    **dict.fromkeys(_HEAD.split(), HEADS),
    "tuning": frozenset({"encoder"}),
    "head_learning_rate": frozenset({"encoder", "lora-head"}),
    **dict.fromkeys(_GRADIENT.split(), _LEARNT),
}


def concerns(setting: str, kind: RecipeKind) -> bool:
    """Whether a setting means something for a kind of model; one that is in no list does for
    all."""
    return kind in _SETTINGS.get(setting, {kind})
