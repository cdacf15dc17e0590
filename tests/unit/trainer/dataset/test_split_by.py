"""Splits by time, group and language: leakage is measured against the known truth."""

from __future__ import annotations

import csv
import random
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

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
from trainer.dataset.near_duplicates import jaccard, shingles
from trainer.dataset.prepare import Prepared, build, write_prepared
from trainer.dataset.readers import read_time
from trainer.dataset.report import missing_languages, split_sentences
from trainer.dataset.settings import ColumnNames, ConflictPolicy, PrepareSettings, SplitBy
from trainer.errors import BadInput
from trainer.similarity import SIMILARITY

START = datetime(2024, 1, 1, tzinfo=UTC)


class Truth(NamedTuple):
    """The truth about a row of the made-up export."""

    id: str
    message: str
    label: str
    at: datetime
    customer: str
    language: str


Splitter = Callable[..., Prepared]


@pytest.fixture
def export() -> list[Truth]:
    """Return 360 rows of 90 customers over 360 hours, labels in turn; every third message is a
    rewording of one that came up to 100 hours before, mostly another customer's."""
    rng = random.Random(3)
    fresh = unlike_messages(360, seed=2)
    rows: list[Truth] = []
    for n in range(360):
        old = rows[rng.randrange(max(0, n - 100), n)] if n % 3 == 2 else None
        message = f"{old.message.removesuffix('.')} ok {n}." if old else fresh[n]
        label = old.label if old else LABELS[n // 3 % 3]
        # Customers come within half a day and then no more.
        customer = f"c{n // 12}-{rng.randrange(3)}"
        at = START + timedelta(hours=n)
        rows.append(Truth(f"t{n:03}", message, label, at, customer, ("de", "en")[n % 4 == 0]))
    rng.shuffle(rows)
    return rows


@pytest.fixture
def few_copies(export: list[Truth]) -> list[Truth]:
    """Return the same rows with 10 rewordings in place of 120."""
    fresh = unlike_messages(360, seed=11)
    numbered = [(int(row.id[1:]), row) for row in export]
    return [
        row._replace(message=fresh[n]) if n % 3 == 2 and n % 36 != 2 else row for n, row in numbered
    ]


@pytest.fixture
def split(tmp_path: Path, taxonomy: Path) -> Splitter:
    def build_it(rows: list[Truth], split: SplitBy, *columns: str, **more: Any) -> Prepared:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("id", "message", "label", "at", "customer", "lang"))
            writer.writerows((*row[:3], row.at.isoformat(), *row[4:]) for row in rows)
        there = {"time": "at", "group": "customer", "language": "lang"}
        names = ColumnNames(**{field: there[field] for field in columns})
        return build(
            PrepareSettings((path,), taxonomy, tmp_path / "out", columns=names, split=split, **more)
        )

    return build_it


def sides(prepared: Prepared, rows: list[Truth]) -> dict[str, list[Truth]]:
    by_id = {row.id: row for row in rows}
    return {side: [by_id[example.id] for example in prepared.splits[side]] for side in SPLITS}


def near_across(found: dict[str, list[Truth]]) -> int:
    """Count pairs of near-duplicates on two sides, by comparing every pair."""
    sets = {
        side: [shingles(row.message.casefold()) for row in rows] for side, rows in found.items()
    }
    return sum(
        jaccard(one, other) >= SIMILARITY
        for left, right in (
            ("train", "validation"),
            ("train", "holdout"),
            ("validation", "holdout"),
        )
        for one in sets[left]
        for other in sets[right]
    )


def test_by_time_nothing_that_was_learnt_is_later_than_the_first_held_out(
    split: Splitter, export: list[Truth]
) -> None:
    prepared = split(export, SplitBy.TIME, "time")
    found = sides(prepared, export)
    assert max(row.at for row in found["train"]) < min(row.at for row in found["validation"])
    assert max(row.at for row in found["validation"]) < min(row.at for row in found["holdout"])
    assert near_across(found) == 0
    # All that came in the last 15 % is held out, near-duplicates of each other included.
    assert {row.id for row in found["holdout"]} == {f"t{n:03}" for n in range(306, 360)}
    counts = prepared.facts["counts"]
    left_out = counts["holdout_copies_removed"]["near"] + counts["near_validation_removed"]
    assert left_out > 10
    assert sum(map(len, found.values())) + left_out == len(export)
    # A control: with a random split, both times and customers cross.
    found = sides(split(export, SplitBy.RANDOM), export)
    assert max(row.at for row in found["train"]) > min(row.at for row in found["holdout"])
    assert {r.customer for r in found["train"]} & {r.customer for r in found["holdout"]}


def test_by_time_with_a_group_no_customer_crosses(split: Splitter, few_copies: list[Truth]) -> None:
    found = sides(split(few_copies, SplitBy.TIME, "time", "group"), few_copies)
    assert near_across(found) == 0
    assert max(row.at for row in found["train"]) < min(row.at for row in found["holdout"])
    customers = [{row.customer for row in rows} for rows in found.values()]
    assert sum(map(len, customers)) == len(set().union(*customers))


@pytest.mark.parametrize("seed", range(3))
def test_by_group_neither_a_customer_nor_a_near_duplicate_crosses(
    split: Splitter, few_copies: list[Truth], seed: int
) -> None:
    own = few_copies
    found = sides(split(own, SplitBy.GROUP, "group", seed=seed), own)
    side_of = defaultdict(set)
    for side, rows in found.items():
        for row in rows:
            side_of[row.customer].add(side)
    assert all(len(some) == 1 for some in side_of.values())
    assert near_across(found) == 0
    assert sum(map(len, found.values())) == len(own)
    assert 44 <= len(found["holdout"]) <= 64
    for label in LABELS:
        assert 12 <= sum(row.label == label for row in found["holdout"]) <= 24


def test_near_duplicates_link_groups(split: Splitter, export: list[Truth]) -> None:
    with pytest.raises(BadInput, match=r"the \w+ split by group would have \d+ of 360 messages"):
        split(export, SplitBy.GROUP, "group")


def test_a_copy_that_comes_again_is_the_later_one(split: Splitter, export: list[Truth]) -> None:
    by_id = {row.id: row for row in export}
    again = [
        by_id["t000"]._replace(id="late", at=START + timedelta(hours=359)),
        by_id["t001"]._replace(id="late2", label="payment", at=START + timedelta(hours=358)),
        by_id["t001"]._replace(id="early2", at=START + timedelta(hours=2)),
    ]
    prepared = split(
        [*export, *again], SplitBy.TIME, "time", conflicts=ConflictPolicy.KEEP_MAJORITY
    )
    ids = {side: {example.id for example in prepared.splits[side]} for side in SPLITS}
    assert "late" in ids["holdout"]
    assert not any({"t000", "t001", "late2", "early2"} & some for some in ids.values())
    assert prepared.facts["counts"]["out_of_time_removed"] == 1


def test_a_rare_language_is_in_every_part_in_its_share(
    split: Splitter, export: list[Truth]
) -> None:
    plain = [row._replace(language="de") for row in export if int(row.id[1:]) % 3 != 2]
    rare = [
        plain[0]._replace(id=f"r{n}", message=message, label=LABELS[n % 3], language="FR")
        for n, message in enumerate(unlike_messages(6, seed=9))
    ]
    prepared = split([*plain, *rare], SplitBy.RANDOM, "language")
    assert min(prepared.facts["split"]["languages"]["fr"].values()) >= 1
    assert missing_languages(prepared.facts["split"]) == []
    for label in LABELS:
        held = sum(example.label == label for example in prepared.splits["holdout"])
        assert abs(held - 0.15 * 82) < 4

    prepared = split([*plain, *rare[:2]], SplitBy.RANDOM, "language")
    [(name, lacking)] = missing_languages(prepared.facts["split"])
    assert name == "fr"
    assert lacking
    told = list(split_sentences(prepared.facts))
    assert told[-1].startswith("Warning: fr has 2 messages and none in ")


def test_the_manifest_and_the_output_say_how_it_was_split(
    prepare: Prepare, records: list[Record]
) -> None:
    rows = [
        (*record, f"2024-05-{1 + n // 10:02} {n % 10:02}:00:00", f"customer-{n}")
        for n, record in enumerate(records)
    ]
    options = ("--split", "time", "--time-column", "at", "--group-column", "who")
    done = prepare(rows, *options, header=("id", "message", "label", "at", "who"))
    assert done.record["split"]["time"]["train"][0] == "2024-05-01T00:00:00.000Z"
    assert done.record["split"]["groups"]["groups"] == len(records)
    text = " ".join(done.printed.split())
    assert "Split by time, the last period held out: train 2024-05-01T00:00:00.000Z to" in text
    assert "Messages that belong together count as fewer" in text
    assert not any("customer-" in each for each in (text, done.text("dataset.json")))


def test_an_export_makes_the_same_dataset_on_every_machine(
    write_csv: WriteCsv, records: list[Record], taxonomy: Path, tmp_path: Path
) -> None:
    """Adapters refer to their dataset by this digest, and to the hold-out by its file's."""
    settings = PrepareSettings((write_csv(records),), taxonomy, tmp_path / "out")
    dataset = write_prepared(build(settings), settings)
    assert dataset.digest == "0b8d79303750f1cf556696186005b0ebaf799250c72b99a05d36606c1c8ef6f4"
    assert dataset.holdout_sha256 == (
        "a4a1aee7d4a40d40b5d2ed45bc83146ef617794a605dde7c0a52e64e7d0fe9f9"
    )
    assert next(split_sentences(dataset.record)).startswith("Split at random")


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2024-05-06T07:08:09Z", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        (" 2024-05-06 07:08:09.5 ", datetime(2024, 5, 6, 7, 8, 9, 500_000)),
        ("20240506", datetime(2024, 5, 6)),
        ("1714979289.0", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
        ("1714979289000", datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_times_are_read_as_exports_have_them(value: str, moment: datetime) -> None:
    assert read_time(value) == moment


@pytest.mark.parametrize("cell", ["", "my card 1234 was stolen", "05/06/2024"])
def test_a_time_that_cannot_be_read_is_reported_without_its_text(
    refused: Refused, write_csv: WriteCsv, records: list[Record], cell: str
) -> None:
    """The cell may be a message."""
    rows = [(*record, f"2024-05-06 07:08:{n % 60:02}") for n, record in enumerate(records)]

    def said(time: str) -> str:
        rows[5] = (*records[5], time)
        path = write_csv(rows, header=("id", "message", "label", "at"))
        return refused(path, "--split", "time", "--time-column", "at")

    error = said(cell)
    assert "1 row whose 'at' is not a time (line 7): write it as 2024-05-06T07:08:09Z" in error
    assert not cell or cell not in error
    # Times with an offset from UTC and without one have no order.
    error = said("2024-05-06 07:08:09+02:00")
    assert "export.csv:7 has a time with an offset from UTC and export.csv:2 one without" in error
