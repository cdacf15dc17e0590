"""Dead letters: the record as it came, and why it has no label."""

import pytest

from tests.support.records import toy_record
from worker.contract.records import Headers, read_dead_letter
from worker.records.dead_letter import DeadLetterEncoder
from worker.records.types import Rejected

REJECTED = Rejected("not_json", "decode", "the value is not JSON", attempts=3)
ENCODER = DeadLetterEncoder("dead", "9.9", "abc")


@pytest.mark.parametrize("value", [b"\xff\x00 raw", b"", None])
def test_key_value_and_headers_are_kept_byte_by_byte(value: bytes | None) -> None:
    """Whoever mends the cause can send the record again as it was."""
    record = toy_record(value, key=b"\x00\xff")
    letter = ENCODER.encode(record, REJECTED)
    assert (letter.topic, letter.key, letter.value) == ("dead", b"\x00\xff", value)
    assert letter.headers[: len(record.headers)] == record.headers


def test_clerk_headers_say_why_where_and_by_whom() -> None:
    """One fact a header."""
    letter = ENCODER.encode(toy_record(headers=()), REJECTED)
    assert dict(letter.headers) == {
        "clerk.reason": b"not_json",
        "clerk.stage": b"decode",
        "clerk.error": b"the value is not JSON",
        "clerk.source.topic": b"in",
        "clerk.source.partition": b"3",
        "clerk.source.offset": b"42",
        "clerk.source.timestamp": b"1700000000123",
        "clerk.attempt": b"3",
        "clerk.worker.version": b"9.9",
        "clerk.adapter.digest": b"abc",
    }


def test_a_record_without_a_timestamp_says_so() -> None:
    """Empty, not zero."""
    letter = ENCODER.encode(toy_record(timestamp_ms=None), REJECTED)
    assert dict(letter.headers)["clerk.source.timestamp"] == b""


def test_a_record_that_was_a_dead_letter_before_tells_the_latest_story_alone() -> None:
    """Sent again from the dead letters, whole or bare: one set of headers, and the sender's own."""
    record = toy_record()
    for once in (
        ENCODER.encode(record, REJECTED),
        ENCODER.without_payload(record, REJECTED),
    ):
        sent_again = toy_record(headers=(*once.headers, ("mine", b"1")), offset=77)
        later = Rejected("deadline_exceeded", "engine", "no answer")
        again = ENCODER.encode(sent_again, later)
        names = [name for name, _ in again.headers]
        assert len(names) == len(set(names))
        expected = ENCODER.encode(toy_record(headers=(), offset=77), later)
        assert set(names) == {name for name, _ in expected.headers} | {"mine"} | (
            {"trace", "none"} if once.value else set()
        )
        assert (read_dead_letter(again.headers).offset, read_dead_letter(again.headers).reason) == (
            77,
            "deadline_exceeded",
        )


def test_what_another_tool_says_of_its_own_errors_is_kept() -> None:
    """Headers of Kafka Connect's own are the sender's, as is anything that only looks like ours."""
    headers: Headers = (
        ("__connect.errors.connector.name", b"jdbc-source"),
        ("__connect.errors.topic", b"theirs"),
        ("clerk.of.court", b"x"),
    )
    letter = ENCODER.encode(toy_record(headers=headers), REJECTED)
    assert letter.headers[:3] == headers


def test_a_bare_letter_says_where_the_record_is_and_how_large() -> None:
    """It has nothing of the record's own that could be too large."""
    record = toy_record(b"v" * 1000, key=b"k" * 10, headers=(("h", b"x" * 100), ("n", None)))
    letter = ENCODER.without_payload(record, REJECTED)
    assert (letter.key, letter.value) == (None, None)
    names = [name for name, _ in letter.headers]
    assert "h" not in names
    headers = dict(letter.headers)
    assert headers["clerk.payload.omitted.bytes"] == b"1112"
    assert headers["clerk.source.offset"] == b"42"
