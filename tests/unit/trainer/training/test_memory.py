"""The estimate before loading: read from headers, near what is used, and clear when it is no."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from trainer.errors import BadInput
from trainer.model.lora_model import LoraModel
from trainer.training import memory
from trainer.training.memory import estimate, plan_memory
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.shape import BaseShape, read_shape

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}
SEVEN_B = BaseShape(7_615_616_512, 6_525_288_448, 2_523_136, 28, 3584, 18944, 28, 3584, 512, 152064)
SMALL = BaseShape(134_515_008, 106_168_320, 305_280, 30, 576, 1536, 9, 576, 192, 49152)
CUDA = torch.device("cuda")


def recipe(name: str = "trainer.toml", **more: object) -> Recipe:
    return load_recipe(CONFIG / name, PLACES | more)


def test_the_shape_is_read_without_loading_a_weight(
    tiny_base: Path, make_lora_model: Callable[..., LoraModel]
) -> None:
    """Counts are those of the loaded model and of its adapter."""
    from transformers import AutoModelForCausalLM

    shape = read_shape(tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert shape.weights == sum(weights.numel() for weights in model.parameters())
    adapter = make_lora_model().trainable_parameters()
    assert 4 * shape.adapter_weights_per_rank == sum(weights.numel() for weights in adapter)
    some = read_shape(tiny_base, ("q_proj",))
    assert 0 < some.adapter_weights_per_rank < shape.adapter_weights_per_rank
    with pytest.raises(BadInput, match=r"config\.json"):
        read_shape(tiny_base / "nowhere")


def test_weights_that_a_base_holds_twice_are_counted_once(tiny_base: Path, tmp_path: Path) -> None:
    """Mistral's bases ship ``consolidated.safetensors`` beside the shards that the index names."""
    whole = read_shape(tiny_base)
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    shutil.copy(base / "model.safetensors", base / "consolidated.safetensors")
    assert read_shape(base) == whole
    state = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(state)
    shards = {"model-1-of-2.safetensors": names[::2], "model-2-of-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: state[name] for name in held}, base / file)
    index = {name: file for file, held in shards.items() for name in held}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}), "utf-8")
    assert read_shape(base) == whole


def test_the_recipe_for_7b_fits_a_card_of_24_gb() -> None:
    """The arithmetic in config/trainer.toml, done by the trainer's own sum."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    found = estimate(SEVEN_B, recipe(), gradient_checkpointing=True, **sizes)
    assert found.base == pytest.approx(15.2e9, rel=0.01)
    assert found.adapter == pytest.approx(0.73e9, rel=0.02)
    assert 1.1 * found.total < 24e9
    assert found.scored < found.training
    without = estimate(SEVEN_B, recipe(), gradient_checkpointing=False, **sizes)
    assert without.total > 24e9
    four_bits = recipe(load_in_4bit=True, serve_in_4bit=True)
    small = estimate(SEVEN_B, four_bits, gradient_checkpointing=True, **sizes)
    assert 1.1 * small.total < 12e9


def test_a_base_of_four_bits_that_is_served_in_more_needs_room_for_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its confidence is calibrated on the base that serves, and the error says which is which."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    monkeypatch.setattr(memory, "free_memory", lambda _: 16_000_000_000)
    with pytest.raises(BadInput, match=r"served base 15\.2 GB, .* serve_in_4bit=true, if workers"):
        plan_memory(SEVEN_B, recipe(load_in_4bit=True), CUDA, **sizes)
    plan = plan_memory(SEVEN_B, recipe(load_in_4bit=True, serve_in_4bit=True), CUDA, **sizes)
    assert plan.estimate.served_base == plan.estimate.base < 6e9


def test_scoring_the_longest_rows_takes_no_more_than_training_on_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """64 rows of 600 tokens at once took 10 GB above the weights, after the training was done."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    found = estimate(SEVEN_B, recipe(), gradient_checkpointing=True, **sizes)
    assert found.scoring < 1.5e9
    longer = estimate(
        SEVEN_B, recipe(), gradient_checkpointing=True, **(sizes | {"longest_tokens": 8000})
    )
    assert longer.scoring > 1.5 * found.scoring


def test_checkpointing_starts_when_memory_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """auto is off where it fits, on where it does not, and said no to where nothing helps."""
    sizes: Any = {"prefix_tokens": 90, "longest_tokens": 600, "bf16": True}
    for free, wanted in ((80e9, False), (24e9, True)):
        monkeypatch.setattr(memory, "free_memory", lambda _, free=free: int(free))
        assert plan_memory(SEVEN_B, recipe(), CUDA, **sizes).gradient_checkpointing is wanted
    monkeypatch.setattr(memory, "free_memory", lambda _: 10_000_000_000)
    with pytest.raises(BadInput, match=r"needs about 19\.\d GB and 10\.0 GB .* load_in_4bit=true"):
        plan_memory(SEVEN_B, recipe(), CUDA, **sizes)
    unchecked = plan_memory(SEVEN_B, recipe(memory_check=False), CUDA, **sizes)
    assert unchecked.gradient_checkpointing is True


def test_the_estimate_is_near_the_peaks_that_were_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Never below the peak of a training on a CPU by more than the margin, nor above by half."""
    monkeypatch.setattr(memory, "free_memory", lambda _: 10**12)
    for precision, peaks in (("no", (5.18e9, 5.73e9, 5.87e9)), ("bf16", (6.53e9,))):
        found = plan_memory(
            SMALL,
            recipe("trainer-cpu.toml", mixed_precision=precision),
            torch.device("cpu"),
            prefix_tokens=32,
            longest_tokens=130,
            bf16=precision == "bf16",
        )
        for peak in peaks:
            assert peak / 1.1 < found.estimate.total < 1.5 * peak


def test_longer_rows_bigger_batches_and_eager_attention_cost_more() -> None:
    """What the estimate grows with is what memory grows with."""
    sizes: Any = {
        "prefix_tokens": 32,
        "longest_tokens": 100,
        "bf16": False,
        "gradient_checkpointing": False,
    }

    def with_sdpa(**more: object) -> Recipe:
        return recipe("trainer-cpu.toml", attn_implementation="sdpa", **more)

    base = estimate(SMALL, with_sdpa(), **sizes)
    for change in (
        estimate(SMALL, recipe("trainer-cpu.toml"), **sizes),
        estimate(SMALL, with_sdpa(batch_size=32), **sizes),
        estimate(
            SMALL,
            with_sdpa(),
            **(sizes | {"longest_tokens": 200}),
        ),
        estimate(
            replace(SMALL, layers=60),
            with_sdpa(),
            **sizes,
        ),
    ):
        assert change.activations > base.activations
