"""The command's options and its settings are the same list."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path

from tests.unit.trainer.dataset.conftest import Record, Refused, Run, WriteCsv
from trainer.cli.prepare_command import prepare
from trainer.cli.prepare_options import make_settings
from trainer.dataset.columns import ColumnNames
from trainer.dataset.folder import open_dataset
from trainer.dataset.settings import PrepareSettings

OPTIONS = inspect.signature(prepare).parameters


def test_each_setting_has_an_option_and_each_option_a_setting() -> None:
    """None is forgotten where one is added."""
    columns = {f"{field.name}_column" for field in fields(ColumnNames)}
    settings = {field.name for field in fields(PrepareSettings)} - {"columns"}
    assert set(OPTIONS) - {"as_json"} == columns | settings


def test_the_options_defaults_are_the_settings() -> None:
    """Somebody who calls the code gets what the command gives."""
    given = {name: option.default for name, option in OPTIONS.items()}
    given |= {"inputs": [Path("a.csv")], "taxonomy": Path("t.toml"), "out": Path("out")}
    wanted = PrepareSettings((Path("a.csv"),), Path("t.toml"), Path("out"))
    assert make_settings(given) == wanted
    given |= {"delimiter": "tab", "time_column": "at", "seed": 7, "decisions": [Path("d.csv")]}
    changed = make_settings(given)
    assert (changed.delimiter, changed.columns.time, changed.seed) == ("\t", "at", 7)
    assert changed.decisions == (Path("d.csv"),)


def test_a_librarys_phrases_are_used_where_they_are_asked_for(
    run: Run, write_csv: WriteCsv, records: list[Record], refused: Refused, tmp_path: Path
) -> None:
    """A Danish signature is cut, and the dataset says by whose phrases; without stripping they
    would do nothing, which is refused."""
    rows = [(id_, f"{text}\n\nMed venlig hilsen\nJens", label) for id_, text, label in records]
    path = write_csv(rows)
    assert "has no part without" in refused(path, "--mail-phrases", "library")
    assert run(path, "--strip-signatures", "--mail-phrases", "library").exit_code == 0
    dataset = open_dataset(tmp_path / "out")
    assert not any("hilsen" in example.message for example in dataset.train)
    assert dataset.record["settings"]["mail_phrases"] == "library"
    assert dataset.record["mail_phrases"].startswith("mail-parser-reply 1.")
    assert "mail-parser-reply" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert run(path, "--strip-signatures", out=tmp_path / "own").exit_code == 0
    own = open_dataset(tmp_path / "own")
    assert all("hilsen" in example.message for example in own.train)
    assert "mail_phrases" not in own.record["settings"]
    assert "mail_phrases" not in own.record
