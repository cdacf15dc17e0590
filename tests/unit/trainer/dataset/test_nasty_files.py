"""Files as people have them: read at once, or refused with all that is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.nasty_files import NASTY, Nasty, page_row, prepare, write_taxonomy
from tests.support.imports import ROOT
from trainer.cli import start_command
from trainer.cli.main import app
from trainer.start import verdict

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


_LABELS_ARE_ITS_OWN = {"unknown.csv", "nulls.parquet"}
"""``start`` makes the taxonomy from the file, and leaves rows without a label out."""


@pytest.mark.slow
@pytest.mark.parametrize("each", NASTY, ids=[each.name for each in NASTY])
def test_start_reads_what_prepare_reads(
    tmp_path: Path, each: Nasty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says of the others what ``prepare`` says; ``prepare`` is its one step that is run."""
    run_command = start_command.run_command

    def run(arguments: Sequence[str], log: Path) -> tuple[int, str]:
        return run_command(arguments, log) if arguments[0] == "prepare" else (0, "")

    def start(out: Path, *options: str) -> tuple[int, str]:
        words = ["start", str(tmp_path / each.name), "--out", str(out), *options]
        done = CliRunner().invoke(app, words, env={"COLUMNS": "400"})
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stderr

    monkeypatch.setattr(start_command, "run_command", run)
    monkeypatch.setattr(verdict, "describe_step", lambda *_: "")
    monkeypatch.setattr(verdict, "verdict", lambda _: [])
    each.make(tmp_path / each.name)
    code, said = start(tmp_path / "out")
    if each.name in _LABELS_ARE_ITS_OWN or not each.refused:
        assert code == 0, said
        return
    assert code == 2
    assert said.startswith("clerk-trainer: ")
    if each.fix is not None:
        assert any(flag in said for flag in each.fix if flag.startswith("--"))
        code, said = start(tmp_path / "fixed", *each.fix)
        assert code == 0, said
