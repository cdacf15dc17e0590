"""Settings: flags over environment over file, and a wrong one is told in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.training.recipe import load_recipe, parse_assignments

CONFIG = Path(__file__).parents[4] / "config"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
SHIPPED = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


def test_the_shipped_recipe_is_whole_but_for_the_base(tmp_path: Path) -> None:
    recipe = load_recipe(SHIPPED, PLACES)
    assert recipe.lora_rank == 16
    with pytest.raises(BadInput, match="base: Field required"):
        load_recipe(SHIPPED, {})


def test_the_recipe_for_a_gpu_is_whole_too() -> None:
    recipe = load_recipe(CONFIG / "trainer.toml", PLACES)
    assert (recipe.lora_rank, recipe.base_dtype, recipe.list_labels) == (16, "bfloat16", True)


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


def test_a_wrong_setting_is_looked_for_where_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BadInput, match=r"^given as a flag: lora_rank: "):
        load_recipe(SHIPPED, {**PLACES, "lora_rank": "0"})
    monkeypatch.setenv("CLERK_TRAINER_LORA_RANK", "0")
    with pytest.raises(BadInput, match=r"^CLERK_TRAINER_LORA_RANK in the environment: "):
        load_recipe(SHIPPED, PLACES)


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"rnak": "8"}, "rnak: Extra inputs"),
        ({"lora_rank": "0"}, "lora_rank: Input should be greater"),
        ({"learning_rate": "fast"}, "learning_rate: Input should be a valid number"),
        ({"adapter_dtype": "int8"}, "adapter_dtype: Input should be"),
        ({"load_in_4bit": "8"}, "load_in_4bit: Input should be"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    tmp_path: Path, flags: dict[str, str], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem) as caught:
        load_recipe(SHIPPED, {**PLACES, **flags})
    assert "\n" not in str(caught.value)


def test_an_unknown_key_in_the_file_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(SHIPPED.read_text(encoding="utf-8") + "\nepoch = 3\n", encoding="utf-8")
    with pytest.raises(BadInput, match="epoch: Extra"):
        load_recipe(path, PLACES)
    with pytest.raises(BadInput, match=r"none\.toml: cannot be read"):
        load_recipe(tmp_path / "none.toml", {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\r", "is not TOML"),
        (b"epochs = " + b"9" * 5000, "is not TOML"),
        (b"x = " + b"[" * 100_000, "nested"),
        (b"\xff", "is not TOML"),
    ],
)
def test_what_is_no_recipe_is_told_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=why) as caught:
        load_recipe(path, PLACES)
    assert "\n" not in str(caught.value)


def test_a_manifest_gets_no_path_of_this_machine(tmp_path: Path) -> None:
    recipe = load_recipe(
        SHIPPED, {**PLACES, "base": tmp_path / "some" / "base", "run": tmp_path / "x"}
    )
    record = recipe.to_record()
    assert not {"base", "dataset", "run"} & set(record)
    assert str(tmp_path) not in str(record)


def test_assignments_need_an_equals_sign() -> None:
    with pytest.raises(BadInput, match="key=value"):
        parse_assignments(["lora_rank"])
