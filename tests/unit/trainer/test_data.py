"""Labelled data is read strictly, split once, and the hold-out never leaks."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from trainer.dataset.examples import Example, describe, load_splits, read_examples, split_validation
from trainer.errors import BadInput
from worker.contract import Label, Taxonomy

TAXONOMY = Taxonomy("t", "1", "", (Label("refund", ""), Label("payment", "")))


def write(path: Path, *records: object) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return path


def examples(refunds: int, payments: int) -> list[Example]:
    named = [("refund", at) for at in range(refunds)] + [("payment", at) for at in range(payments)]
    return [Example(f"{label} message {at}", label, f"f:{at}") for label, at in named]


@pytest.mark.parametrize(
    ("record", "problem"),
    [
        ({"message": "hello", "label": "weather"}, "unknown label 'weather'"),
        ({"message": " \u200b\n", "label": "refund"}, "empty"),
        ({"message": 3, "label": "refund"}, "as text"),
        ({"label": "refund"}, "as text"),
        (["hello", "refund"], "JSON object"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, record: object, problem: str) -> None:
    path = write(tmp_path / "d.jsonl", {"message": "fine", "label": "refund"}, record)
    with pytest.raises(BadInput, match=problem) as caught:
        read_examples(path, TAXONOMY)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert "\n" not in str(caught.value)


def test_broken_json_and_missing_files_are_bad_input(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    with pytest.raises(BadInput, match="cannot read"):
        read_examples(path, TAXONOMY)
    path.write_text('{"message": \n', encoding="utf-8")
    with pytest.raises(BadInput, match=r"d\.jsonl:1: not valid JSON"):
        read_examples(path, TAXONOMY)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no examples"):
        read_examples(path, TAXONOMY)


def test_a_message_of_the_holdout_may_not_be_trained_on_however_it_is_typed(tmp_path: Path) -> None:
    records = [{"message": f"message {at}", "label": "refund"} for at in range(3)]
    records += [{"message": f"other {at}", "label": "payment"} for at in range(3)]
    data = write(tmp_path / "train.jsonl", *records)
    holdout = write(tmp_path / "holdout.jsonl", {"message": " MESSAGE   1\r\n", "label": "refund"})
    with pytest.raises(BadInput) as caught:
        load_splits(data, holdout, TAXONOMY, validation_share=0.3, seed=1)
    assert str(caught.value).startswith(f"{holdout}:1: the same message as {data}:2")


def test_the_split_is_stratified_and_disjoint_and_complete() -> None:
    everything = examples(40, 20)
    train, validation = split_validation(everything, TAXONOMY, share=0.15, seed=7)
    assert Counter(one.label for one in validation) == {"refund": 6, "payment": 3}
    assert not {one.key for one in train} & {one.key for one in validation}
    assert {one.key for one in train} | {one.key for one in validation} == {
        one.key for one in everything
    }


def test_the_split_depends_on_the_seed_and_not_on_the_order_of_lines() -> None:
    everything = examples(40, 20)
    first = split_validation(everything, TAXONOMY, share=0.15, seed=7)
    assert split_validation(everything[::-1], TAXONOMY, share=0.15, seed=7) == first
    assert split_validation(everything, TAXONOMY, share=0.15, seed=8) != first


def test_every_label_is_on_both_sides_and_one_example_is_too_few() -> None:
    train, validation = split_validation(examples(2, 2), TAXONOMY, share=0.01, seed=1)
    assert Counter(one.label for one in train) == Counter(one.label for one in validation)
    with pytest.raises(BadInput, match="'payment' has 1 training"):
        split_validation(examples(5, 1), TAXONOMY, share=0.2, seed=1)


def test_the_data_digest_tells_content_from_order() -> None:
    some = examples(3, 3)
    assert describe(some, TAXONOMY) == describe(some[::-1], TAXONOMY)
    assert describe(some, TAXONOMY)["per_label"] == {"refund": 3, "payment": 3}
    assert describe(some[1:], TAXONOMY)["sha256"] != describe(some, TAXONOMY)["sha256"]
