"""Files as people have them: read at once, or refused with all that is wrong with them, as
docs/messy-files.md says."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from typer.testing import CliRunner, Result

from tests.nasty_files import write_file, write_taxonomy
from tests.support.imports import ROOT
from trainer.cli import start_command
from trainer.cli.main import app
from trainer.start import verdict

FIXES = {
    "open_quote.csv": ("--broken-rows", "drop"),
    "ragged.csv": ("--broken-rows", "drop"),
    "doubled_header.csv": ("--label-column", "Kategorie"),
    "unnamed.csv": ("--label-column", "C"),
    "unknown.csv": ("--unknown-label", "review"),
    "plurals.csv": ("--unknown-label", "drop"),
    "broken.jsonl": ("--broken-rows", "drop"),
    "two_tables.xlsx": ("--sheet", "Juni"),
    "formulas.xlsx": ("--broken-rows", "drop"),
    "nulls.parquet": ("--unknown-label", "drop"),
}
"""What the page asks for, after which the file is read."""


class Entry(NamedTuple):
    """A row of the page: the file, what is said of it, and whether it is refused."""

    name: str
    said: list[str]
    refused: bool


def _entries() -> list[Entry]:
    page = (ROOT / "docs" / "messy-files.md").read_text(encoding="utf-8")
    return [
        Entry(name, said.replace("\\|", "|").split("<br>") if said.strip() else [], bool(refused))
        for refused, part in enumerate(page.split("\n## Refused"))
        for name, said in re.findall(r"^\| `(\S+)` \| .*? \| (.*?) ?\|$", part, re.MULTILINE)
    ]


ENTRIES = _entries()


def run_cli(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400"})


each_file = pytest.mark.parametrize("entry", ENTRIES, ids=[entry.name for entry in ENTRIES])


@each_file
def test_one_pass_reads_a_file_or_lists_all_that_is_wrong(tmp_path: Path, entry: Entry) -> None:
    """No traceback; and what the list asks for is enough to read the file."""
    path, out = tmp_path / entry.name, tmp_path / "out"
    write_file(path)
    words = ["prepare", "--input", path, "--taxonomy", write_taxonomy(tmp_path), "--out", out]
    done = run_cli(*words)
    output = done.stdout + done.stderr
    assert done.exit_code == (2 if entry.refused else 0), output
    read = [each for each in entry.said if each.startswith("(")]
    listed = [each for each in entry.said if each not in read]
    for part in listed:
        assert part in output
    if entry.refused:
        assert output.count("\n  - ") == (len(listed) if len(listed) > 1 else 0)
        assert not out.exists()
    else:
        how = read[0] if read else "(CSV, utf-8, separated by commas)"
        assert f" of {entry.name} {how}" in output
        assert len(re.findall(r"^  \S", output, re.MULTILINE)) == len(listed)
    if fix := FIXES.get(entry.name):
        assert fix[0] in output
        assert run_cli(*words, *fix).exit_code == 0


@pytest.mark.slow
@each_file
def test_start_reads_what_prepare_reads(
    tmp_path: Path, entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``prepare`` is its one step that is run."""
    run_command = start_command.run_command

    def run(arguments: Sequence[str], log: Path) -> tuple[int, str]:
        return run_command(arguments, log) if arguments[0] == "prepare" else (0, "")

    def start(*options: str) -> tuple[int, str]:
        done = run_cli("start", tmp_path / entry.name, "--out", tmp_path / "out", *options)
        return done.exit_code, done.stderr

    monkeypatch.setattr(start_command, "run_command", run)
    monkeypatch.setattr(verdict, "describe_step", lambda *_, **__: "")
    monkeypatch.setattr(verdict, "verdict", lambda _: verdict.End(("", "", ""), passes=True))
    write_file(tmp_path / entry.name)
    code, said = start()
    # start makes the taxonomy from the file, and leaves rows without a label out.
    if not entry.refused or entry.name in {"unknown.csv", "plurals.csv", "nulls.parquet"}:
        assert code == 0, said
        return
    assert code == 2
    if fix := FIXES.get(entry.name):
        assert fix[0] in said
        assert start(*fix)[0] == 0
