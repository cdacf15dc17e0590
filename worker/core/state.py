"""A snapshot of the loop, for health checks and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from worker.records.types import TopicPartition


@dataclass(frozen=True, slots=True)
class LoopState:
    """One snapshot of a running loop. Times are seconds of the loop's clock.

    ``polled_at`` is when Kafka was last polled, None before the first time; ``joined`` that the
    worker is a member of its group, with partitions or without; ``waiting`` the records of each
    partition that are finished and wait behind an unfinished one. ``engine_window`` is how
    many records the main adapter's engine may be given. ``prompt_tokens`` and ``engine_busy_s``
    only grow. ``outage_since`` is since when Kafka has not been reachable for results, None if it
    is. ``suspect_records`` may have killed the engine, and are tried apart. ``retry_topic`` is None
    where nothing is tried again later; of what waits there for its time, the first is due at
    ``retry_due_ms`` (Unix time), None if nothing waits.
    """

    polled_at: float | None
    joined: bool
    stopping: bool
    in_flight_records: int
    in_flight_bytes: int
    in_engine_records: int
    engine_window: int
    paused_partitions: int
    waiting: Mapping[TopicPartition, int]
    prompt_tokens: int
    engine_busy_s: float
    outage_since: float | None = None
    suspect_records: int = 0
    retry_topic: str | None = None
    retry_due_ms: int | None = None
