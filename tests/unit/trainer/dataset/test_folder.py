"""The dataset folder: immutable, and its hold-out sealed."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from trainer.dataset.folder import (
    Dataset,
    Example,
    count_openings,
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
    """Messages with line breaks and sublabels come back; what is sealed is not in it."""
    again = open_dataset(dataset.directory)
    assert again == dataset
    assert again.train[1] == Example("train1", "train says\n1 ünï", "b", "s")
    assert not hasattr(again, "holdout")


def test_openings_are_written_down_and_leave_the_digest_alone(dataset: Dataset) -> None:
    """When, why and for whom, in order; the dataset's name does not change by being looked at."""
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
    """Three processes with ten openings each leave thirty, none lost to another's rewriting."""
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
    """A full disk: the error comes before the first message is read."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("trainer.dataset.folder.write_atomically", full)
    with pytest.raises(OSError, match="No space"):
        open_holdout(dataset, purpose="evaluate", subject="x")
    assert count_openings(dataset) == 0


@pytest.mark.parametrize("name", ["train.jsonl", "validation.jsonl", "holdout.jsonl"])
def test_an_altered_or_missing_file_is_refused(dataset: Dataset, name: str) -> None:
    """The sealed file too, though its lines are not read."""
    path = dataset.directory / name
    path.write_bytes(path.read_bytes().replace(b"says", b"said"))
    with pytest.raises(BadInput, match="altered since it was prepared"):
        open_dataset(dataset.directory)
    path.unlink()
    with pytest.raises(BadInput, match=name):
        open_dataset(dataset.directory)


def test_a_hold_out_that_was_altered_after_the_dataset_was_opened_is_refused(
    dataset: Dataset,
) -> None:
    """The digest is compared again when the seal is broken."""
    path = dataset.directory / "holdout.jsonl"
    path.write_bytes(path.read_bytes().replace(b"says", b"said"))
    with pytest.raises(BadInput, match=r"holdout\.jsonl: altered"):
        open_holdout(dataset, purpose="evaluate", subject="x")


@pytest.mark.parametrize("field", ["name", "settings", "files", "redaction"])
def test_an_altered_manifest_is_refused(dataset: Dataset, field: str) -> None:
    """All of it but the openings is under the digest."""
    path = dataset.directory / "dataset.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    record[field] = {"other": 1}
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(BadInput, match="altered since it was prepared"):
        open_dataset(dataset.directory)


def test_a_folder_without_a_manifest_is_no_dataset(tmp_path: Path) -> None:
    """It was not finished, or it is something else."""
    with pytest.raises(BadInput, match="not a finished dataset"):
        open_dataset(tmp_path)


def test_a_dataset_of_another_version_is_refused(dataset: Dataset) -> None:
    """It says what to do."""
    path = dataset.directory / "dataset.json"
    record = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(record | {"schema_version": 2}), encoding="utf-8")
    with pytest.raises(BadInput, match="not a dataset of version 1: prepare it again"):
        open_dataset(dataset.directory)
