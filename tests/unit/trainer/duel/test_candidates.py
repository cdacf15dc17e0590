"""Recorded answers of other models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from trainer.duel.candidates import Candidate, from_recorded, read_recorded, write_recorded
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


def test_recorded_answers_without_numbers_have_none(tmp_path: Path) -> None:
    """A mean over some of the messages would be of other messages."""
    found = candidate_of(
        write(tmp_path / "h.csv", "id,label,cost\na,spam,1\nb,spam,\n"), ["a", "b"]
    )
    assert (found.messages_per_s, found.cost_per_message) == (None, None)
    assert found.elsewhere is not None
    assert found.elsewhere.seconds_p50 is None


def test_invented_labels_are_not_counted_with_answers_that_name_none(tmp_path: Path) -> None:
    """A message without an answer needs no seconds."""
    text = "id,label,seconds\na,refund,1\nb,Refunds,1\nc,none,1\nd,,\n"
    found = candidate_of(write(tmp_path / "h.csv", text), ["a", "b", "c", "d"])
    assert found.outside_labels == 1
    assert found.elsewhere is not None
    assert found.elsewhere.no_label == 2
    assert found.elsewhere.seconds_p99 == 1


def test_answers_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    text = (
        "id,label,seconds,cost,prompt_tokens,answer_tokens\na,refund,0.5,1e-05,100.0,9.0\nb,,,,,\n"
    )
    first = read_recorded(f"hosted={write(tmp_path / 'h.csv', text)}")
    assert write_recorded(first) == text
    assert read_recorded(
        f"hosted={write(tmp_path / 'again.csv', write_recorded(first))}"
    ).numbers == (first.numbers)


def test_a_file_of_questions_that_nobody_answered_is_refused(tmp_path: Path) -> None:
    """Otherwise the other model would seem to be wrong about every message."""
    path = write(tmp_path / "q.jsonl", '{"id": "a", "message": "Hello", "label": ""}\n')
    with pytest.raises(BadInput, match="has no answer in its column 'label'"):
        read_recorded(f"hosted={path}")


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
        ("id,label,seconds\na,x,-1\n", "seconds is not a number of at least 0"),
    ],
)
def test_bad_records_are_named(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path / "h.csv", text)
    with pytest.raises(BadInput, match=problem):
        read_recorded(f"hosted={path}")


def test_a_candidate_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="NAME=FILE"):
        read_recorded("answers.csv")
