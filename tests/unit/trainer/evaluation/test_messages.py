"""Files of messages and of recorded answers are read strictly, and errors name the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import BadInput
from trainer.evaluation.messages import read_messages
from trainer.evaluation.recorded import read_recorded


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
        ("a.jsonl", "[1]\n", "no JSON object"),
        ("a.jsonl", "", "holds no message"),
        ("a.txt", "hello\n", "must be a .jsonl or a .csv"),
    ],
)
def test_a_bad_file_is_named_with_its_line(
    tmp_path: Path, name: str, text: str, problem: str
) -> None:
    with pytest.raises(BadInput, match=problem):
        read_messages(write(tmp_path / name, text))


def test_recorded_answers_add_up_their_seconds_and_cost(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label,seconds,cost\na,refund,0.5,0.01\nb,spam,1.5,0.03\n")
    found = read_recorded(f"hosted={path}")
    assert found.of(["b", "a"]) == ["spam", "refund"]
    assert (found.seconds, found.cost) == (2.0, pytest.approx(0.04))


def test_recorded_answers_without_costs_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label\na,refund\n")
    found = read_recorded(f"hosted={path}")
    assert (found.seconds, found.cost) == (None, None)


def test_a_missing_answer_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label\na,refund\n")
    found = read_recorded(f"hosted={path}")
    with pytest.raises(BadInput, match=r"no answer for 2 of 3 .* the first is 'b'"):
        found.of(["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,label\na,x\na,y\n", "line 3 has the id 'a' a second time"),
        ("id,answer\na,x\n", "no 'label'"),
        ("id,label,cost\na,x,cheap\n", "cost is no number"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "h.csv", text)
    with pytest.raises(BadInput, match=problem):
        read_recorded(f"hosted={path}")


def test_a_contender_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="NAME=FILE"):
        read_recorded("answers.csv")
