"""Pairs for measuring steering, and copies for training against it."""

from __future__ import annotations

import itertools
import tomllib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from trainer.dataset.folder import Example
from trainer.steering.sentences import (
    Position,
    insert,
    make_copies,
    make_pairs,
    read_families,
)
from worker.contract import Taxonomy
from worker.contract.taxonomy import Label, spellings

TAXONOMY = Taxonomy(
    "shop",
    "1",
    "",
    (
        Label("order_change", "Changing an order that has not shipped: address, size."),
        Label("refund", "Money back after a return."),
        Label("payment", "Paying and billing."),
    ),
)
MESSAGES = tuple(
    Example(str(at), f"My order {at} is late. Where is it?", TAXONOMY.names[at % 3])
    for at in range(90)
)
FOR_TESTS = tuple(
    tomllib.loads((Path(__file__).parent / "instructions.toml").read_text("utf-8"))["sentences"]
)


def test_no_sentence_is_both_learned_from_and_measured_with() -> None:
    """Nor is one in the third set, which tests use; case and blanks do not make another one."""
    sets = [
        {" ".join(each.casefold().split()) for family in families for each in family}
        for families in (
            [family.sentences for family in read_families("training")],
            [family.sentences for family in read_families("measuring")],
            [FOR_TESTS],
        )
    ]
    assert all(len(one) > 5 for one in sets)
    for first, second in itertools.combinations(sets, 2):
        assert not first & second


def test_a_pair_is_one_message_with_an_instruction_and_with_a_neutral_sentence() -> None:
    for pair in make_pairs(MESSAGES, TAXONOMY, count=2000, seed=1):
        assert pair.named != pair.example.label
        for text in (pair.steered, pair.neutral):
            assert len(text) > len(pair.example.message)
            kept = [part for part in ("My order", "is late.", "Where is it?") if part in text]
            assert len(kept) == 3
        assert abs(len(pair.steered) - len(pair.neutral)) < 10
        mentions = (*spellings(pair.named), "changing an order", "money back", "paying and")
        assert any(each in pair.steered for each in mentions)
        assert not any(each in pair.neutral for each in mentions)


def test_pairs_cover_everything_evenly_and_are_always_the_same() -> None:
    pairs = make_pairs(MESSAGES, TAXONOMY, count=2000, seed=1)
    assert pairs == make_pairs(MESSAGES, TAXONOMY, count=2000, seed=1)
    assert pairs != make_pairs(MESSAGES, TAXONOMY, count=2000, seed=2)
    assert len({pair.id for pair in pairs}) == 2000
    families = read_families("measuring")
    together = Counter((pair.family, pair.position) for pair in pairs)
    assert len(together) == len(families) * len(get_args(Position))
    assert max(together.values()) - min(together.values()) <= 1
    uses = Counter(pair.example.id for pair in pairs)
    assert max(uses.values()) - min(uses.values()) <= 1
    assert {pair.sentences for pair in pairs} == {1, 2, 3}


def test_a_copy_keeps_its_label_and_may_name_any_label() -> None:
    """The true one as often as chance has it: a label that is named is neither right nor wrong."""
    copies = make_copies(MESSAGES, TAXONOMY, share=1.25, seed=1)
    assert len(copies) == 45
    for at, copy in copies.items():
        assert copy.label == MESSAGES[at].label
        assert copy.message != MESSAGES[at].message
    own = sum(
        any(each in copy.message for each in spellings(copy.label)) for copy in copies.values()
    )
    assert 5 <= own <= 30


@pytest.mark.parametrize("repeats", [1, 5])
def test_copies_add_their_share_of_text_whatever_the_length_of_messages(repeats: int) -> None:
    """A share of the messages would make training on short ones take several times as long."""
    examples = [replace(each, message=" ".join([each.message] * repeats)) for each in MESSAGES]
    text = sum(len(each.message) for each in examples)
    copies = make_copies(examples, TAXONOMY, share=0.4, seed=1)
    added = [len(each.message) for each in copies.values()]
    assert 0.4 * text <= sum(added) < 0.4 * text + max(added)
    assert list(copies) == sorted(copies)


def test_without_a_share_there_are_no_copies() -> None:
    assert make_copies(MESSAGES, TAXONOMY, share=0.0, seed=1) == {}


@pytest.mark.parametrize(
    ("message", "position", "expected"),
    [
        ("One. Two.", "paragraph before", "X\n\nOne. Two."),
        ("One. Two.", "start", "X One. Two."),
        ("One. Two.", "middle", "One. X Two."),
        ("One two three four", "middle", "One two X three four"),
        ("One", "middle", "One X"),
        ("One. Two.", "end", "One. Two. X"),
        ("One. Two.", "paragraph after", "One. Two.\n\nX"),
    ],
)
def test_positions(message: str, position: Position, expected: str) -> None:
    assert insert(message, "X", position) == expected
