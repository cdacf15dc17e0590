"""Memory and time grow linearly with the rows of an export."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.prepare import measure, write_export, write_taxonomy

FEW, MANY = 3_000, 12_000
KB_A_ROW = 4


@pytest.mark.long
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
