"""Exports of each kind, as tools write them."""

from __future__ import annotations

import datetime as dt
import json
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.findings import Findings
from trainer.dataset.folder import Row
from trainer.dataset.labels import map_labels, read_label_map
from trainer.dataset.readers import Source, choose_columns, read_source
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput
from worker.common.tables import read_table

USUAL = ColumnNames()


def read(path: Path, columns: ColumnNames = USUAL) -> tuple[list[Row], Source]:
    return read_source(path, columns, Findings())


def write_lines(path: Path, *objects: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(each) + "\n" for each in objects), encoding="utf-8")
    return path


def test_a_row_has_its_cells_and_its_place(tmp_path: Path) -> None:
    """A raw U+2028 inside a string is not a line end; numbers as labels and ids become text."""
    path = tmp_path / "x.csv"
    path.write_text('id;message;label\n1;"Hello, ""you"";\nthere";a\n2;Short; b \n')
    assert read(path)[0] == [
        Row("1", 'Hello, "you";\nthere', "a", None, "x.csv:2"),
        Row("2", "Short", "b", None, "x.csv:4"),
    ]
    path = tmp_path / "x.jsonl"
    path.write_text(
        '{"id": 7, "message": "a\u2028b", "label": 3, "sublabel": null}\n\n'
        '{"message": "c", "label": "x", "sublabel": "y"}',
        encoding="utf-8",
    )
    assert read(path)[0] == [
        Row("7", "a\u2028b", "3", None, "x.jsonl:1"),
        Row("", "c", "x", "y", "x.jsonl:3"),
    ]


def test_parquet_is_read_with_dictionaries_nulls_and_times_to_the_microsecond(
    tmp_path: Path,
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "text": ["Hello", None],
            "category": pa.array(["a", "b"]).dictionary_encode(),
            "at": pa.array([1714979289_123456789] * 2, type=pa.timestamp("ns", tz="UTC")),
            "unused": [b"1", b"2"],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    rows, source = read(tmp_path / "x.parquet", ColumnNames(time="at"))
    at = dt.datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=dt.UTC)
    assert rows == [
        Row("", "Hello", "a", None, "x.parquet row 1", time=at),
        Row("", "", "b", None, "x.parquet row 2", time=at),
    ]
    assert source.columns.guessed == ("message", "label")


def write_workbook(path: Path, *rows: list[Any]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "Tickets"
    for row in rows:
        book.active.append(row)
    book.save(path)
    return path


def edit_sheet(path: Path, *changes: tuple[str, str]) -> None:
    """Change the first sheet's XML, as other programs write it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    sheet = parts[name].decode()
    for old, new in changes:
        sheet, count = re.subn(old, new, sheet)
        assert count
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in (parts | {name: sheet.encode()}).items():
            archive.writestr(part, data)


def test_cells_of_every_kind_are_text(tmp_path: Path) -> None:
    """Spreadsheets write a carriage return as _x000D_."""
    path = write_workbook(
        tmp_path / "x.xlsx",
        [],
        [" id ", "message", None, "label", "sublabel"],
        [7.0, "one_x000D_\ntwo", "no column", "a", True],
        [],
        [1.5, dt.datetime(2026, 11, 26), None, dt.datetime(2026, 11, 26, 9, 30), None],
        ["x", 1234567890123],
    )
    where = "x.xlsx sheet 'Tickets' row"
    assert read(path)[0] == [
        Row("7", "one\r\ntwo", "a", "TRUE", f"{where} 3"),
        Row("1.5", "2026-11-26", "2026-11-26T09:30:00", None, f"{where} 5"),
        Row("x", "1234567890123", "", None, f"{where} 6"),
    ]


def test_a_formula_is_its_saved_value_and_a_size_that_is_wrong_hides_no_row(
    tmp_path: Path,
) -> None:
    """Some exporters write A1 as the size of every sheet."""
    path = write_workbook(tmp_path / "x.xlsx", ["message", "label"], ['=CONCAT("Hel","lo")', "a"])
    edit_sheet(
        path,
        ('<dimension ref="A1:B2"', '<dimension ref="A1"'),
        ('<c r="A2"><f>(.*?)</f><v ?(/>|></v>)', r'<c r="A2" t="str"><f>\1</f><v>Hello</v>'),
    )
    assert [row.message for row in read(path)[0]] == ["Hello"]


def test_named_columns_are_never_guessed() -> None:
    def choose(columns: ColumnNames, *names: str) -> dict[str, str]:
        rows = [",".join(f"{name}{n}" for name in names) for n in range(3)]
        data = "\n".join([",".join(names), *rows]).encode()
        return dict(choose_columns(columns, read_table(data, "x.csv")).of)

    assert choose(ColumnNames(label="b"), "message", "b")["label"] == "b"
    for columns, names, said in (
        (ColumnNames(message="subject"), ("text", "label"), "no column 'subject'"),
        (ColumnNames(id="key"), ("message", "label"), "--id-column"),
        (ColumnNames(label="message"), ("message", "label"), "no column looks like the message"),
        (ColumnNames(message="a", label="a"), ("a", "label"), "'a' is named for two fields"),
    ):
        with pytest.raises(BadInput, match=said):
            choose(columns, *names)


def test_raw_labels_are_translated(tmp_path: Path) -> None:
    for name, text in (
        ("map.toml", '"Re-fund" = "refund"'),
        ("map.json", '{"Re-fund": "refund"}'),
        ("map.csv", "Re-fund;refund;\n"),
    ):
        (tmp_path / name).write_text(text)
        table = read_label_map(tmp_path / name, ["refund", "payment"])
        some = [Row("", "m", label, None, "") for label in ("Re-fund", "REFUND", "refund", "other")]
        assert [row.label for row in map_labels(some, table)] == [*["refund"] * 3, "other"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("map.csv", "a;refunds\nb;refund\nc;pay\n", r"'refunds'; did you mean 'refund'.*'c' maps"),
        ("map.csv", "a,b,c", "3 columns where two are needed"),
        ("map.json", '["a"]', "a label map is lines of"),
        ("map.txt", "a b", r"a label map is a \.toml, \.json or \.csv file"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=rf"(?s)map\..*{said}"):
        read_label_map(tmp_path / name, ["refund"])


@pytest.mark.parametrize("gap", [{}, {"message": "c", "label": "x"}], ids=["first", "second"])
def test_a_field_that_an_object_lacks_is_lost_for_it_alone(
    tmp_path: Path, gap: dict[str, str]
) -> None:
    whole = {"id": "t7", "message": "a", "label": "x", "sublabel": "y", "lang": "de"}
    short = {"message": "b", "label": "x"}
    path = write_lines(tmp_path / "x.jsonl", short, *([gap] if gap else []), whole)
    rows, source = read(path, ColumnNames(language="lang"))
    assert (rows[-1].id, rows[-1].sublabel, rows[-1].language) == ("t7", "y", "de")
    assert (rows[0].id, rows[0].sublabel, rows[0].language) == ("", None, "unknown")
    assert (source.columns.of["id"], source.columns.of["sublabel"]) == ("id", "sublabel")


def test_a_guess_gives_way_to_the_usual_name_wherever_it_stands(tmp_path: Path) -> None:
    """Otherwise half of the labels would be read from another column than the rest."""
    lines = [{"message": "a", "category": "x"}, {"message": "b", "category": "y", "label": "z"}]
    rows, _ = read(write_lines(tmp_path / "x.jsonl", *lines))
    assert [row.label for row in rows] == ["", "z"]


datasets = pytest.importorskip("datasets", reason="datasets is not here: the extra bench")

MESSAGES = ["Money back", "Card refused", "Where is it"]


def some(codes: list[Any], messages: list[str] = MESSAGES) -> Any:
    names = ["refund", "payment"]
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=names)}
    columns = {"text": messages, "label": codes}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(features))


def test_a_split_saved_to_disk_is_read_in_its_order(tmp_path: Path) -> None:
    some([0, -1, 0]).save_to_disk(tmp_path / "saved", num_shards=2)
    findings = Findings()
    rows, source = read_source(tmp_path / "saved", USUAL, findings)
    assert [row.message for row in rows] == MESSAGES
    assert [row.label for row in rows] == ["refund", "", "refund"]
    assert rows[2].where == "saved/data-00001-of-00002.arrow row 1"
    assert (source.name, source.rows) == ("saved", 3)
    assert "1 row without a class (-1): read as an empty cell (row 2)" in findings.notes[0]


def test_of_several_splits_one_is_named(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=some([0, 1, 0]), test=some([1], ["Paid twice"]))
    splits.save_to_disk(tmp_path / "saved")
    with pytest.raises(BadInput, match=r"several splits \(test, train\): name one, .*saved/"):
        read(tmp_path / "saved")
    assert [row.label for row in read(tmp_path / "saved" / "test")[0]] == ["payment"]


def test_a_repositorys_parquet_files_are_read_by_split(tmp_path: Path) -> None:
    folder = tmp_path / "repo" / "data"
    folder.mkdir(parents=True)
    for number in (0, 1):
        shard = some([0, 1, 0]).shard(2, number, contiguous=True)
        shard.to_parquet(folder / f"train-{number:05}-of-00002.parquet")
    some([1], ["Paid twice"]).to_parquet(folder / "test-00000-of-00001.parquet")
    rows, _ = read(tmp_path / "repo" / "train")
    assert [row.message for row in rows] == MESSAGES
    with pytest.raises(BadInput, match="no split 'dev'; there are: test, train"):
        read(tmp_path / "repo" / "dev")


def test_what_is_no_saved_dataset_is_refused(tmp_path: Path) -> None:
    """A dataset of the hub is not fetched, and no file outside of the folder is read."""
    for name in ("someone/support-messages", "support-messages"):
        with pytest.raises(BadInput, match=r"not downloaded: .*save_to_disk\('saved'\)"):
            read(Path(name))
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInput, match=r"photos: this folder has neither state\.json"):
        read(tmp_path / "photos")
    saved = tmp_path / "saved"
    some([0, 1, 0]).save_to_disk(saved)
    (shard,) = saved.glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"saved/data-00000-of-00001\.arrow: not a complete"):
        read(saved)
    (saved / "state.json").write_text('{"_data_files": [{"filename": "../secret.arrow"}]}')
    with pytest.raises(BadInput, match="which is not in the folder"):
        read(saved)
    (saved / "dataset.json").write_text("{}")
    for path in (saved, saved / "holdout"):
        with pytest.raises(BadInput, match="a dataset made by prepare"):
            read(path)
