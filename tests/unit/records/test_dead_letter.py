"""Dead letters: the record as it came, and why it has no label."""

import pytest

from tests.support.records import toy_record
from worker.contract.records import HeaderStyle
from worker.records.dead_letter import DeadLetterEncoder
from worker.records.types import Rejected

REJECTED = Rejected("not_json", "decode", "the value is not JSON", attempts=3)
STYLES: list[HeaderStyle] = ["clerk", "connect"]


def encoder(style: HeaderStyle) -> DeadLetterEncoder:
    return DeadLetterEncoder("dead", "9.9", "abc", style)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("value", [b"\xff\x00 raw", b"", None])
def test_key_value_and_headers_are_kept_byte_by_byte(
    style: HeaderStyle, value: bytes | None
) -> None:
    """Whoever mends the cause can send the record again as it was."""
    record = toy_record(value, key=b"\x00\xff")
    letter = encoder(style).encode(record, REJECTED)
    assert (letter.topic, letter.key, letter.value) == ("dead", b"\x00\xff", value)
    assert letter.headers[: len(record.headers)] == record.headers


def test_clerk_headers_say_why_where_and_by_whom() -> None:
    """The default style, one fact a header."""
    letter = encoder("clerk").encode(toy_record(headers=()), REJECTED)
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


def test_connect_headers_are_those_that_connect_tools_read() -> None:
    """Where dead letters are handled by tools made for Kafka Connect."""
    headers = dict(encoder("connect").encode(toy_record(headers=()), REJECTED).headers)
    connect = {
        name.removeprefix("__connect.errors."): value
        for name, value in headers.items()
        if name.startswith("__connect.errors.")
    }
    assert connect == {
        "topic": b"in",
        "partition": b"3",
        "offset": b"42",
        "connector.name": b"filing-clerk",
        "task.id": b"0",
        "stage": b"DECODE",
        "class.name": b"worker.core.labeller.Labeller",
        "exception.class.name": b"not_json",
        "exception.message": b"the value is not JSON",
    }
    assert headers["clerk.attempt"] == b"3"
    assert headers["clerk.adapter.digest"] == b"abc"


def test_a_record_without_a_timestamp_says_so() -> None:
    """Empty, not zero."""
    letter = encoder("clerk").encode(toy_record(timestamp_ms=None), REJECTED)
    assert dict(letter.headers)["clerk.source.timestamp"] == b""


def test_a_record_that_was_a_dead_letter_before_keeps_both_stories() -> None:
    """The newest reason is the last header of its name."""
    once = encoder("clerk").encode(toy_record(headers=()), REJECTED)
    again = encoder("clerk").encode(
        toy_record(headers=once.headers), Rejected("deadline_exceeded", "engine", "")
    )
    reasons = [value for name, value in again.headers if name == "clerk.reason"]
    assert reasons == [b"not_json", b"deadline_exceeded"]


@pytest.mark.parametrize("style", STYLES)
def test_a_bare_letter_says_where_the_record_is_and_how_large(style: HeaderStyle) -> None:
    """It has nothing of the record's own that could be too large."""
    record = toy_record(b"v" * 1000, key=b"k" * 10, headers=(("h", b"x" * 100), ("n", None)))
    letter = encoder(style).without_payload(record, REJECTED)
    assert (letter.key, letter.value) == (None, None)
    names = [name for name, _ in letter.headers]
    assert "h" not in names
    headers = dict(letter.headers)
    assert headers["clerk.payload.omitted.bytes"] == b"1112"
    prefix = "clerk.source." if style == "clerk" else "__connect.errors."
    assert headers[f"{prefix}offset"] == b"42"
