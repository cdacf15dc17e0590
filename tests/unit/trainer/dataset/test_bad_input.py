"""Bad input: one line that says where and how to fix it, exit 2, and nothing half-written (the
fixture ``refused`` asserts these for every case)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.unit.trainer.dataset.conftest import Prepare, Record, Refused, WriteCsv

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


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (lambda rows: [(*row[:2], "refund") for row in rows], "", "only the label 'refund'"),
        (_few, "", "'payment' has 3; at least 10 a label"),
        (_alike, "", "label 'refund' has no validation example"),
        (_columns, "--holdout-share 0.6 --validation-share 0.5", "nothing to train on"),
        (_columns, "--holdout-share 1.5", "between 0 and 1"),
        (_columns, "--split time", "--split time needs --time-column"),
        (_columns, "--time-column label", "--time-column has no effect with --split random"),
        (_columns, "--split group --group-column all", "the largest has 120 messages"),
        (_columns, "--split time --time-column day", "the rows have 1 different times"),
        (_columns, "--language-column number", "120 rows whose 'number' is not a language"),
    ],
)
def test_bad_input_is_refused(
    refused: Refused, write_csv: WriteCsv, records: list[Record],
    rows: Rows, options: str, said: str,
) -> None:  # fmt: skip
    made = rows(records)
    assert said in refused(write_csv(made, header=COLUMNS[: len(made[0])]), *options.split())


def test_a_truncated_parquet_file(refused: Refused, records: list[Record], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "export.parquet"
    ids, messages, labels = zip(*records, strict=True)
    parquet.write_table(pa.table({"id": ids, "message": messages, "label": labels}), path)
    whole = path.read_bytes()
    # The last: its end is there, and a page in the middle is not.
    for damaged in (whole[:-10], whole[:3], whole[:40] + b"\0" * 200 + whole[240:]):
        path.write_bytes(damaged)
        assert "export.parquet: not a complete Parquet file" in refused(path)


def test_an_out_that_exists(
    refused: Refused, write_csv: WriteCsv, records: list[Record], tmp_path: Path
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


def test_rows_that_cannot_be_used_are_left_out_on_request_and_counted(
    prepare: Prepare, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    path = write_csv(records)
    with path.open("a", encoding="utf-8") as file:
        file.write("x,Hello, where is my parcel?,order_tracking\n")
        file.write('x,"never closed,refund\n')
        file.write("y,A label that nobody knows,refnd\n")
    counts = prepare(path, "--broken-rows", "drop", "--unknown-label", "drop").counts
    assert (counts["rows_read"], counts["broken_dropped"]) == (len(records) + 3, 2)
    assert counts["unlabelled"] == {"drop": 1}
    path = tmp_path / "chats.jsonl"
    chats = [
        [{"role": "user", "content": text}, {"role": "assistant", "content": label, "weight": at}]
        for at, (_, text, label) in enumerate(records)
    ]
    path.write_text("\n".join(json.dumps({"messages": chat}) for chat in chats), encoding="utf-8")
    made = prepare(path)
    assert (made.counts["rows_read"], made.counts["broken_dropped"]) == (len(records), 1)
    note = "chats.jsonl: 1 row whose answers all have weight 0 (line 1): left out"
    assert note in made.record["notes"]


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
