"""The kinds of model: each is registered, and a setting that means nothing for one is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from trainer.errors import BadInput
from trainer.training.kinds import KINDS
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.recipe_kinds import RecipeKind, concerns
from worker.contract import Kind

ROOT = Path(__file__).parents[4]
ENCODER = ROOT / "config" / "trainer-encoder.toml"
PLACES: dict[str, Any] = {"base": "base", "dataset": "data", "run": "run"}


def test_every_kind_that_a_recipe_may_name_is_trained_and_known_to_the_contract() -> None:
    assert set(KINDS) == set(get_args(RecipeKind)) <= set(get_args(Kind))


@pytest.mark.parametrize("kind", get_args(RecipeKind))
def test_a_kind_is_named_by_the_documentation(kind: str) -> None:
    assert f"`{kind}`" in (ROOT / "docs" / "training.md").read_text(encoding="utf-8")


def test_the_shipped_recipe_for_encoders_is_whole() -> None:
    recipe = load_recipe(ENCODER, PLACES)
    assert (recipe.kind, recipe.onnx, recipe.tuning) == ("encoder", ("fp32", "int8"), "whole")
    assert load_recipe(ENCODER, PLACES | {"onnx": "int8"}).onnx == ("int8",)
    assert load_recipe(ENCODER, PLACES | {"onnx": "[]"}).onnx == ()


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"instruction": "Answer."}, "instruction: no setting of kind 'encoder': leave it out"),
        ({"load_in_4bit": "true"}, "load_in_4bit: no setting of kind 'encoder'"),
        ({"kind": "lora-code"}, "no setting of kind 'lora-code'"),
        ({"kind": "embedding-linear"}, "no setting of kind 'embedding-linear'"),
        ({"kind": "decoder"}, "kind: Input should be"),
        ({"sublabel_weight": "1"}, "share of the loss: at least 0 and below 1"),
        ({"sublabel_weight": "much"}, "sublabel_weight"),
        ({"onnx": "int4"}, "onnx.0: Input should be 'fp32' or 'int8'"),
        ({"pooling": "max"}, "pooling: Input should be"),
    ],
)
def test_what_means_nothing_for_a_kind_is_refused(flags: dict[str, str], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        load_recipe(ENCODER, PLACES | flags)


def test_a_language_model_needs_an_instruction_and_no_pooling() -> None:
    cpu = ROOT / "config" / "trainer-cpu.toml"
    with pytest.raises(BadInput, match="pooling: no setting of kind 'lora-code'"):
        load_recipe(cpu, PLACES | {"pooling": "mean"})
    with pytest.raises(BadInput, match="sublabel_weight: kind 'lora-code' takes a number"):
        load_recipe(cpu, PLACES | {"sublabel_weight": "auto"})
    with pytest.raises(BadInput, match="instruction: kind 'lora-code' needs one"):
        load_recipe(cpu, PLACES | {"instruction": ""})


def test_a_manifest_tells_the_settings_of_its_kind_alone() -> None:
    """A setting that means nothing for the kind is left out."""
    encoder = load_recipe(ENCODER, PLACES).to_record()
    assert encoder["kind"] == "encoder"
    assert "instruction" not in encoder
    code = load_recipe(ROOT / "config" / "trainer-cpu.toml", PLACES).to_record()
    assert {"pooling", "onnx", "tuning", "head_learning_rate"}.isdisjoint(code)
    assert {"instruction", "lora_rank", "prefix_block"} <= set(code)
    for name in Recipe.model_fields:
        assert any(concerns(name, kind) for kind in get_args(RecipeKind)), name
