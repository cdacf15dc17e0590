"""What ``prepare`` was given is recorded, and makes the same dataset again."""

from __future__ import annotations

from dataclasses import MISSING, fields
from pathlib import Path

from tests.support.trainer_world import parse
from tests.unit.trainer.dataset.conftest import Record, Run, WriteCsv
from trainer.dataset.folder import open_dataset
from trainer.dataset.settings import (
    ColumnNames,
    ConflictPolicy,
    OnBad,
    PrepareSettings,
    SplitBy,
    settings_of,
)


def test_what_was_given_can_be_given_again() -> None:
    """The words that a dataset records parse, by the command's own parser, to the same settings:
    each option once, with another value than its default."""
    columns = ColumnNames("body", "queue", "nr", "fine", "at", "thread", "language", "origin")
    changed = PrepareSettings(
        inputs=(Path("a b.csv"), Path("b.xlsx")),
        taxonomy=Path("shop/taxonomy.toml"),
        out=Path("data/1"),
        columns=columns,
        encoding="cp1252",
        sheet="May",
        label_map=Path("map.csv"),
        decisions=(Path("one.csv"), Path("two.csv")),
        holdout=Path("held.jsonl"),
        split=SplitBy.GROUP,
        strip_quotes=True,
        strip_signatures=True,
        redact=True,
        redact_names="en_core_web_sm",
        unusable=OnBad.DROP,
        conflicts=ConflictPolicy.KEEP_MAJORITY,
        validation_share=0.1,
        holdout_share=0.2,
        per_label=400,
        minimum_per_label=12,
        seed=7,
        earlier=(Path("data/0"),),
        label_source="teacher",
    )
    plain = PrepareSettings((Path("a.csv"),), Path("t.toml"), Path("out"))
    for field in fields(PrepareSettings):
        assert field.default is MISSING or getattr(changed, field.name) != field.default, field.name
    for settings in (changed, plain):
        words = [word for option in settings.options() for word in option]
        parsed = parse("prepare", *words, "--out", str(settings.out))
        parsed.pop("as_json")
        assert settings_of(parsed) == settings
    assert plain.options() == [["--input", "a.csv"], ["--taxonomy", "t.toml"]]


def test_a_dataset_records_what_was_given_beside_its_identity(
    run: Run, write_csv: WriteCsv, records: list[Record], tmp_path: Path
) -> None:
    """How files were read and where they lay is in the manifest; the same rows from a file in
    another encoding are the same dataset."""
    path = write_csv(records)
    assert run(path, out=tmp_path / "one").exit_code == 0
    assert run(path, "--encoding", "ascii", out=tmp_path / "two").exit_code == 0
    one, two = open_dataset(tmp_path / "one"), open_dataset(tmp_path / "two")
    assert ["--encoding", "ascii"] in two.record["options"]
    assert ["--input", str(path)] in one.record["options"]
    assert one.digest == two.digest
