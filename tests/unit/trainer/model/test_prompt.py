"""The prompt comes from the base's chat template, and a message is only ever text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from trainer.errors import BadInput
from trainer.model.chat_template import load_renderer
from trainer.model.prompt import BaseTokenizer, load_tokenizer, make_prompt
from worker.contract import Code, PromptSpec, Taxonomy, build_prompt, make_golden

INSTRUCTION = "Answer with the code."


def prompt(
    base: Path, taxonomy_file: Path, **changes: Any
) -> tuple[BaseTokenizer, PromptSpec, Mapping[str, Code]]:
    tokenizer = load_tokenizer(base)
    settings: dict[str, Any] = {
        "instruction": INSTRUCTION,
        "list_labels": True,
        "descriptions": False,
        "max_message_tokens": 64,
        "prefix_block": 0,
    }
    render = changes.pop("render", None) or load_renderer(base)
    taxonomy = Taxonomy.from_toml(taxonomy_file)
    return tokenizer, *make_prompt(taxonomy, tokenizer.encoders, render, **(settings | changes))


def test_the_fixed_parts_are_the_chat_template_around_the_message(
    tiny_base: Path, taxonomy_file: Path
) -> None:
    _, spec, codes = prompt(tiny_base, taxonomy_file)
    assert spec.prefix == (
        "<|im_start|>system\nAnswer with the code.\nA order_tracking\nB refund\nC payment<|im_end|>"
        "\n<|im_start|>user\n"
    )
    assert spec.suffix == "<|im_end|>\n<|im_start|>assistant\n"
    assert [code.text for code in codes.values()] == ["A", "B", "C"]


def test_prompt_ids_are_the_template_tokenized_whole(tiny_base: Path, taxonomy_file: Path) -> None:
    tokenizer, spec, _ = prompt(tiny_base, taxonomy_file)
    built = build_prompt(spec, "where is my parcel", tokenizer.encoders.plain)
    assert built is not None
    whole = tokenizer.encoders.control(f"{spec.prefix}where is my parcel{spec.suffix}")
    assert list(built.ids) == list(whole)


def test_control_tokens_in_a_message_stay_text(tiny_base: Path, taxonomy_file: Path) -> None:
    tokenizer, spec, _ = prompt(tiny_base, taxonomy_file)
    ids = tokenizer.encoders.plain("<|im_end|> <tool> <|im_start|>")
    assert not tokenizer.encoders.control_ids.intersection(ids)
    assert tokenizer.decode(ids) == "<|im_end|> <tool> <|im_start|>"
    for golden in make_golden(spec, tokenizer.encoders):
        message = golden.ids[len(spec.prefix_ids) : len(golden.ids) - len(spec.suffix_ids)]
        assert not tokenizer.encoders.control_ids.intersection(message)


@pytest.mark.parametrize("block", [16, 32])
def test_the_prefix_can_fill_whole_cache_blocks(
    tiny_base: Path, taxonomy_file: Path, block: int
) -> None:
    _, plain, _ = prompt(tiny_base, taxonomy_file)
    _, spec, _ = prompt(tiny_base, taxonomy_file, prefix_block=block)
    assert len(spec.prefix_ids) % block == 0
    assert 0 <= len(spec.prefix_ids) - len(plain.prefix_ids) < 2 * block


def test_a_base_without_a_system_role_gets_the_instruction_in_the_users_turn(
    tiny_base: Path, taxonomy_file: Path
) -> None:
    def render(chat: list[dict[str, str]]) -> str:
        if chat[0]["role"] == "system":
            raise ValueError("no system role")
        return f"<|im_start|>{chat[0]['content']}<|im_end|>"

    _, spec, _ = prompt(tiny_base, taxonomy_file, render=render, list_labels=False)
    assert spec.prefix == "<|im_start|>Answer with the code.\n\n"
    assert spec.suffix == "<|im_end|>"


def test_a_template_that_loses_the_message_is_refused(tiny_base: Path, taxonomy_file: Path) -> None:
    with pytest.raises(BadInput, match="chat template"):
        prompt(tiny_base, taxonomy_file, render=lambda chat: "<|im_start|>hello")


def test_a_directory_without_a_tokenizer_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="not a tokenizer"):
        load_tokenizer(tmp_path)
