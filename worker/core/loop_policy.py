"""What an operator may say about the loop."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.backpressure import Bounds


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Times in seconds, sizes in records: what ``[loop]`` of the settings says, and where each
    has its default. ``idle_poll_s`` and ``result_wait_s`` are nobody's to set: the longest waits
    for a record when nothing is in flight, and for an answer when something is.

    ``publish_attempts`` are refusals in a row before the worker ends, ``publish_backoff_s`` the
    wait after the first of them. ``max_outage_s``: how long an unreachable Kafka is waited for;
    None: as long as it takes.
    """

    bounds: Bounds
    publish_interval_s: float
    publish_max_records: int
    publish_attempts: int
    publish_backoff_s: float
    revoke_drain_s: float
    drain_s: float
    max_outage_s: float | None = None
    idle_poll_s: float = 0.5
    result_wait_s: float = 0.01
