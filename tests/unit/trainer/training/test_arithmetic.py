"""Which layout and attention a recipe gets, by itself and when it is asked for."""

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
        ({"packing": True}, False, ("packed", "sdpa")),
        ({"packing": False}, True, ("cached", "sdpa")),
        ({"share_prefix": False}, True, ("whole", "sdpa")),
        ({"share_prefix": False}, False, ("whole", "eager")),
        ({"attn_implementation": "sdpa"}, True, ("packed", "sdpa")),
        ({"attn_implementation": "eager"}, True, ("packed", "eager")),
    ],
)
def test_what_a_recipe_gets(
    more: dict[str, object],
    on_gpu: bool,
    wanted: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "find_spec", lambda _: True)
    given = recipe(**more)
    assert (layout_of(given, on_gpu=on_gpu), attention_of(given, on_gpu=on_gpu)) == wanted


def test_flex_attention_needs_triton_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the one sdpa does it; without the other it is said."""
    monkeypatch.setattr(layout, "find_spec", lambda _: None)
    assert attention_of(recipe(), on_gpu=True) == "sdpa"
    with pytest.raises(BadInput, match="learns on a GPU alone: set it to auto"):
        attention_of(recipe(attn_implementation="flex_attention"), on_gpu=False)


def test_what_workers_hold_is_not_packed() -> None:
    """Its attention would compute what is masked."""
    assert served_layout(recipe(packing=True)) == "cached"
    assert served_layout(recipe(share_prefix=False)) == "whole"


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({"packing": True, "share_prefix": False}, "packing: needs share_prefix = true"),
        (
            {"packing": False, "gradient_checkpointing": True},
            "not with share_prefix = true and packing = false",
        ),
    ],
)
def test_what_cannot_go_together_is_refused(more: dict[str, object], wanted: str) -> None:
    with pytest.raises(BadInput, match=wanted):
        recipe(**more)
