"""Record files are read exactly, or refused with the file's name and a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field

from trainer.artifacts.files import LinesFile, Record, RecordFile, check_target, fresh_folder
from trainer.errors import BadInput


class Toy(Record):
    schema_id: Literal["toy/1"] = Field("toy/1", alias="schema")
    share: float
    names: tuple[str, ...]


class Line(Record):
    id: str
    right: bool


TOY = RecordFile("toy.json", Toy, "clerk-trainer play")
LINES = LinesFile("lines.jsonl", Line, "clerk-trainer play")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    record = Toy(share=0.5, names=("a", "b"))
    TOY.write(tmp_path, record)
    assert json.loads((tmp_path / "toy.json").read_text("utf-8")) == record.to_json()
    assert list(record.to_json()) == ["schema", "share", "names"]
    assert TOY.read(tmp_path) == TOY.read_if_present(tmp_path) == record
    lines = (Line(id="1", right=True), Line(id="\u2028", right=False))
    LINES.write(tmp_path, lines)
    assert LINES.read(tmp_path) == LINES.read_if_present(tmp_path) == lines


def test_a_file_that_is_not_there_is_none_or_told_with_its_command(tmp_path: Path) -> None:
    assert TOY.read_if_present(tmp_path) is None
    assert LINES.read_if_present(tmp_path) is None
    for file in (TOY, LINES):
        with pytest.raises(
            BadInput, match=r"No such file or directory: make it with clerk-trainer play"
        ):
            file.read(tmp_path)


def test_keys_that_the_model_does_not_name_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text('{"schema":"toy/1","share":1,"names":[],"text":"words"}')
    assert TOY.read(tmp_path).to_json() == {"schema": "toy/1", "share": 1.0, "names": []}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "toy.json is not JSON"),
        ("[" * 100_000, "toy.json is not JSON"),
        ('{"schema": "toy/2", "share": 1, "names": []}', "its schema is 'toy/2', not 'toy/1'"),
        ('{"schema": "toy/1"}', "share: Field required; names: Field required: make it again"),
        ('{"schema": "toy/1", "share": true, "names": []}', "share: Input should be a valid"),
        ('{"schema": "toy/1", "share": 1, "names": [1,2,3,4,5]}', "names.2: .*; and 2 more"),
    ],
)
def test_a_broken_record_is_refused_in_one_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "toy.json").write_text(text)
    with pytest.raises(BadInput, match=problem) as caught:
        TOY.read(tmp_path)
    assert "\n" not in str(caught.value)
    assert "clerk-trainer play" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"id": "a", "right": true}\n\n{"id": "b", "ri', "lines.jsonl:3 is not JSON"),
        ('{"id": 1, "right": true}\n', "lines.jsonl:1: id: Input should be a valid string"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "lines.jsonl").write_text(text)
    with pytest.raises(BadInput, match=problem):
        LINES.read(tmp_path)


def test_half_a_character_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "toy.json").write_text('{"schema":"toy/1","share":1,"names":["half \\ud83d"]}')
    assert TOY.read(tmp_path).names == ("half ?",)


def test_a_record_without_a_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        TOY.write(tmp_path, Toy(share=float("nan"), names=()))
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "result"
    with fresh_folder(target) as draft:
        (draft / "toy.json").write_text("first")
        assert not target.exists()
    with pytest.raises(ZeroDivisionError), fresh_folder(target):
        1 / 0  # noqa: B018
    assert (target / "toy.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_only_an_earlier_result_is_replaced(tmp_path: Path) -> None:
    check_target(tmp_path / "new", "toy.json")
    check_target(tmp_path, "toy.json")
    (tmp_path / "toy.json").touch()
    check_target(tmp_path, "toy.json")
    with pytest.raises(BadInput, match=r"has other files and no other\.json"):
        check_target(tmp_path, "other.json")
    with pytest.raises(BadInput, match="exists and is not a directory"):
        check_target(tmp_path / "toy.json", "toy.json")
