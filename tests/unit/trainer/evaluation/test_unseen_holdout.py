"""A hold-out of another dataset is compared with the adapter's training messages."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.trainer_world import World, call
from trainer.dataset.folder import Dataset, Example, count_openings, write_dataset
from trainer.dataset.near_duplicates import verify_disjoint
from trainer.evaluation.summary import verify_evaluation
from trainer.store.gate import judge_unseen

pytestmark = pytest.mark.slow


def read(world: World, part: str) -> list[Example]:
    lines = map(json.loads, world.lines(f"{part}.jsonl"))
    return [Example(line["id"], line["instruction"], line["response"]) for line in lines]


def another(
    world: World, directory: Path, holdout: list[Example], redaction: str | None = None
) -> Dataset:
    splits = {"train": read(world, "holdout"), "validation": [], "holdout": holdout}
    splits["validation"] = [replace(example, id=f"v{example.id}") for example in splits["train"]]
    taxonomy = world.dataset.taxonomy
    return write_dataset(
        directory, name="other", taxonomy=taxonomy, splits=splits, redaction=redaction
    )


def fresh(world: World) -> list[Example]:
    """Return messages that are like no other."""
    return [
        replace(
            example,
            id=f"f{at}",
            message=f"{'kvw'[at % 3] * (at + 5)} zq{at} {'xyj'[at % 3] * (at + 7)}",
        )
        for at, example in enumerate(read(world, "holdout"))
    ]


def evaluate(world: World, dataset: Dataset, out: Path, *more: object) -> tuple[int, dict, str]:  # type: ignore[type-arg]
    return call(
        *("evaluate", world.adapter, "--dataset", dataset.directory, "--base", world.base),
        *("--out", out, *more, "--json"),
    )


def test_messages_that_were_trained_on_are_found(world: World, tmp_path: Path) -> None:
    """Of 36 held-out messages ten are training messages, five near-copies and two from validation:
    the record counts them, and the gate refuses."""
    trained, chosen, new = read(world, "train"), read(world, "validation"), fresh(world)
    near = [
        replace(example, message=f"{example.message} {example.message} ok")
        for example in trained[20:25]
    ]
    mixed = [*trained[:10], *near, *chosen[:2], *new[17:]]
    holdout = [replace(example, id=f"x{at}") for at, example in enumerate(mixed)]
    dataset = another(world, tmp_path / "mixed", holdout)
    out = tmp_path / "out"
    code, record, _ = evaluate(world, dataset, out, "--trained-on", world.dataset.directory)
    assert code == 0
    assert record["disjoint"] == {
        "trained_on": world.dataset.digest,
        "evaluated_on": dataset.digest,
        "holdout_sha256": dataset.holdout_sha256,
        "similarity": 0.7,
        "seen_messages": 120,
        "holdout_messages": 36,
        "copies": 12,
        "near_copies": 5,
        "same_ids": 0,
    }
    row = judge_unseen(world.manifest, verify_evaluation(out))
    assert not row.passed
    assert "17 of its 36 held-out messages" in row.found


def test_the_gate_accepts_a_hold_out_of_new_messages(world: World, tmp_path: Path) -> None:
    dataset = another(world, tmp_path / "new", fresh(world))
    out = tmp_path / "out"
    assert evaluate(world, dataset, out, "--trained-on", world.dataset.directory)[0] == 0
    assert judge_unseen(world.manifest, verify_evaluation(out)).passed


def test_without_the_training_dataset_there_is_no_proof(world: World, tmp_path: Path) -> None:
    """The evaluation prints a note, and the gate refuses."""
    dataset = another(world, tmp_path / "new", fresh(world))
    out = tmp_path / "out"
    code, record, errors = evaluate(world, dataset, out)
    assert code == 0
    assert "--trained-on" in errors
    assert record["disjoint"] is None
    assert not judge_unseen(world.manifest, verify_evaluation(out)).passed


def test_a_dataset_that_was_cleaned_differently_is_refused_before_it_is_opened(
    world: World, tmp_path: Path
) -> None:
    """A copy would look new."""
    splits = {"train": fresh(world), "validation": [], "holdout": read(world, "train")}
    dataset = write_dataset(
        tmp_path / "plain", name="plain", taxonomy=world.dataset.taxonomy, splits=splits,
        settings={"strip_quotes": True},
    )  # fmt: skip
    code, _, errors = evaluate(
        world, dataset, tmp_path / "out", "--trained-on", world.dataset.directory
    )
    assert code == 2
    assert "cleaned differently (strip quotes)" in errors
    assert count_openings(dataset) == 0


@pytest.mark.parametrize("redaction", ["pii-2", None])
def test_redaction_hides_no_copy(world: World, tmp_path: Path, redaction: str | None) -> None:
    """The same message, redacted in one dataset and plain in the other, is a copy."""
    plain = [
        replace(example, id=f"p{at}", message=f"mail ann.example.{at}.somebody@long.example.org")
        for at, example in enumerate(read(world, "train"))
    ]
    shown = "mail [mail]" if redaction else plain[0].message
    taxonomy = world.dataset.taxonomy
    trained = write_dataset(
        tmp_path / "t", name="t", taxonomy=taxonomy,
        splits={"train": plain, "validation": fresh(world), "holdout": []},
    )  # fmt: skip
    dataset = another(world, tmp_path / "h", [replace(plain[0], message=shown)], redaction)
    proof = verify_disjoint(trained, dataset, [replace(plain[0], message=shown)])
    assert (proof.copies, proof.near_copies) == (1, 0)
