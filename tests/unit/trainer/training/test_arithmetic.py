"""The prompt layout and attention of a recipe, by default and as set."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.training import arithmetic as layout
from trainer.training.arithmetic import attention_of, layout_of, served_layout
from trainer.training.recipe import Recipe, load_recipe

CONFIG = Path(__file__).parents[4] / "config"
PLACES = {"base": Path("base"), "dataset": Path("data"), "run": Path("run")}


def recipe(**more: object) -> Recipe:
    return load_recipe(CONFIG / "trainer.toml", PLACES | more)


@pytest.mark.parametrize(
    ("more", "on_gpu", "wanted"),
    [
        ({}, True, ("packed", "flex_attention")),
        ({}, False, ("cached", "eager")),
        ({"gradient_checkpointing": True}, False, ("packed", "sdpa")),
        ({"prompt_layout": "packed"}, False, ("packed", "sdpa")),
        ({"prompt_layout": "whole"}, True, ("whole", "sdpa")),
        ({"attn_implementation": "eager"}, True, ("packed", "eager")),
    ],
)
def test_the_layout_and_attention_of_a_recipe(
    more: dict[str, object],
    on_gpu: bool,
    wanted: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "find_spec", lambda _: True)
    given = recipe(**more)
    assert (layout_of(given, on_gpu=on_gpu), attention_of(given, on_gpu=on_gpu)) == wanted


def test_flex_attention_needs_triton_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "find_spec", lambda _: None)
    assert attention_of(recipe(), on_gpu=True) == "sdpa"
    with pytest.raises(BadInput, match="needs a GPU: set it to auto"):
        attention_of(recipe(attn_implementation="flex_attention"), on_gpu=False)


def test_the_served_base_is_not_packed() -> None:
    assert served_layout(recipe(prompt_layout="packed")) == "cached"
    assert served_layout(recipe(prompt_layout="whole")) == "whole"


def test_a_cached_prefix_and_gradient_checkpointing_exclude_each_other() -> None:
    with pytest.raises(BadInput, match="not with prompt_layout = 'cached'"):
        recipe(prompt_layout="cached", gradient_checkpointing=True)
