"""Which records of a topic are meant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Which records of a topic: by one of these.

    ``last`` the newest so many over all partitions; ``since_ms`` and ``until_ms`` (Unix time, the
    latter not included) those with timestamps in between; ``offsets`` by partition the first and
    the last offset, both included, None for as far as it goes.
    """

    last: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    offsets: Mapping[int, tuple[int, int | None]] | None = None
