"""The registry of the kinds of model that are trained."""

from __future__ import annotations

from collections.abc import Mapping

from trainer.training.encoder import Encoder
from trainer.training.lora_code import LoraCode
from trainer.training.parts import Kind
from trainer.training.recipe_kinds import RecipeKind

KINDS: Mapping[RecipeKind, Kind] = {
    "lora-code": LoraCode(),
    "encoder": Encoder(),
    "embedding-linear": Encoder(),
}
"""By the recipe's ``kind``; a test says where one is missing."""
