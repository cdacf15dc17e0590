"""Dead letters and retry records: their headers, read back."""

import typing
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.errors import RecordRefused, RejectReason
from worker.contract.records import (
    DeadLetter,
    Retry,
    Stage,
    read_dead_letter,
    read_retry,
)
from worker.contract.records.headers import (
    MOST_ATTEMPTS,
    NEEDED_RETRY_HEADERS,
    RETRY_HEADERS,
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
    letter = replace(LETTER, reason=reason, stage=stage, timestamp_ms=timestamp_ms)
    headers = [("trace", b"\xff"), ("none", None), *letter.headers()]
    assert read_dead_letter(headers) == letter


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("clerk.reason", None, "has no headers of a dead letter"),
        ("clerk.stage", None, "lacks the header clerk.stage"),
        ("clerk.adapter.digest", None, "lacks the header clerk.adapter.digest"),
        ("clerk.source.offset", b"x", "the header clerk.source.offset is not a whole number"),
        ("clerk.source.timestamp", b"x", "the header clerk.source.timestamp is not a whole number"),
        ("clerk.reason", b"tired", "has an unknown reason or stage: 'tired'"),
    ],
)
def test_malformed_dead_letters_are_refused_by_the_header_at_fault(
    name: str, value: bytes | None, problem: str
) -> None:
    headers = [
        (header, value if header == name else content)
        for header, content in LETTER.headers()
        if value is not None or header != name
    ]
    with pytest.raises(RecordRefused, match=f"^the dead letter: {problem}"):
        read_dead_letter(headers)


# What a record on the retry topic says of where it came from and when it is due.


RETRY = Retry("in", 3, 42, 1_700_000_000_123, 2, 1_800_000_000_000, "deadline_exceeded", 17, 4)

MILLISECONDS = st.integers(0, (1 << 53) - 1)
retries = st.builds(
    Retry,
    topic=st.from_regex(r"[A-Za-z0-9._-]{1,249}", fullmatch=True),
    partition=st.integers(0, (1 << 31) - 1),
    offset=st.integers(0, (1 << 63) - 1),
    timestamp_ms=st.none() | st.integers(-(1 << 63), (1 << 63) - 1),
    attempt=st.integers(1, MOST_ATTEMPTS),
    not_before_ms=MILLISECONDS,
    reason=st.sampled_from(["deadline_exceeded", "engine_rejected"]),
    first_failed_ms=MILLISECONDS,
    engine_attempts=st.integers(0, 1 << 31),
)


@given(retries)
def test_what_is_written_is_read_back(retry: Retry) -> None:
    assert read_retry((("mine", b"1"), *retry.headers(), ("none", None))) == retry
    assert {name for name, _ in retry.headers()} == NEEDED_RETRY_HEADERS


def test_headers_have_names_in_the_workers_style() -> None:
    assert dict(RETRY.headers()) == {
        "clerk.retry.source.topic": b"in",
        "clerk.retry.source.partition": b"3",
        "clerk.retry.source.offset": b"42",
        "clerk.retry.source.timestamp": b"1700000000123",
        "clerk.retry.attempt": b"2",
        "clerk.retry.not.before": b"1800000000000",
        "clerk.retry.reason": b"deadline_exceeded",
        "clerk.retry.first.failed": b"17",
        "clerk.retry.engine.attempts": b"4",
    }
    assert RETRY.id == "in-3-42"


@pytest.mark.parametrize("missing", sorted(NEEDED_RETRY_HEADERS))
def test_a_header_that_is_missing_is_named(missing: str) -> None:
    headers = tuple(header for header in RETRY.headers() if header[0] != missing)
    with pytest.raises(RecordRefused, match=missing.replace(".", r"\.")):
        read_retry(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("attempt", b"0"),
        ("attempt", str(MOST_ATTEMPTS + 1).encode()),
        ("attempt", "٣".encode()),
        ("not.before", b"9" * 5000),
        ("not.before", b"-1"),
        ("source.topic", b"my dog"),
        ("source.offset", b"4.2"),
        ("source.timestamp", b"yesterday"),
        ("reason", b"my customer said this"),
        ("engine.attempts", b"-3"),
    ],
)
def test_a_damaged_header_is_refused_and_not_quoted(name: str, value: bytes | None) -> None:
    headers = {**dict(RETRY.headers()), f"clerk.retry.{name}": value}
    with pytest.raises(RecordRefused) as caught:
        read_retry(tuple(headers.items()))
    assert f"clerk.retry.{name}" in str(caught.value)
    text = (value or b"").decode("latin-1")
    assert len(text) < 4 or text not in str(caught.value)


@given(st.lists(st.tuples(st.sampled_from(sorted(RETRY_HEADERS)), st.none() | st.binary())))
def test_any_headers_are_a_retry_or_refused(headers: list[tuple[str, bytes | None]]) -> None:
    try:
        read_retry(tuple(headers))
    except RecordRefused:
        return
