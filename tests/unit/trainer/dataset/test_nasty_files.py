"""Files as people have them: read at once, or refused with all that is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nasty_files import NASTY, Nasty, page_row, prepare, write_taxonomy
from tests.support.imports import ROOT

PAGE = ROOT / "docs" / "messy-files.md"


@pytest.mark.parametrize("each", NASTY, ids=[each.name for each in NASTY])
def test_one_pass_reads_a_file_or_lists_all_that_is_wrong(tmp_path: Path, each: Nasty) -> None:
    """No traceback; and what the list asks for is enough to read the file."""
    path = tmp_path / each.name
    each.make(path)
    taxonomy = write_taxonomy(tmp_path)
    code, output = prepare(path, taxonomy, tmp_path / "out")
    assert code == (2 if each.refused else 0), output
    for part in each.said:
        assert part in output
    assert page_row(each, code, output) in PAGE.read_text(encoding="utf-8")
    assert (tmp_path / "out").exists() is not each.refused
    if each.fix is not None:
        assert any(flag in output for flag in each.fix if flag.startswith("--"))
        code, output = prepare(path, taxonomy, tmp_path / "out", *each.fix)
        assert code == 0, output
