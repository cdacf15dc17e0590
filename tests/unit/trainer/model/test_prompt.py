"""The prompt is the base's chat template around plain text; a row learns its label's code alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.folder import Example
from trainer.errors import BadInput, ProofFailed
from trainer.model.prompt import (
    BaseTokenizer,
    Row,
    length_grouped_batches,
    load_renderer,
    load_tokenizer,
    make_prompt,
    make_rows,
    verify_answers,
)
from trainer.training.console import draw_row
from worker.contract import Code, PromptSpec, Taxonomy, build_prompt, make_golden
from worker.contract.text import NORMALIZATION

pytestmark = pytest.mark.slow

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


def test_the_prefix_can_fill_whole_cache_blocks(tiny_base: Path, taxonomy_file: Path) -> None:
    block = 16
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


# A row learns exactly its label's code, and the proof notices when one does not.


CODES = {"refund": Code("A", 65), "payment": Code("B", 66)}


def encode(text: str) -> list[int]:
    return [ord(character) for character in text]


def decode(ids: Iterable[int]) -> str:
    return "".join(chr(token) for token in ids)


SPEC = PromptSpec(
    prefix="<s>",
    suffix="</s>",
    marker="...",
    prefix_ids=tuple(encode("<s>")),
    suffix_ids=tuple(encode("</s>")),
    marker_ids=tuple(encode("...")),
    max_message_tokens=20,
    normalization=NORMALIZATION,
)


def rows() -> tuple[Row, ...]:
    some = [Example("1", "money back", "refund"), Example("2", "a card, " * 9, "payment", "card")]
    return make_rows(some, SPEC, encode, CODES)


def test_good_rows_are_proven_and_can_be_shown() -> None:
    verify_answers(rows(), SPEC, CODES, decode)
    assert draw_row(rows()[0], SPEC, decode, texts=True).plain == "<s>money back</s>⟦A⟧"
    assert [row.sublabel for row in rows()] == [None, "card"]


def test_where_what_is_printed_is_kept_a_message_is_counted_and_not_shown() -> None:
    """A job's output is a log, and logs contain no messages."""
    shown = draw_row(rows()[0], SPEC, decode, texts=False).plain
    assert shown == "<s>(a message of 10 tokens)</s>⟦A⟧"


def test_a_long_row_keeps_prompt_and_answer_and_loses_its_middle() -> None:
    row = rows()[1]
    assert len(row.prompt) == 3 + 20 + 4
    assert decode(row.prompt).startswith("<s>a card")
    assert decode(row.prompt).endswith(",</s>")
    assert row.answer is not None
    assert decode([row.answer]) == "B"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda row: replace(row, label="payment"), "learns 'A' instead of 'B'"),
        (lambda row: replace(row, answer=66), "learns 'B' instead of 'A'"),
        (lambda row: replace(row, answer=None), "prompt's parts"),
        (lambda row: replace(row, prompt=row.prompt[1:]), "prompt's parts"),
        (lambda row: replace(row, prompt=(*row.prompt, 2)), "prompt's parts"),
    ],
)
def test_a_wrong_row_fails_the_proof(change: Callable[[Row], Row], problem: str) -> None:
    first, second = rows()
    with pytest.raises(ProofFailed, match=problem) as caught:
        verify_answers([second, change(first)], SPEC, CODES, decode)
    assert "row 1 " in str(caught.value)
    assert "money" not in str(caught.value), "a message is private"


def test_batches_hold_every_row_once_and_rows_of_like_length() -> None:
    some = [Row("refund", (0,) * (1 + at % 50), 65) for at in range(1000)]
    found = list(length_grouped_batches(some, 8, random.Random(1)))
    assert sorted(id(row) for batch in found for row in batch) == sorted(id(row) for row in some)
    lengths = [[len(row.prompt) for row in batch] for batch in found]
    spread = [max(each) - min(each) for each in lengths]
    assert sum(spread) / len(spread) < 10
    again = list(length_grouped_batches(some, 8, random.Random(2)))
    assert [len(batch[0].prompt) for batch in again] != [len(batch[0].prompt) for batch in found]
