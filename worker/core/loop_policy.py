"""What bounds the loop: how much it holds, how long it waits, how often it tries."""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.backpressure import Bounds

PUBLISH_MAX_RECORDS = 500
"""One transaction of so many costs little by the record, and is short enough to be repeated."""


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Times in seconds, sizes in records.

    ``publish_attempts`` are refusals in a row before the worker ends, ``publish_backoff_s`` the
    wait after the first of them. ``idle_poll_s`` and ``result_wait_s`` are the longest waits for a
    record when nothing is in flight, and for an answer when something is. A worker takes
    ``bounds`` and ``drain_s`` from its settings and the others as they are here.
    """

    bounds: Bounds
    drain_s: float
    publish_interval_s: float = 0.05
    # A transaction takes about 10 ms: so the loop spends at most a fifth of its time on them, and
    # nobody notices the wait.
    publish_max_records: int = PUBLISH_MAX_RECORDS
    publish_attempts: int = 10
    # With the backoff about half a minute: longer than the election of a new leader.
    publish_backoff_s: float = 0.2
    revoke_drain_s: float = 2.0
    # The whole group waits for it (eager assignment). Most answers come within it; the records of
    # those that do not are labelled again by the next owner.
    idle_poll_s: float = 0.5
    result_wait_s: float = 0.01
