"""Dead letters as others read them: the story is in the headers."""

import typing
from dataclasses import replace

import pytest

from worker.contract.errors import RecordRefused, RejectReason
from worker.contract.records import (
    DeadLetter,
    Stage,
    read_dead_letter,
    record_id,
)

LETTER = DeadLetter(
    reason="not_json",
    stage="decode",
    error="the value is not JSON: Expecting value at character 0",
    topic="support-messages",
    partition=3,
    offset=42,
    timestamp_ms=1_700_000_000_123,
    attempts=1,
    worker_version="9.9",
    adapter_digest="abc",
)


@pytest.mark.parametrize("reason", typing.get_args(RejectReason))
@pytest.mark.parametrize("stage", typing.get_args(Stage))
@pytest.mark.parametrize("timestamp_ms", [None, 0, -1])
def test_every_letter_is_read_back_from_its_headers(
    reason: RejectReason, stage: Stage, timestamp_ms: int | None
) -> None:
    """Among the sender's own."""
    letter = replace(LETTER, reason=reason, stage=stage, timestamp_ms=timestamp_ms)
    headers = [("trace", b"\xff"), ("none", None), *letter.headers()]
    assert read_dead_letter(headers) == letter


def test_it_has_the_id_of_the_output_that_there_is_not() -> None:
    """So that every input record is found in one of the topics."""
    assert LETTER.id == record_id("support-messages", 3, 42) == "support-messages-3-42"


def test_of_two_stories_the_later_one_is_told() -> None:
    """A dead letter that was sent again, with its headers, and failed again."""
    later = replace(LETTER, reason="deadline_exceeded", stage="engine", offset=7)
    assert read_dead_letter([*LETTER.headers(), *later.headers()]) == later


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("clerk.reason", None, "has none of the headers of one"),
        ("clerk.stage", None, "lacks the header clerk.stage"),
        ("clerk.adapter.digest", None, "lacks the header clerk.adapter.digest"),
        ("clerk.source.offset", b"x", "the header clerk.source.offset is no whole number"),
        ("clerk.source.timestamp", b"x", "the header clerk.source.timestamp is no whole number"),
        ("clerk.reason", b"tired", "has the reason 'tired' at the stage 'decode'"),
        ("clerk.stage", b"lunch", "has the reason 'not_json' at the stage 'lunch'"),
    ],
)
def test_what_is_no_dead_letter_is_refused_by_the_header_at_fault(
    name: str, value: bytes | None, problem: str
) -> None:
    """A header that is missing, unreadable or not known."""
    headers = [
        (header, value if header == name else content)
        for header, content in LETTER.headers()
        if value is not None or header != name
    ]
    with pytest.raises(RecordRefused, match=f"^the dead letter: {problem}"):
        read_dead_letter(headers)
