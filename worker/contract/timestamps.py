"""Times in records and files: RFC 3339 in UTC, with a ``Z``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def rfc3339(
    moment: datetime, *, precision: Literal["seconds", "milliseconds"] = "milliseconds"
) -> str:
    """Format an aware time: ``2024-05-06T07:08:09.123Z``. Finer digits are cut off, not rounded:
    a time must not move into the future."""
    text = moment.astimezone(UTC).isoformat(timespec=precision)
    return text.replace("+00:00", "Z")


def rfc3339_now() -> str:
    """Return the current time to the second."""
    return rfc3339(datetime.now(UTC), precision="seconds")


def rfc3339_from_ms(timestamp_ms: int) -> str | None:
    """Format milliseconds since 1970; None if ``datetime`` cannot represent the time, since a
    producer may set any number as a record's timestamp."""
    seconds, milliseconds = divmod(timestamp_ms, 1000)
    second = _second(seconds)
    return None if second is None else f"{second}.{milliseconds:03}Z"


@lru_cache(maxsize=64)  # the records of a batch fall into a few seconds
def _second(seconds: int) -> str | None:
    try:
        return rfc3339(_EPOCH + timedelta(seconds=seconds), precision="seconds")[:-1]
    except OverflowError:
        return None


def parse_rfc3339(text: str) -> datetime:
    """Parse a time that names its zone, and return it in UTC. Raises ValueError, without quoting
    ``text``, which may be a customer's message in the wrong field."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("not a time in RFC 3339: write it as 2024-05-06T07:08:09.123Z")
    return moment.astimezone(UTC)
