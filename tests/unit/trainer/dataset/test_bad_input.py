"""Bad input: one line that says where and how to fix it, exit 2, and nothing half-written (the
fixture ``refused`` asserts these for every case)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Record, Refused, Run, WriteCsv

Rows = Callable[[list[Record]], Sequence[Sequence[str]]]
COLUMNS = ("id", "message", "label", "customer", "all", "day", "number")


def _columns(records: list[Record]) -> list[tuple[str, ...]]:
    return [(*record, f"c{n}", "all", "2024-05-06", f"{n}") for n, record in enumerate(records)]


def _few(records: list[Record]) -> list[Record]:
    """Three different messages of a label, and a copy, which does not count."""
    few = [record for record in records if record[2] == "payment"][:3]
    return [*(r for r in records if r[2] != "payment"), *few, ("copy", few[-1][1], "payment")]


def _alike(records: list[Record]) -> list[Record]:
    """All messages of a label in one cluster, and so in one part."""
    text = "Refund for order number {}, please send it soon"
    alike = [(f"a{n}", text.format(n), "refund") for n in range(12)]
    return [*(record for record in records if record[2] != "refund"), *alike]


def _unknown(records: list[Record]) -> list[Record]:
    odd = [("a", "One more", "Order Trackin"), ("b", "Two more", "zzz")]
    return [*records, *odd, ("c", "Three more", "zzz"), ("d", "Four more", "")]


def _plain(records: list[Record]) -> list[Record]:
    return records


REFUSED: dict[str, tuple[Rows, tuple[object, ...], tuple[str, ...]]] = {
    "no rows": (lambda _: [], (), ("a header and no rows",)),
    "a missing column": (
        _columns,
        ("--message-column", "custmer"),
        ("no column 'custmer'; did you mean 'customer'?", "There are: id, message, label, "),
    ),
    "one label": (
        lambda records: [(*record[:2], "refund") for record in records],
        (),
        ("only the label 'refund'",),
    ),
    "a small label": (_few, (), ("'payment' has 3; at least 10 a label",)),
    "a doubled id": (
        lambda records: [*records, ("t000", "Another text altogether", "refund")],
        (),
        ("2 rows have the id 't000' (export.csv:2, export.csv:122)",),
    ),
    "unknown labels": (
        _unknown,
        (),
        (
            "the unknown label 'Order Trackin' (export.csv:122); did you mean 'order_tracking'?",
            "2 rows with the unknown label 'zzz' (export.csv:123, export.csv:124)",
            "1 row with no label (export.csv:125)",
            "--unknown-label drop or review",
        ),
    ),
    "a label in one cluster": (_alike, (), ("label 'refund' has no validation example",)),
    "no training": (
        _plain,
        ("--holdout-share", 0.6, "--validation-share", 0.5),
        ("nothing to train on",),
    ),
    "a large share": (_plain, ("--holdout-share", 1.5), ("between 0 and 1",)),
    "no time": (_plain, ("--split", "time"), ("--split time needs --time-column",)),
    "no group": (_plain, ("--split", "group"), ("--split group needs --group-column",)),
    "an idle time": (
        _plain,
        ("--time-column", "label"),
        ("--time-column has no effect with --split random",),
    ),
    "an idle group": (
        _plain,
        ("--group-column", "label"),
        ("--group-column has no effect with --split random",),
    ),
    "another time": (_columns, ("--split", "time", "--time-column", "at"), ("no column 'at'",)),
    "no language": (
        _columns,
        ("--language-column", "lang"),
        ("Name one by --language-column",),
    ),
    "a time that is none": (
        _columns,
        ("--split", "time", "--time-column", "customer"),
        ("120 rows whose 'customer' is not a time (lines 2, 3, 4, 5, 6, ...)",),
    ),
    "one group": (
        _columns,
        ("--split", "group", "--group-column", "all"),
        ("the largest has 120 messages",),
    ),
    "one day": (
        _columns,
        ("--split", "time", "--time-column", "day"),
        ("the rows have 1 different times",),
    ),
    "a language that is none": (
        _columns,
        ("--language-column", "number"),
        ("120 rows whose 'number' is not a language",),
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused(
    refused: Refused, write_csv: WriteCsv, records: list[Record], case: str
) -> None:
    rows, options, parts = REFUSED[case]
    made = rows(records)
    line = refused(write_csv(made, header=COLUMNS[: len(made[0]) if made else 3]), *options)
    for part in parts:
        assert part in line


def test_an_empty_file(refused: Refused, tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.parquet"):
        (tmp_path / name).write_bytes(b"\n")
        assert f"{name}: the file is empty" in refused(tmp_path / name)


def test_a_wrong_encoding(
    refused: Refused, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    data = write_csv(records).read_bytes()
    path = tmp_path / "latin.csv"
    path.write_bytes(data + "x,naïve,refund\r\n".encode("cp1252"))
    line = refused(path, "--encoding", "utf-8")
    assert f"latin.csv:{len(records) + 2}: byte {len(data) + 4} (0xef) is not utf-8" in line
    assert "--encoding" in line


def test_a_truncated_parquet_file(refused: Refused, records: list[Record], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "export.parquet"
    ids, messages, labels = zip(*records, strict=True)
    parquet.write_table(pa.table({"id": ids, "message": messages, "label": labels}), path)
    whole = path.read_bytes()
    for keep in (len(whole) - 10, len(whole) // 2, 3):
        path.write_bytes(whole[:keep])
        assert "export.parquet: not a complete Parquet file" in refused(path)
    # The end is there and a page in the middle is not.
    path.write_bytes(whole[:40] + b"\0" * 200 + whole[240:])
    assert "export.parquet: not a complete Parquet file" in refused(path)


def test_an_out_that_exists(
    refused: Refused, run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine", encoding="utf-8")
    assert "exists and is not empty" in refused(write_csv(records))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]
    (out / "mine.txt").rename(tmp_path / "mine.txt")
    out.rmdir()
    out.write_text("a file", encoding="utf-8")
    assert "exists and is not a folder" in refused(write_csv(records))


@pytest.mark.slow
def test_no_room_on_the_disk(
    write_csv: WriteCsv, records: list[Record], taxonomy: Path, tmp_path: Path
) -> None:
    """The kernel refuses to write more (RLIMIT_FSIZE), as on a full disk."""
    export = write_csv(records)
    before = sorted(tmp_path.iterdir())
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000)); "
        "from trainer.cli.main import app; app()"
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


def test_json_lines_that_are_no_examples_are_counted_by_kind(
    refused: Refused, records: list[Record], tmp_path: Path
) -> None:
    path = tmp_path / "export.jsonl"
    good = [json.dumps({"message": message, "label": label}) for _, message, label in records]
    bad = ['["a"]', '{"message": "a", "label"', '{"message": ["a"], "label": "refund"}']
    path.write_text("\n".join([*good, *bad]), encoding="utf-8")
    first = len(records) + 1
    said = refused(path)
    assert f"2 rows not a JSON object (lines {first}, {first + 1})" in said
    assert f"where text belongs (line {first + 2})" in said


def test_broken_csv_rows_are_listed_together_or_left_out(
    refused: Refused, run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    path = write_csv(records)
    with path.open("a", encoding="utf-8") as file:
        file.write("x,Hello, where is my parcel?,order_tracking\n")
        file.write('x,"never closed,refund\n')
        file.write("y,A label that nobody knows,refnd\n")
    first = len(records) + 2
    said = refused(path)
    assert f"1 row with another number of cells than the header has (line {first})" in said
    assert f"1 row with a quote that is not closed or not doubled (line {first + 1})" in said
    assert f"the unknown label 'refnd' (export.csv:{first + 2}); did you mean 'refund'?" in said
    assert len(said.splitlines()) == 4
    result = run(path, "--broken-rows", "drop", "--unknown-label", "drop", "--json")
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)["counts"]
    assert (counts["rows_read"], counts["broken_dropped"]) == (len(records) + 3, 2)
    assert counts["unlabelled"] == {"drop": 1}


def test_rows_of_a_fine_tune_that_cannot_be_used_are_noted_and_counted(
    run: Run, records: list[Record], tmp_path: Path
) -> None:
    lines = [
        {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": label, "weight": int(at >= 2)},
            ]
        }
        for at, (_, text, label) in enumerate(records)
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    result = run(path, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    counts = found["counts"]
    assert (counts["rows_read"], counts["broken_dropped"]) == (len(records), 2)
    note = "chats.jsonl: 2 rows whose answers all have weight 0 (lines 1, 2): left out"
    assert note in found["notes"]


def test_a_fine_tune_of_which_nothing_can_be_used_says_why(
    refused: Refused, tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "a", "weight": 0}]
    path = tmp_path / "chats.jsonl"
    path.write_text(json.dumps({"messages": turns}), encoding="utf-8")
    said = refused(path)
    assert "1 row whose answers all have weight 0 (line 1): left out" in said


def test_a_hold_out_of_ones_own_without_a_label(
    refused: Refused, write_csv: WriteCsv, records: list[Record]
) -> None:
    held = write_csv([(f"h{n}", f"Number {n} of the refunds", "refund") for n in range(3)], "h.csv")
    line = refused(write_csv(records), "--holdout", held)
    assert "the hold-out file has no usable example of 'order_tracking', 'payment'" in line


def test_a_file_that_is_not_there_or_of_no_known_kind(refused: Refused, tmp_path: Path) -> None:
    assert "cannot read it: No such file" in refused(tmp_path / "none.csv")
    (tmp_path / "export.docx").write_bytes(b"text")
    assert ".parquet" in refused(tmp_path / "export.docx")
