"""The dataset folder: read as written, sealed, with every opening of the hold-out counted."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Prepare, Record, Run, WriteCsv
from trainer.dataset.folder import (
    LEDGER,
    Dataset,
    Example,
    count_openings,
    list_openings,
    open_dataset,
    open_holdout,
    write_dataset,
)
from trainer.errors import BadInput
from worker.contract import Label, Taxonomy

TAXONOMY = Taxonomy("t", "1", "", (Label("a", ""), Label("b", "")))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    splits = {
        name: [Example(f"{name}{n}", f"{name} says\n{n} ünï", "ab"[n % 2], "s" if n else None)
               for n in range(4)]
        for name in ("train", "validation", "holdout")
    }  # fmt: skip
    return write_dataset(
        tmp_path / "d", name="n", taxonomy=TAXONOMY, splits=splits, settings={"x": 1}
    )


def test_a_dataset_is_read_as_it_was_written(dataset: Dataset) -> None:
    again = open_dataset(dataset.directory)
    assert again == dataset
    assert again.train[1] == Example("train1", "train says\n1 ünï", "b", "s")
    assert not hasattr(again, "holdout")


def test_openings_are_written_down_and_leave_the_digest_alone(dataset: Dataset) -> None:
    for subject in ("adapter 1", "adapter 2"):
        held = open_holdout(dataset, purpose="evaluate", subject=subject)
        assert [example.id for example in held] == [f"holdout{n}" for n in range(4)]
    again = open_dataset(dataset.directory)
    assert again.digest == dataset.digest
    openings = again.record["holdout_openings"]
    assert [(opening["purpose"], opening["subject"]) for opening in openings] == [
        ("evaluate", "adapter 1"), ("evaluate", "adapter 2"),
    ]  # fmt: skip
    assert count_openings(dataset) == 2


def _open_many(directory: Path, name: str) -> None:
    dataset = open_dataset(directory)
    for n in range(10):
        open_holdout(dataset, purpose="race", subject=f"{name}{n}")


def test_openings_at_the_same_time_are_all_counted(dataset: Dataset) -> None:
    """Three processes with ten openings each leave thirty: none overwrites another's."""
    context = multiprocessing.get_context("fork")
    running = [context.Process(target=_open_many, args=(dataset.directory, name)) for name in "xyz"]
    for process in running:
        process.start()
    for process in running:
        process.join()
        assert process.exitcode == 0
    assert count_openings(dataset) == 30


def test_an_opening_that_cannot_be_written_opens_nothing(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, the error comes before the first message is read."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.dataset.folder.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        open_holdout(dataset, purpose="evaluate", subject="x")
    assert count_openings(dataset) == 0


@pytest.mark.parametrize("name", ["train.jsonl", "holdout.jsonl"])
def test_an_altered_or_missing_file_is_refused(dataset: Dataset, name: str) -> None:
    path = dataset.directory / name
    path.write_bytes(path.read_bytes().replace(b"says", b"said"))
    with pytest.raises(BadInput, match="altered since it was prepared"):
        open_dataset(dataset.directory)
    if name == "holdout.jsonl":  # altered after the dataset was opened
        with pytest.raises(BadInput, match=r"holdout\.jsonl: altered"):
            open_holdout(dataset, purpose="evaluate", subject="x")
    path.unlink()
    with pytest.raises(BadInput, match=name):
        open_dataset(dataset.directory)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("settings", {"other": 1}, "altered since it was prepared"),
        ("redaction", "pii-9", "altered since it was prepared"),
        ("schema_version", 2, "not a dataset of version 1: prepare it again"),
    ],
)
def test_an_altered_manifest_is_refused(
    dataset: Dataset, field: str, value: object, said: str
) -> None:
    path = dataset.directory / "dataset.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {field: value}), encoding="utf-8")
    with pytest.raises(BadInput, match=said):
        open_dataset(dataset.directory)
    path.unlink()
    with pytest.raises(BadInput, match="not a finished dataset"):
        open_dataset(dataset.directory)


def look(directory: Path, subject: str = "an adapter") -> None:
    open_holdout(open_dataset(directory), purpose="evaluate", subject=subject)


def count(directory: Path) -> int:
    return count_openings(open_dataset(directory))


@pytest.mark.parametrize("policy", ["drop", "keep-majority"])
def test_conflicts_show_no_text_of_the_hold_out(
    prepare: Prepare, records: list[Record], policy: str
) -> None:
    """Every fourth message also has another label. Rows in the hold-out, and rows that a decision
    would put there, are named by id only."""
    doubled = [
        *((f"{id_}-{copy}", message, label) for id_, message, label in records for copy in "ab"),
        *(
            (f"{id_}-c", message, "refund" if label != "refund" else "payment")
            for id_, message, label in records[::4]
        ),
    ]
    made = prepare(doubled, "--conflicts", policy)
    rows = made.table("conflicts.csv")
    held = {row["instruction"] for row in made.lines("holdout")}
    assert not {row["message"] for row in rows} & held
    hidden = [row for row in rows if "sealed hold-out" in row["message"]]
    assert 0 < len(hidden) < len(rows) / 2
    assert all(row["id"] and row["message_sha256"] for row in hidden)


def test_conflicts_show_nothing_near_to_a_hold_out_of_ones_own(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record]
) -> None:
    """A hold-out message with one more word would reveal the message."""
    held = [(f"h{at}", message, label) for at, (_, message, label) in enumerate(records[:9])]
    near = [
        (f"n{at}", f"{message} ok", "refund" if label != "refund" else "payment")
        for at, (_, message, label) in enumerate(records[:9])
    ]
    made = prepare([*near, *records[9:]], "--holdout", write_csv(held, "held.csv"))
    rows = made.table("conflicts.csv")
    assert {row["id"] for row in rows} == {row[0] for row in (*held, *near)}
    assert all("sealed hold-out" in row["message"] for row in rows)


def test_preparing_again_forgets_no_opening(
    prepare: Prepare, records: list[Record], tmp_path: Path
) -> None:
    first, second = tmp_path / "v1", tmp_path / "v2"
    prepare(records, out=first)
    for subject in ("one", "two"):
        look(first, subject)
    told = prepare(records, "--per-label", 20, out=second)
    assert "This hold-out was opened 2 times" in told.printed
    look(second, "three")
    assert count(first) == count(second) == 3
    assert [opening["subject"] for opening in list_openings(open_dataset(first))] == [
        "one", "two", "three",
    ]  # fmt: skip
    for path in sorted(first.iterdir()):
        path.unlink()
    prepare(records, out=first)
    assert count(first) == 3


def test_what_was_opened_elsewhere_is_told_of(
    prepare: Prepare, run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    old, new = tmp_path / "old" / "v1", tmp_path / "new"
    prepare(records, out=old)
    look(old)
    prepare(records, out=new / "unseen")
    assert count(new / "unseen") == 0
    prepare(records, "--earlier", old, out=new / "told")
    assert count(new / "told") == 1
    (tmp_path / "old" / LEDGER).unlink()
    prepare(records, "--earlier", old, out=new / "again")
    assert count(new / "again") == 1
    wrong = run(write_csv(records), "--earlier", tmp_path / "nowhere", out=new / "none")
    assert wrong.exit_code == 2
    assert not (new / "none").exists()


def test_the_ledger_is_read_around_a_cut_line_and_a_damaged_neighbour(
    prepare: Prepare, records: list[Record], tmp_path: Path
) -> None:
    """A process killed in mid-line costs that line only."""
    out = prepare(records).out
    look(out, "one")
    ledger = tmp_path / LEDGER
    ledger.write_bytes(ledger.read_bytes() + b'{"holdout_sha256": "ab')
    look(out, "two")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "dataset.json").write_text("[]", encoding="utf-8")
    assert count(prepare(records).out) == 2


def test_where_the_folder_above_cannot_be_written_the_manifest_alone_knows(
    prepare: Prepare, records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "volume" / "data"
    prepare(records, out=out)
    monkeypatch.setattr(os, "access", lambda path, _mode: Path(path) != out.parent)
    look(out)
    assert count(out) == 1
    assert not (out.parent / LEDGER).exists()


def test_texts_are_for_owner_and_group(prepare: Prepare, records: list[Record]) -> None:
    out = prepare([*records, ("con", records[0][1], "payment")], "--per-label", 20).out
    assert out.stat().st_mode & 0o777 == 0o750
    for name in ("train.jsonl", "validation.jsonl", "holdout.jsonl", "surplus.jsonl"):
        assert (out / name).stat().st_mode & 0o777 == 0o640
    assert (out / "conflicts.csv").stat().st_mode & 0o777 == 0o640
