"""Hugging Face datasets as that library itself saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.folder import Row
from trainer.dataset.readers import read_source
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput

datasets = pytest.importorskip("datasets", reason="datasets is not here: the extra bench")

NAMES = ["refund", "payment"]
MESSAGES = ["Money back", "Card refused", "Where is it"]


def some(codes: list[Any], messages: list[str] = MESSAGES) -> Any:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=NAMES)}
    columns = {"text": messages, "label": codes}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


@pytest.fixture
def splits() -> Any:
    return datasets.DatasetDict(train=some([0, 1, 0]), test=some([1], ["Paid twice"]))


def labels(rows: list[Row]) -> list[str]:
    return [row.label for row in rows]


def test_a_split_saved_to_disk_is_read_in_its_order(tmp_path: Path) -> None:
    """Of all its files; a class is its name and not its number; ``where`` names file and row."""
    some([0, 1, 0]).save_to_disk(tmp_path / "saved", num_shards=2)
    rows, source = read_source(tmp_path / "saved", ColumnNames())
    assert [row.message for row in rows] == MESSAGES
    assert labels(rows) == ["refund", "payment", "refund"]
    assert rows[2].where == "saved/data-00001-of-00002.arrow row 1"
    assert (source.name, source.rows) == ("saved", 3)
    assert source.columns.guessed == ("message",)


def test_of_several_splits_one_is_named(tmp_path: Path, splits: Any) -> None:
    """Which rows are the hold-out is not guessed."""
    splits.save_to_disk(tmp_path / "saved")
    with pytest.raises(BadInput, match=r"several splits \(test, train\): name one, as .*saved/"):
        read_source(tmp_path / "saved", ColumnNames())
    assert labels(read_source(tmp_path / "saved" / "test", ColumnNames())[0]) == ["payment"]
    assert len(read_source(tmp_path / "saved" / "train", ColumnNames())[0]) == 3


@pytest.mark.parametrize("below", ["", "data"])
def test_a_repositorys_parquet_files_are_read_by_split(
    tmp_path: Path, splits: Any, below: str
) -> None:
    """As the hub keeps them, the names of the classes with them."""
    folder = tmp_path / "repo" / below
    folder.mkdir(parents=True)
    for number in (0, 1):
        shard = splits["train"].shard(2, number, contiguous=True)
        shard.to_parquet(folder / f"train-{number:05}-of-00002.parquet")
    splits["test"].to_parquet(folder / "test-00000-of-00001.parquet")
    rows, _ = read_source(tmp_path / "repo" / "train", ColumnNames())
    assert [(row.message, row.label) for row in rows] == list(
        zip(MESSAGES, ["refund", "payment", "refund"], strict=True)
    )
    with pytest.raises(BadInput, match="no split 'dev'; there are: test, train"):
        read_source(tmp_path / "repo" / "dev", ColumnNames())


def test_json_lines_are_read_by_split(tmp_path: Path, splits: Any) -> None:
    """They hold the classes' numbers, for --label-map to name."""
    for name, split in splits.items():
        split.to_json(tmp_path / f"{name}.jsonl")
    assert labels(read_source(tmp_path / "train", ColumnNames())[0]) == ["0", "1", "0"]
    (tmp_path / "train.jsonl").unlink()
    assert labels(read_source(tmp_path, ColumnNames())[0]) == ["1"]


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    """Other rows in one of them make another source."""
    digests = set()
    for name, codes in (("a", [0, 1, 0]), ("b", [0, 1, 0]), ("c", [0, 1, 1])):
        some(codes).save_to_disk(tmp_path / name, num_shards=2)
        digests.add(read_source(tmp_path / name, ColumnNames())[1].sha256)
    assert len(digests) == 2


def test_a_row_without_a_class_is_refused_by_its_number(tmp_path: Path) -> None:
    """The library writes -1 for it, which is no label; its text is not told."""
    some([0, -1, 0]).save_to_disk(tmp_path / "saved")
    with pytest.raises(BadInput, match=r"row 2: 'label' has no name") as error:
        read_source(tmp_path / "saved", ColumnNames())
    assert MESSAGES[1] not in str(error.value)


def test_a_name_on_the_hub_is_not_fetched(tmp_path: Path) -> None:
    """One line says how to have it here."""
    for name in ("someone/support-messages", "support-messages"):
        with pytest.raises(BadInput, match=r"not fetched: .*save_to_disk\('saved'\)"):
            read_source(Path(name), ColumnNames())


def test_what_is_no_saved_dataset_is_refused(tmp_path: Path) -> None:
    """A folder of something else, one that leads elsewhere, one cut short, one that prepare
    made."""
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInput, match=r"photos: is a folder without state\.json"):
        read_source(tmp_path / "photos", ColumnNames())
    saved = tmp_path / "saved"
    some([0, 1, 0]).save_to_disk(saved)
    (shard,) = saved.glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"saved/data-00000-of-00001\.arrow: not a whole"):
        read_source(saved, ColumnNames())
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": "../secret.arrow"}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(BadInput, match="which is not in the folder"):
        read_source(saved, ColumnNames())
    (saved / "dataset.json").write_text("{}")
    for path in (saved, saved / "holdout"):
        with pytest.raises(BadInput, match="a dataset that prepare made"):
            read_source(path, ColumnNames())
