"""The recipe: precedence of its sources, errors in one line, and settings by kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from trainer.errors import BadInput
from trainer.training.recipe import Recipe, RecipeKind, concerns, load_recipe, parse_assignments
from trainer.training.train import KINDS
from worker.contract import Kind

CONFIG = Path(__file__).parents[4] / "config"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
SHIPPED = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


@pytest.mark.parametrize("file", ["trainer.toml", "trainer-cpu.toml", "trainer-encoder.toml"])
def test_a_shipped_recipe_needs_only_the_places(file: str) -> None:
    load_recipe(CONFIG / file, PLACES)
    with pytest.raises(BadInput, match="dataset: Field required"):
        load_recipe(CONFIG / file, {})


def test_flags_win_over_the_environment_and_that_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLERK_TRAINER_LORA_RANK", "4")
    monkeypatch.setenv("CLERK_TRAINER_EPOCHS", "9")
    recipe = load_recipe(SHIPPED, {**PLACES, **parse_assignments(["lora_rank=2", "seed= 5"])})
    assert (recipe.lora_rank, recipe.epochs, recipe.seed) == (2, 9, 5)


@pytest.mark.parametrize("given", ["q_proj,v_proj", '["q_proj", "v_proj"]', " q_proj , v_proj "])
def test_a_list_can_be_a_flag_or_a_variable(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {**PLACES, **parse_assignments([f"lora_target_modules={given}"])}
    assert load_recipe(SHIPPED, flags).lora_target_modules == ("q_proj", "v_proj")
    monkeypatch.setenv("CLERK_TRAINER_LORA_TARGET_MODULES", given)
    assert load_recipe(SHIPPED, PLACES).lora_target_modules == ("q_proj", "v_proj")


# Settings by kind of model.


ROOT = Path(__file__).parents[4]
ENCODER = ROOT / "config" / "trainer-encoder.toml"
FOLDERS: dict[str, Any] = {"base": "base", "dataset": "data", "run": "run"}


def test_every_kind_that_a_recipe_may_name_is_trained_and_known_to_the_contract() -> None:
    assert set(KINDS) == set(get_args(RecipeKind)) <= set(get_args(Kind))


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"instruction": "Answer."}, "instruction: not a setting of kind 'encoder': leave it out"),
        ({"kind": "embedding-linear"}, "not a setting of kind 'embedding-linear'"),
        ({"sublabel_weight": "1"}, "share of the loss: at least 0 and below 1"),
        ({"onnx": "int4"}, "onnx.0: Input should be 'fp32' or 'int8'"),
    ],
)
def test_a_setting_of_another_kind_is_refused(flags: dict[str, str], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        load_recipe(ENCODER, FOLDERS | flags)


def test_a_language_model_needs_an_instruction_and_no_pooling() -> None:
    cpu = ROOT / "config" / "trainer-cpu.toml"
    with pytest.raises(BadInput, match="sublabel_weight: kind 'lora-code' takes a number"):
        load_recipe(cpu, FOLDERS | {"sublabel_weight": "auto"})
    with pytest.raises(BadInput, match="instruction: kind 'lora-code' needs one"):
        load_recipe(cpu, FOLDERS | {"instruction": ""})


def test_a_weight_for_finer_labels_needs_finer_labels() -> None:
    recipe = load_recipe(SHIPPED, PLACES | {"sublabel_weight": 0.5})
    assert recipe.sublabel_share(("a", "b")) == 0.5
    with pytest.raises(BadInput, match="prepare it with --sublabel-column, or set sublabel_weight"):
        recipe.sublabel_share(())
    assert load_recipe(ENCODER, PLACES).sublabel_share(()) == 0.0


def test_a_manifest_has_only_the_settings_of_its_kind() -> None:
    encoder = load_recipe(ENCODER, FOLDERS).to_record()
    assert encoder["kind"] == "encoder"
    assert "instruction" not in encoder
    code = load_recipe(ROOT / "config" / "trainer-cpu.toml", FOLDERS).to_record()
    assert {"pooling", "onnx", "tuning", "head_learning_rate"}.isdisjoint(code)
    assert {"instruction", "lora_rank", "prefix_block"} <= set(code)
    for name in Recipe.model_fields:
        assert any(concerns(name, kind) for kind in get_args(RecipeKind)), name
