"""Files of messages are read strictly, and errors name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.evaluation.engines import read_messages


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_messages_come_from_json_lines_and_from_csv(tmp_path: Path) -> None:
    lines = write(tmp_path / "a.jsonl", '{"message": "one"}\n\n{"id": "x", "message": "two"}\n')
    assert read_messages(lines) == {"a.jsonl:1": "one", "x": "two"}
    table = write(tmp_path / "b.csv", 'id,message\n7,"one,\ntwo"\n')
    assert read_messages(table) == {"7": "one,\ntwo"}


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.jsonl", '{"message": ""}\n', "line 1 has no text"),
        ("a.jsonl", '{"id": 1, "message": "a"}\n{"id": 1, "message": "b"}\n', "line 2 has the id"),
        ("a.jsonl", "[1]\n", "a line is not a JSON object"),
        ("a.jsonl", "", "holds no message"),
        ("a.txt", "hello\n", "must be a .jsonl or a .csv"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        read_messages(write(tmp_path / name, text))
