"""A dataset depends on its content, not on the order of lines, files or formats."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.dataset.conftest import Made, Prepare, Record, WriteCsv
from trainer.dataset.folder import SPLITS, count_openings, open_holdout
from worker.contract.text import message_sha256

KEPT = ("conflicts.csv", "surplus.jsonl", "groups.jsonl", "label_sources.jsonl")


def messy(records: list[Record]) -> list[tuple[str, ...]]:
    """Return rows with every kind of copy: exact, in capitals, under two labels, near, and of one
    form; with a time, a customer, a language and a finer label, by which copies differ."""
    rows = [(message, label) for _, message, label in records]
    rows += [(message.upper(), label) for _, message, label in records[:12]]
    rows += [(message, label) for _, message, label in records[6:24]]
    rows += [(message, "refund") for _, message, _ in records[30:39]]
    rows += [(f"{message} ok", label) for _, message, label in records[40:60]]
    rows += [(f"Form {n}, call 0170 {n * 37}", records[n % 3][2]) for n in range(15)]
    return [
        (message, label, f"2026-05-{1 + n % 28:02}T0{n % 7}:00:00", f"c{n % 90}", "en", f"s{n % 5}")
        for n, (message, label) in enumerate(rows)
    ]


def parts(made: Made) -> list[list[dict[str, Any]]]:
    return [made.lines(split) for split in SPLITS]


@pytest.mark.parametrize(
    "options",
    [
        (),
        *(
            pytest.param(options, marks=pytest.mark.slow)
            for options in (
                ("--conflicts", "keep-majority", "--per-label", 20),
                ("--split", "time", "--time-column", "at"),
                ("--split", "group", "--group-column", "who", "--language-column", "lang"),
                ("--label-source", "person", "--redact"),
            )
        ),
    ],
)
def test_a_shuffled_export_makes_the_same_dataset(
    prepare: Prepare, records: list[Record], options: Sequence[object]
) -> None:
    rows = messy(records)
    found = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        made = prepare(rows, *options, header=("message", "label", "at", "who", "lang", "sublabel"))
        extra = {name: made.text(name) for name in KEPT if (made.out / name).exists()}
        found.append((parts(made), extra, made.dataset.digest))
    assert found[0] == found[1] == found[2]


def test_of_copies_with_ids_the_smallest_id_is_kept(
    prepare: Prepare, records: list[Record]
) -> None:
    twins = [(f"z{id_}", message.upper(), label) for id_, message, label in records]
    for rows in ([*records, *twins], [*twins, *records]):
        assert sorted(prepare(rows).placed()) == [id_ for id_, _, _ in records]


def test_files_and_formats_are_not_what_a_dataset_is(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    one = prepare(records)
    two = prepare(write_csv(records[60:], "b.csv"), "--input", write_csv(records[:60], "a.csv"))
    lines = [dict(zip(("id", "message", "label"), record, strict=True)) for record in records]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    assert one.dataset.digest == two.dataset.digest == prepare(path).dataset.digest
    assert [source["name"] for source in two.record["sources"]] == ["b.csv", "a.csv"]


def test_shuffled_decisions_make_the_same_dataset(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    export = [*records, *(("t" + id_, message, "refund") for id_, message, _ in records[:9])]
    decided = prepare(export).table("conflicts.csv")
    for row in decided[::2]:
        row["decision"] = "accept"
    digests = set()
    for seed in range(3):
        random.Random(seed).shuffle(decided)
        queue = write_csv([list(row.values()) for row in decided], "q.csv", list(decided[0]))
        digests.add(prepare(export, "--decisions", queue).dataset.digest)
    assert len(digests) == 1


def test_openings_follow_the_texts(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    first = prepare(records)
    for subject in ("one", "two", "three", "four"):
        open_holdout(first.dataset, purpose="evaluate", subject=subject)
    # The other way round also by their ids, by which a split is sorted.
    renamed = prepare([(f"n{999 - at}", *row[1:]) for at, row in enumerate(records)])
    assert count_openings(renamed.dataset) == 4
    assert "was opened 4 times" in renamed.printed
    held = first.lines("holdout")[0]
    other = next(label for _, _, label in records if label != held["response"])
    decision = (held["id"], message_sha256(held["instruction"]), "relabel", other)
    queue = write_csv([decision], "q.csv", ("id", "message_sha256", "decision", "new_label"))
    corrected = prepare(records, "--decisions", queue).dataset
    assert corrected.holdout_sha256 != first.dataset.holdout_sha256
    assert count_openings(corrected) == 4
    assert count_openings(prepare(records, "--seed", 5).dataset) == 0
