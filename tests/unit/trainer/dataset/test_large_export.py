"""Memory and time grow linearly with the rows of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.prepare import measure, write_export, write_taxonomy
from trainer.dataset.text_files import open_csv
from trainer.errors import BadInput

FEW, MANY = 3_000, 12_000
KB_A_ROW = 4


@pytest.mark.slow
def test_a_row_more_takes_kilobytes_and_no_more_time_than_one_before(tmp_path: Path) -> None:
    """9,000 more rows take under 4 KB and a millisecond of CPU time each."""
    taxonomy = tmp_path / "taxonomy.toml"
    write_taxonomy(taxonomy)
    found = []
    for rows in (FEW, MANY):
        export = tmp_path / f"{rows}.csv"
        write_export(export, rows)
        found.append(measure(export, taxonomy, tmp_path / f"out-{rows}"))
    few, many = found
    assert (many["mb"] - few["mb"]) * 1024 / (MANY - FEW) < KB_A_ROW
    assert (many["cpu"] - few["cpu"]) / (MANY - FEW) < 1e-3


def test_a_file_is_read_row_by_row(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_bytes(b"message,label\n" + b"hello,a\n" * 200_000 + b"\xff,b\n")
    line, header, records = open_csv(path, "utf-8", columns=("message",))
    assert (line, header, next(records)) == (1, ["message", "label"], (2, ["hello", "a"]))
    with pytest.raises(BadInput, match=r"export\.csv:200002: byte 1600014 \(0xff\) is not utf-8"):
        list(records)
