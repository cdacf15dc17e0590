"""The same export a month later, with more rows."""

from __future__ import annotations

import pytest

from tests.unit.trainer.dataset.conftest import (
    LABELS,
    Prepare,
    Record,
    Refused,
    WriteCsv,
    unlike_messages,
)
from trainer.dataset.folder import SPLITS
from trainer.dataset.near_duplicates import verify_disjoint


@pytest.fixture
def february(records: list[Record]) -> list[Record]:
    added = unlike_messages(60, seed=2)
    return [*records, *((f"u{at:03}", text, LABELS[at % 3]) for at, text in enumerate(added))]


def test_the_hold_out_stays_and_grows(
    prepare: Prepare, records: list[Record], february: list[Record]
) -> None:
    """Nothing that the first month's adapter has seen is held out, and nothing that it was judged
    on is learned."""
    first = prepare(records)
    second = prepare(february, "--after", first.out)
    before, after = first.placed(), second.placed()
    assert len(after) == len(february)
    held = {id_ for id_, (split, _) in before.items() if split == "holdout"}
    grown = {id_ for id_, (split, _) in after.items() if split == "holdout"}
    assert held < grown
    assert {id_[0] for id_ in grown - held} == {"u"}
    assert len(grown - held) == 9  # 15 % of 60
    assert {split for id_, (split, _) in after.items() if id_[0] == "u"} == set(SPLITS)
    proof = verify_disjoint(first.dataset, second.dataset, second.held())
    assert proof.shared == 0
    march = [*february, ("v1", "quite another matter for once", LABELS[0])]
    third = prepare(march, "--after", second.out)
    assert grown <= {id_ for id_, (split, _) in third.placed().items() if split == "holdout"}


def test_the_hold_out_of_an_earlier_dataset_can_be_named(
    prepare: Prepare, records: list[Record], february: list[Record]
) -> None:
    """Its rows are in the export too, with the same ids and texts."""
    first = prepare(records)
    second = prepare(february, "--holdout", first.out / "holdout.jsonl")
    assert second.dataset.holdout_texts_sha256 == first.dataset.holdout_texts_sha256
    assert len(second.placed()) == len(february)


def test_an_id_with_another_text_is_another_message(
    prepare: Prepare, records: list[Record]
) -> None:
    """The one that was held out keeps its id."""
    first = prepare(records)
    held = next(id_ for id_, (split, _) in first.placed().items() if split == "holdout")
    changed = [
        (id_, "something else entirely" if id_ == held else m, label) for id_, m, label in records
    ]
    second = prepare(changed, "--after", first.out)
    assert second.placed()[held] == first.placed()[held]
    assert f"{held}-2" in second.placed()


def test_what_does_not_go_together(
    prepare: Prepare, refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    first, file = prepare(records), write_csv(records, "again.csv")
    told = refused(file, "--after", first.out, "--holdout", first.out / "holdout.jsonl")
    assert "leave --holdout out" in told
    assert "no-such" in refused(file, "--after", first.out / "no-such")
