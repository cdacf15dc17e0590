"""A dataset depends on its content, not on the order of lines, files or formats."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv
from trainer.dataset.folder import SPLITS, count_openings, open_dataset, open_holdout
from worker.contract.text import message_sha256

PLAIN: tuple[object, ...] = ()
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


def parts(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {
        split: [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        for split in SPLITS
    }


@pytest.mark.parametrize(
    "options",
    [
        PLAIN,
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
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path, options: Sequence[object]
) -> None:
    rows = messy(records)
    header = ("message", "label", "at", "who", "lang", "sublabel")
    made = []
    for seed in range(3):
        random.Random(seed).shuffle(rows)
        out = tmp_path / f"out-{seed}"
        result = run(write_csv(rows, f"{seed}.csv", header), *options, out=out)
        assert result.exit_code == 0, result.output
        extra = {name: (out / name).read_bytes() for name in KEPT if (out / name).exists()}
        made.append((parts(out), extra, open_dataset(out).digest))
    assert made[0] == made[1] == made[2]


def test_of_copies_with_ids_the_smallest_id_is_kept(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    twins = [(f"z{id_}", message.upper(), label) for id_, message, label in records]
    for name, rows in (("a", [*records, *twins]), ("b", [*twins, *records])):
        run(write_csv(rows), out=tmp_path / name)
        ids = [row["id"] for split in parts(tmp_path / name).values() for row in split]
        assert sorted(ids) == [id_ for id_, _, _ in records]


def test_files_and_formats_are_not_what_a_dataset_is(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    run(write_csv(records), out=tmp_path / "one")
    two = (write_csv(records[60:], "b.csv"), "--input", write_csv(records[:60], "a.csv"))
    run(*two, out=tmp_path / "two")
    lines = [dict(zip(("id", "message", "label"), record, strict=True)) for record in records]
    path = tmp_path / "export.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    run(path, out=tmp_path / "json")
    one, other, third = (open_dataset(tmp_path / name) for name in ("one", "two", "json"))
    assert one.digest == other.digest == third.digest
    assert [source["name"] for source in other.record["sources"]] == ["b.csv", "a.csv"]


FINE_TUNES: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "OpenAI": lambda asked, label: {
        "messages": [
            {"role": "system", "content": "Sort."},
            {"role": "user", "content": asked},
            {"role": "assistant", "content": json.dumps({"category": label}), "weight": 1},
        ]
    },
    "Gemini": lambda asked, label: {
        "systemInstruction": {"parts": [{"text": "Sort."}]},
        "contents": [
            {"role": "user", "parts": [{"text": asked}]},
            {"role": "model", "parts": [{"text": label}]},
        ],
    },
    "Bedrock": lambda asked, label: {
        "schemaVersion": "bedrock-conversation-2024",
        "system": [{"text": "Sort."}],
        "messages": [
            {"role": "user", "content": [{"text": asked}]},
            {"role": "assistant", "content": [{"text": label}]},
        ],
    },
    "prompts": lambda asked, label: {
        "prompt": f"Sort this.\n\n{asked}\n\n###\n\n",
        "completion": f" {label}",
    },
}


@pytest.mark.parametrize("form", FINE_TUNES)
def test_a_fine_tunes_file_makes_the_dataset_that_its_messages_make(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path, form: str
) -> None:
    run(write_csv(records), out=tmp_path / "csv")
    lines = [{"id": id_} | FINE_TUNES[form](asked, label) for id_, asked, label in records]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    result = run(path, out=tmp_path / "chats")
    assert result.exit_code == 0, result.output
    assert parts(tmp_path / "csv") == parts(tmp_path / "chats")


def test_shuffled_decisions_make_the_same_dataset(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    rows = [*records, *(("t" + id_, message, "refund") for id_, message, _ in records[:9])]
    export = write_csv(rows)
    run(export, out=tmp_path / "first")
    with (tmp_path / "first" / "conflicts.csv").open(encoding="utf-8-sig", newline="") as file:
        decided = list(csv.DictReader(file))
    for row in decided[::2]:
        row["decision"] = "accept"
    digests = set()
    for seed in range(3):
        random.Random(seed).shuffle(decided)
        queue = write_csv([list(row.values()) for row in decided], "q.csv", list(decided[0]))
        result = run(export, "--decisions", queue, out=tmp_path / f"out-{seed}")
        assert result.exit_code == 0, result.output
        digests.add(open_dataset(tmp_path / f"out-{seed}").digest)
    assert len(digests) == 1


def test_openings_follow_the_texts(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    run(write_csv(records), out=tmp_path / "v1")
    dataset = open_dataset(tmp_path / "v1")
    for subject in ("one", "two", "three", "four"):
        open_holdout(dataset, purpose="evaluate", subject=subject)
    renamed = [(f"n{id_}", message, label) for id_, message, label in reversed(records)]
    told = run(write_csv(renamed, "renamed.csv"), out=tmp_path / "v2")
    assert count_openings(open_dataset(tmp_path / "v2")) == 4
    assert "was opened 4 times" in told.output
    held = parts(tmp_path / "v1")["holdout"][0]
    other = next(label for _, _, label in records if label != held["response"])
    decision = (held["id"], message_sha256(held["instruction"]), "relabel", other)
    queue = write_csv([decision], "q.csv", ("id", "message_sha256", "decision", "new_label"))
    run(write_csv(records), "--decisions", queue, out=tmp_path / "v3")
    corrected = open_dataset(tmp_path / "v3")
    assert corrected.holdout_sha256 != dataset.holdout_sha256
    assert count_openings(corrected) == 4
    run(write_csv(records), "--seed", 5, out=tmp_path / "v4")
    assert count_openings(open_dataset(tmp_path / "v4")) == 0
