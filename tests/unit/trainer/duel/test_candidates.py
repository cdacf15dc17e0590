"""Recorded answers of other models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainer.duel.candidates import read_recorded
from trainer.errors import BadInput


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_recorded_answers_add_up_their_seconds_and_cost(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label,seconds,cost\na,refund,0.5,0.01\nb,spam,1.5,0.03\n")
    found = read_recorded(f"hosted={path}")
    assert found.answers_to(["b", "a"]) == ("spam", "refund")
    assert found.seconds == 2.0
    assert found.cost == pytest.approx(0.04)


def test_recorded_answers_without_costs_have_none(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label\na,refund\n")
    found = read_recorded(f"hosted={path}")
    assert (found.seconds, found.cost) == (None, None)


def test_the_output_of_a_batch_is_recorded_answers(tmp_path: Path) -> None:
    answers = {"a": "refund", "b": '{"label": "spam"}', "c": "I cannot say what it is"}
    lines = [
        {
            "custom_id": id_,
            "response": {"status_code": 200, "body": {"choices": [{"message": {"content": text}}]}},
            "error": None,
        }
        for id_, text in answers.items()
    ]
    lines.append({"custom_id": "d", "response": None, "error": {"code": "batch_expired"}})
    path = write(tmp_path / "batch.jsonl", "\n".join(map(json.dumps, lines)))
    found = read_recorded(f"old={path}")
    assert found.answers_to(["b", "a", "c"]) == ("spam", "refund", answers["c"])
    with pytest.raises(BadInput, match=r"no answer for 1 of 1 .* for example 'd'"):
        found.answers_to(["d"])


def test_a_missing_answer_is_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "h.csv", "id,label\na,refund\n")
    found = read_recorded(f"hosted={path}")
    with pytest.raises(BadInput, match=r"no answer for 2 of 3 .* for example 'b'"):
        found.answers_to(["a", "b", "c"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,label\na,x\na,y\n", "line 3 has the id 'a' a second time"),
        ("id,answer\na,x\n", "no column 'label'"),
        ("id,label,cost\na,x,cheap\n", "cost is not a number"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "h.csv", text)
    with pytest.raises(BadInput, match=problem):
        read_recorded(f"hosted={path}")


def test_a_candidate_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="NAME=FILE"):
        read_recorded("answers.csv")
