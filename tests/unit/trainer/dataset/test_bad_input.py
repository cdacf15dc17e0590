"""Bad input: one line that says where and how to mend it, exit 2, and nothing half-written (the
fixture ``refused`` asserts these for every case)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Record, Refused, Run, WriteCsv


def test_an_empty_file(refused: Refused, tmp_path: Path) -> None:
    """Of any format: the line names the file."""
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (tmp_path / name).write_bytes(b"\n")
        assert f"{name}: the file is empty" in refused(tmp_path / name)


def test_a_header_and_no_rows(refused: Refused, write_csv: WriteCsv) -> None:
    """An export that selected nothing."""
    assert "a header and no rows" in refused(write_csv([]))


def test_a_missing_column(refused: Refused, write_csv: WriteCsv, records: list[Record]) -> None:
    """The line lists the columns there are and names the nearest."""
    path = write_csv(records, header=("ticket", "body text", "label"))
    line = refused(path, "--message-column", "body_text")
    assert "no column 'body_text'; did you mean 'body text'?" in line
    assert "There are: ticket, body text, label" in line
    assert "--message-column" in line


def test_a_wrong_encoding(
    refused: Refused, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """The line and the byte are named, and --encoding as the way out."""
    data = write_csv(records).read_bytes()
    path = tmp_path / "latin.csv"
    path.write_bytes(data + "x,naïve,refund\r\n".encode("cp1252"))
    line = refused(path)
    assert f"latin.csv:{len(records) + 2}: byte {len(data) + 4} (0xef) is not utf-8" in line
    assert "--encoding" in line


def test_one_label_only(refused: Refused, write_csv: WriteCsv, records: list[Record]) -> None:
    """There is nothing to choose from."""
    rows = [(id_, message, "refund") for id_, message, _ in records]
    assert "only the label 'refund'" in refused(write_csv(rows))


def test_a_label_with_three_examples(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """The label and its count are named; copies do not count."""
    few = [record for record in records if record[2] != "payment"]
    few += [record for record in records if record[2] == "payment"][:3]
    few.append(("copy", few[-1][1], "payment"))
    assert "'payment' has 3; at least 10 a label" in refused(write_csv(few))


def test_a_two_megabyte_message(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """Row, id and size are named; --unusable drop is the way out."""
    rows = [*records, ("big", "x" * (2 << 20), "refund")]
    line = refused(write_csv(rows))
    assert f"export.csv:{len(rows) + 1}: the message of 'big' has 2097152 bytes" in line
    assert "--unusable drop" in line


def test_an_empty_message(refused: Refused, write_csv: WriteCsv, records: list[Record]) -> None:
    """Blanks and invisible characters alone are no message."""
    line = refused(write_csv([*records, ("none", "\u200b \t", "refund")]))
    assert "the message of 'none' is empty" in line
    assert "--unusable drop" in line


def test_duplicate_ids(refused: Refused, write_csv: WriteCsv, records: list[Record]) -> None:
    """Both rows are named."""
    line = refused(write_csv([*records, ("t000", "Another text altogether", "refund")]))
    assert f"2 rows have the id 't000': export.csv:2, export.csv:{len(records) + 2}" in line


def test_unknown_labels(refused: Refused, write_csv: WriteCsv, records: list[Record]) -> None:
    """Each unknown label is counted, with the taxonomy's nearest name."""
    rows = [*records, ("a", "One more", "Order Trackin"), ("b", "Two more", "zzz")]
    rows += [("c", "Three more", "zzz"), ("d", "Four more", "")]
    line = refused(write_csv(rows))
    assert "'Order Trackin' (1 rows; did you mean 'order_tracking'?)" in line
    assert "'zzz' (2 rows)" in line
    assert "no label (1 rows)" in line


def test_a_truncated_parquet_file(refused: Refused, records: list[Record], tmp_path: Path) -> None:
    """A file cut off in a copy, at its end or in the middle."""
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "export.parquet"
    ids, messages, labels = zip(*records, strict=True)
    parquet.write_table(pa.table({"id": ids, "message": messages, "label": labels}), path)
    whole = path.read_bytes()
    for keep in (len(whole) - 10, len(whole) // 2, 3):
        path.write_bytes(whole[:keep])
        assert "export.parquet: not a whole Parquet file" in refused(path)
    # The end is there and a page in the middle is not.
    path.write_bytes(whole[:40] + b"\0" * 200 + whole[240:])
    assert "export.parquet: not a whole Parquet file" in refused(path)


def test_an_out_that_exists(
    refused: Refused, run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """A dataset is never written over, nor is anything else; what was there stays."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    assert "exists and is not empty" in refused(write_csv(records))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").rename(tmp_path / "mine.txt")
    out.rmdir()
    out.write_text("a file", encoding="utf-8")
    assert "exists and is not a folder" in refused(write_csv(records))


def test_no_room_on_the_disk(
    write_csv: WriteCsv, records: list[Record], taxonomy: Path, tmp_path: Path
) -> None:
    """The kernel refuses to write more, as it does on a full disk: exit 2, one line, no folder
    and no temporary folder."""
    export = write_csv(records)
    before = sorted(tmp_path.iterdir())
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "import typer; from trainer.cli.prepare_command import register; app = typer.Typer(); "
        "app.callback()(lambda: None); register(app); app()"
    )
    paths = {"--input": export, "--taxonomy": taxonomy, "--out": tmp_path / "out"}
    arguments = ["prepare", *(str(part) for option in paths.items() for part in option)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", program, *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "nothing was written" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('["a"]', "must be a JSON object"),
        ('{"message": "a", "label"', "not valid JSON"),
        ('{"message": "a"}', "no 'label'"),
        ('{"message": 5, "label": "refund"}', "'message' must be text, not int"),
        ('{"message": "a", "label": 1.5}', "'label' must be text or a whole number"),
    ],
)
def test_a_json_line_that_is_no_example(
    refused: Refused, records: list[Record], tmp_path: Path, line: str, said: str
) -> None:
    """The line is named, and what is wrong with it."""
    path = tmp_path / "export.jsonl"
    good = [json.dumps({"message": message, "label": label}) for _, message, label in records]
    path.write_text("\n".join([*good, line]), encoding="utf-8")
    told = refused(path)
    assert f"export.jsonl:{len(records) + 1}: " in told
    assert said in told


def test_a_csv_row_with_too_many_fields(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """An unescaped delimiter or quote is found at its line, not guessed around."""
    path = write_csv(records)
    with path.open("a", encoding="utf-8") as file:
        file.write("x,Hello, where is my parcel?,order_tracking\n")
    assert f"export.csv:{len(records) + 2}: 4 fields where the header has 3" in refused(path)
    with write_csv(records).open("a", encoding="utf-8") as file:
        file.write('x,"never closed,refund\n')
    assert f"export.csv:{len(records) + 2}: not valid CSV" in refused(path)


def test_shares_that_leave_nothing(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """Said before anything slow is done."""
    path = write_csv(records)
    assert "nothing to train on" in refused(path, "--holdout-share", 0.6, "--validation-share", 0.5)
    assert "between 0 and 1" in refused(path, "--holdout-share", 1.5)


def test_a_label_whose_messages_are_all_alike(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """All in one cluster means all in one split: the label and the one without it are named."""
    alike = [
        (f"a{n}", f"Refund for order number {n}, please send it soon", "refund") for n in range(12)
    ]
    rows = [*(record for record in records if record[2] != "refund"), *alike]
    assert "label 'refund' has no validation example" in refused(write_csv(rows))


def test_a_hold_out_of_ones_own_without_a_label(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    """A label that is never judged is named."""
    held = write_csv([(f"h{n}", f"Number {n} of the refunds", "refund") for n in range(3)], "h.csv")
    line = refused(write_csv(records), "--holdout", held)
    assert "the hold-out file has no usable example of 'order_tracking', 'payment'" in line


def test_a_file_that_is_not_there_or_of_no_known_kind(refused: Refused, tmp_path: Path) -> None:
    """The name is told, and the kinds that can be read."""
    assert "cannot read it: No such file" in refused(tmp_path / "none.csv")
    assert ".parquet" in refused(tmp_path / "export.docx")
