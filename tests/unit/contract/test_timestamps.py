"""One way to write a time, for every file and every record."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.contract.timestamps import parse_rfc3339, rfc3339, rfc3339_from_ms


def test_what_is_finer_than_the_precision_is_cut_off() -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 999_999, tzinfo=UTC)
    assert rfc3339(moment) == "2024-05-06T07:08:09.999Z"
    assert rfc3339(moment, precision="seconds") == "2024-05-06T07:08:09Z"


@given(st.datetimes(timezones=st.timezones()))
def test_a_time_reads_back(moment: datetime) -> None:
    try:
        text = rfc3339(moment)
    except OverflowError:
        return  # within a day of the calendar's ends, UTC has no such year
    found = parse_rfc3339(text)
    assert found.tzinfo is UTC
    assert timedelta(0) <= moment - found < timedelta(milliseconds=1)


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_714_979_289_123, "2024-05-06T07:08:09.123Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (2**62, None),
        (-(2**62), None),
    ],
)
def test_milliseconds_by_example(timestamp_ms: int, text: str | None) -> None:
    """A producer may set any number as a timestamp."""
    assert rfc3339_from_ms(timestamp_ms) == text


@given(st.integers(-62_135_596_800_000, 253_402_300_799_999))
def test_milliseconds_are_the_time_that_they_name(timestamp_ms: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=timestamp_ms)
    assert rfc3339_from_ms(timestamp_ms) == rfc3339(moment)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2024-05-06", "2024-05-06T07:08:09", "1714979289"]
)
def test_malformed_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a time in RFC 3339: write it as 2024-"):
        parse_rfc3339(text)


def test_malformed_times_are_not_quoted() -> None:
    """A mistake may put a message into a time field, and errors are logged."""
    with pytest.raises(ValueError, match="not a time") as caught:
        parse_rfc3339("my card was stolen, please help")
    assert "card" not in str(caught.value)
    assert caught.value.__context__ is None
