"""Exports of three kinds, as tools write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.findings import Findings
from trainer.dataset.folder import Row, complete_ids
from trainer.dataset.labels import map_labels, read_label_map
from trainer.dataset.readers import Source, choose_columns, read_source
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput
from worker.common.tables import read_table

TEXT = 'Hello, "you";\tthere|\nsecond line, naïve'


def read(
    path: Path, data: bytes, columns: ColumnNames | None = None, **options: Any
) -> tuple[list[Row], Source]:
    path.write_bytes(data)
    return read_source(path, columns or ColumnNames(), Findings(), **options)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_delimiter_is_found_in_the_header(tmp_path: Path, delimiter: str, end: str) -> None:
    quoted = '"' + TEXT.replace('"', '""') + '"'
    lines = [["id", "message", "label"], ["1", quoted, "a"], ["2", "Short", " b "]]
    data = "".join(delimiter.join(cells) + end for cells in lines).encode()
    rows, source = read(tmp_path / "x.csv", data)
    assert rows == [
        Row("1", TEXT, "a", None, "x.csv:2"),
        Row("2", "Short", "b", None, "x.csv:4"),
    ]
    assert source.rows == 2
    assert source.columns.guessed == ()


def test_a_byte_order_mark_and_other_encodings_are_read(tmp_path: Path) -> None:
    text = "message,label\r\nnaïve,a\r\n"
    for encoding, option in (("utf-8-sig", "utf-8"), ("cp1252", "cp1252"), ("utf-16", "utf-16")):
        for given in (option, None):
            rows, _ = read(tmp_path / "x.csv", text.encode(encoding), encoding=given)
            assert rows[0].message == "naïve"
    with pytest.raises(BadInput, match="no such encoding"):
        read(tmp_path / "x.csv", b"message,label\na,b\n", encoding="klingon")


def test_json_lines_are_read_with_their_own_line_separators(tmp_path: Path) -> None:
    """A raw U+2028 inside a string is not a line end; numbers as labels and ids become text."""
    lines = [
        '{"id": 7, "message": "a\u2028b", "label": 3, "sublabel": null}',
        "",
        '{"message": "c", "label": "x", "sublabel": "y"}',
    ]
    rows, _ = read(tmp_path / "x.jsonl", "\n".join(lines).encode())
    assert rows == [
        Row("7", "a\u2028b", "3", None, "x.jsonl:1"),
        Row("", "c", "x", "y", "x.jsonl:3"),
    ]


def test_instruction_and_response_are_taken_for_message_and_label(tmp_path: Path) -> None:
    line = json.dumps({"instruction": "Hello", "response": "a", "id": "1"}).encode()
    rows, source = read(tmp_path / "x.jsonl", line)
    assert rows == [Row("1", "Hello", "a", None, "x.jsonl:1")]
    assert source.columns.guessed == ("message", "label")


def test_parquet_is_read_with_dictionary_columns_and_nulls(tmp_path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.table(
        {
            "text": ["Hello", None],
            "category": pa.array(["a", "b"]).dictionary_encode(),
            "unused": [b"1", b"2"],
        }
    )
    parquet.write_table(table, tmp_path / "x.parquet")
    rows, source = read_source(tmp_path / "x.parquet", ColumnNames(), Findings())
    assert rows == [
        Row("", "Hello", "a", None, "x.parquet row 1"),
        Row("", "", "b", None, "x.parquet row 2"),
    ]
    assert source.columns.guessed == ("message", "label")


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
        (ColumnNames(), ("message", "ticket"), "clerk-desk label x.csv --taxonomy FILE"),
        (ColumnNames(message="a", label="a"), ("a", "label"), "'a' is named for two fields"),
        (ColumnNames(), ("message", "label", "label"), "the column 'label' or 'label "),
    ):
        with pytest.raises(BadInput, match=said):
            choose(columns, *names)


def test_ids_are_made_from_the_text_whatever_the_order(tmp_path: Path) -> None:
    some = [Row("", text, label, None, "") for text, label in (("m", "b"), ("n", "a"), ("m", "a"))]
    ids = {(row.message, row.label): row.id for row in complete_ids(some)}
    again = {(row.message, row.label): row.id for row in complete_ids(some[::-1])}
    assert ids == again
    assert ids["m", "b"] == ids["m", "a"] + "-2"
    assert len(set(ids.values())) == 3


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("map.toml", '"Re-fund" = "refund"\n"PAY" = "payment"\n'),
        ("map.json", '{"Re-fund": "refund", "PAY": "payment"}'),
        ("map.csv", "Re-fund,refund\nPAY,payment\n"),
    ],
)
def test_raw_labels_are_translated(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    table = read_label_map(tmp_path / name, ["refund", "payment"])
    some = [Row("", "m", label, None, "") for label in ("PAY", "Re-fund", "refund", "other")]
    assert [row.label for row in map_labels(some, table)] == [
        "payment",
        "refund",
        "refund",
        "other",
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("map.toml", '"a" = "refundd"', "'a' maps to the unknown label 'refundd'; did you mean"),
        ("map.json", '["a"]', "a label map is lines of"),
        ("map.csv", "a,b,c", "3 columns where two are needed"),
        ("map.toml", "a = ", "cannot read the label map"),
        ("map.txt", "a b", "a label map is a .toml, .json or .csv file"),
    ],
)
def test_a_label_map_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match=r"map\.") as error:
        read_label_map(tmp_path / name, ["refund"])
    assert said in str(error.value)


@pytest.mark.parametrize("gap", [{}, {"message": "c", "label": "x"}], ids=["first", "second"])
def test_a_field_that_an_object_lacks_is_lost_for_it_alone(
    tmp_path: Path, gap: dict[str, str]
) -> None:
    whole = {"id": "t7", "message": "a", "label": "x", "sublabel": "y", "lang": "de"}
    short = {"message": "b", "label": "x"}
    objects = [short, *([gap] if gap else []), whole]
    data = "".join(json.dumps(each) + "\n" for each in objects).encode()
    rows, source = read(tmp_path / "x.jsonl", data, ColumnNames(language="lang"))
    assert (rows[-1].id, rows[-1].sublabel, rows[-1].language) == ("t7", "y", "de")
    assert (rows[0].id, rows[0].sublabel, rows[0].language) == ("", None, "unknown")
    assert (source.columns.of["id"], source.columns.of["sublabel"]) == ("id", "sublabel")


def test_a_guess_gives_way_to_the_usual_name_wherever_it_stands(tmp_path: Path) -> None:
    """Otherwise half of the labels would be read from another column than the rest."""
    lines = [{"message": "a", "category": "x"}, {"message": "b", "category": "y", "label": "z"}]
    data = "".join(json.dumps(each) + "\n" for each in lines).encode()
    rows, _ = read(tmp_path / "x.jsonl", data)
    assert [row.label for row in rows] == ["", "z"]


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
    some([0, 1, 0]).save_to_disk(tmp_path / "saved", num_shards=2)
    rows, source = read_source(tmp_path / "saved", ColumnNames(), Findings())
    assert [row.message for row in rows] == MESSAGES
    assert labels(rows) == ["refund", "payment", "refund"]
    assert rows[2].where == "saved/data-00001-of-00002.arrow row 1"
    assert (source.name, source.rows) == ("saved", 3)
    assert source.columns.guessed == ("message",)


def test_of_several_splits_one_is_named(tmp_path: Path, splits: Any) -> None:
    splits.save_to_disk(tmp_path / "saved")
    with pytest.raises(BadInput, match=r"several splits \(test, train\): name one, .*saved/"):
        read_source(tmp_path / "saved", ColumnNames(), Findings())
    assert labels(read_source(tmp_path / "saved" / "test", ColumnNames(), Findings())[0]) == [
        "payment"
    ]
    assert len(read_source(tmp_path / "saved" / "train", ColumnNames(), Findings())[0]) == 3


@pytest.mark.parametrize("below", ["", "data"])
def test_a_repositorys_parquet_files_are_read_by_split(
    tmp_path: Path, splits: Any, below: str
) -> None:
    folder = tmp_path / "repo" / below
    folder.mkdir(parents=True)
    for number in (0, 1):
        shard = splits["train"].shard(2, number, contiguous=True)
        shard.to_parquet(folder / f"train-{number:05}-of-00002.parquet")
    splits["test"].to_parquet(folder / "test-00000-of-00001.parquet")
    rows, _ = read_source(tmp_path / "repo" / "train", ColumnNames(), Findings())
    assert [(row.message, row.label) for row in rows] == list(
        zip(MESSAGES, ["refund", "payment", "refund"], strict=True)
    )
    with pytest.raises(BadInput, match="no split 'dev'; there are: test, train"):
        read_source(tmp_path / "repo" / "dev", ColumnNames(), Findings())


def test_json_lines_are_read_by_split(tmp_path: Path, splits: Any) -> None:
    for name, split in splits.items():
        split.to_json(tmp_path / f"{name}.jsonl")
    assert labels(read_source(tmp_path / "train", ColumnNames(), Findings())[0]) == ["0", "1", "0"]
    (tmp_path / "train.jsonl").unlink()
    assert labels(read_source(tmp_path, ColumnNames(), Findings())[0]) == ["1"]


def test_the_digest_is_of_all_files(tmp_path: Path) -> None:
    digests = set()
    for name, codes in (("a", [0, 1, 0]), ("b", [0, 1, 0]), ("c", [0, 1, 1])):
        some(codes).save_to_disk(tmp_path / name, num_shards=2)
        digests.add(read_source(tmp_path / name, ColumnNames(), Findings())[1].sha256)
    assert len(digests) == 2


def test_a_row_without_a_class_has_no_label(tmp_path: Path) -> None:
    some([0, -1, 0]).save_to_disk(tmp_path / "saved")
    findings = Findings()
    rows, _ = read_source(tmp_path / "saved", ColumnNames(), findings)
    assert labels(rows) == ["refund", "", "refund"]
    assert "1 row without a class (-1): read as an empty cell (row 2)" in findings.notes[0]


def test_a_name_on_the_hub_is_not_fetched(tmp_path: Path) -> None:
    for name in ("someone/support-messages", "support-messages"):
        with pytest.raises(BadInput, match=r"not downloaded: .*save_to_disk\('saved'\)"):
            read_source(Path(name), ColumnNames(), Findings())


def test_what_is_no_saved_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(BadInput, match=r"photos: this folder has neither state\.json"):
        read_source(tmp_path / "photos", ColumnNames(), Findings())
    saved = tmp_path / "saved"
    some([0, 1, 0]).save_to_disk(saved)
    (shard,) = saved.glob("*.arrow")
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(BadInput, match=r"saved/data-00000-of-00001\.arrow: not a complete"):
        read_source(saved, ColumnNames(), Findings())
    state = json.loads((saved / "state.json").read_text())
    state["_data_files"] = [{"filename": "../secret.arrow"}]
    (saved / "state.json").write_text(json.dumps(state))
    with pytest.raises(BadInput, match="which is not in the folder"):
        read_source(saved, ColumnNames(), Findings())
    (saved / "dataset.json").write_text("{}")
    for path in (saved, saved / "holdout"):
        with pytest.raises(BadInput, match="a dataset made by prepare"):
            read_source(path, ColumnNames(), Findings())
