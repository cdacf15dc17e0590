"""Recorded answers of other models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from trainer.duel.candidates import Candidate, from_recorded, read_recorded
from trainer.errors import BadInput


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


LABELS = ("refund", "spam")


def candidate_of(path: Path, ids: Sequence[str]) -> Candidate:
    return from_recorded(read_recorded(f"hosted={path}"), ids, LABELS)


def test_recorded_answers_are_summed_up_over_the_held_out_messages(tmp_path: Path) -> None:
    """And over no others that the file may have."""
    text = "id,label,seconds,cost,prompt_tokens,answer_tokens\na,refund,0.5,0.01,100,9\n"
    text += "b,spam,1.5,0.03,200,11\nc,spam,900,9,9,9\n"
    found = candidate_of(write(tmp_path / "h.csv", text), ["b", "a"])
    assert found.answers == ("spam", "refund")
    assert found.messages_per_s == pytest.approx(1.0)
    assert found.cost_per_message == pytest.approx(0.02)
    took = found.elsewhere
    assert took is not None
    assert took.seconds_p50 == pytest.approx(1.0)
    assert took.seconds_p99 == pytest.approx(1.49)
    assert (took.prompt_tokens, took.answer_tokens) == (150, 10)


def test_invented_labels_are_not_counted_with_answers_that_name_none(tmp_path: Path) -> None:
    """A message without an answer needs no seconds."""
    text = "id,label,seconds\na,refund,1\nb,Refunds,1\nc,none,1\nd,,\n"
    found = candidate_of(write(tmp_path / "h.csv", text), ["a", "b", "c", "d"])
    assert found.outside_labels == 1
    assert found.elsewhere is not None
    assert found.elsewhere.no_label == 2
    assert found.elsewhere.seconds_p99 == 1


def test_a_file_of_questions_that_nobody_answered_is_refused(tmp_path: Path) -> None:
    """Otherwise the other model would seem to be wrong about every message."""
    path = write(tmp_path / "q.jsonl", '{"id": "a", "message": "Hello", "label": ""}\n')
    with pytest.raises(BadInput, match="has no answer in its column 'label'"):
        read_recorded(f"hosted={path}")


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


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("id,label\na,x\na,y\n", "line 3 has the id 'a' a second time"),
        ("id,answer\na,x\n", "no column 'label'"),
        ("id,label,cost\na,x,cheap\n", "cost is not a number"),
        ("id,label,seconds\na,x,-1\n", "seconds is not a number of at least 0"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "h.csv", text)
    with pytest.raises(BadInput, match=problem):
        read_recorded(f"hosted={path}")
