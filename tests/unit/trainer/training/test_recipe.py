"""The recipe: precedence of its sources, errors in one line, and settings by kind."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from trainer.errors import BadInput
from trainer.training import recipe as module
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


def test_a_run_is_repeated_on_its_own_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a directory of the user's, which no search finds."""
    own = tmp_path / "own"
    own.mkdir()
    made = load_recipe(SHIPPED, {**PLACES, "base": own})
    base = SimpleNamespace(directory=str(own))
    kept = SimpleNamespace(recipe=made.to_record(), base=base, imported=None)
    monkeypatch.setattr(
        module, "TRAINING", SimpleNamespace(name="training.json", read=lambda _: kept)
    )
    places = {name: path for name, path in PLACES.items() if name != "base"}
    again = load_recipe(tmp_path / "training.json", places)
    assert (again.base, again.base_name, again.base_revision) == (own, "own", "local")


def test_a_manifest_gets_no_path_of_this_machine(tmp_path: Path) -> None:
    recipe = load_recipe(
        SHIPPED, {**PLACES, "base": tmp_path / "some" / "base", "run": tmp_path / "x"}
    )
    record = recipe.to_record()
    assert not {"base", "dataset", "run"} & set(record)
    assert str(tmp_path) not in str(record)


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
        ({"kind": "lora-code"}, "not a setting of kind 'lora-code'"),
        ({"kind": "embedding-linear"}, "not a setting of kind 'embedding-linear'"),
        ({"kind": "decoder"}, "kind: Input should be"),
        ({"sublabel_weight": "1"}, "share of the loss: at least 0 and below 1"),
        ({"sublabel_weight": "much"}, "sublabel_weight"),
        ({"onnx": "int4"}, "onnx.0: Input should be 'fp32' or 'int8'"),
        ({"pooling": "max"}, "pooling: Input should be"),
        ({"learning_rate": "fast"}, "learning_rate: Input should be a valid number"),
    ],
)
def test_a_setting_of_another_kind_is_refused(flags: dict[str, str], problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        load_recipe(ENCODER, FOLDERS | flags)


def test_a_language_model_needs_an_instruction_and_no_pooling() -> None:
    cpu = ROOT / "config" / "trainer-cpu.toml"
    with pytest.raises(BadInput, match="pooling: not a setting of kind 'lora-code'"):
        load_recipe(cpu, FOLDERS | {"pooling": "mean"})
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
