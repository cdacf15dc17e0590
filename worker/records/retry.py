"""From a record that failed to the one that waits on the retry topic, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime

from worker.contract.errors import RecordRefused
from worker.contract.records import Headers, Retry, read_retry
from worker.contract.records.retry import LONGEST_DELAY_S, RETRY_HEADERS, RETRY_REASONS
from worker.records.types import Outgoing, Postponed, Record, Rejected

_CLOCKS_S = 60 * 60
"""By so much the clock of the worker that wrote a record may be ahead of ours."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Which failures are tried again: after ``delay_s`` on ``topic``, ``max_attempts`` times."""

    topic: str
    delay_s: float
    max_attempts: int

    def judge(self, record: Record, rejected: Rejected) -> Rejected | Postponed:
        """Say whether a record that failed so is dead, or tried again.

        What the engine was asked in earlier attempts is added to ``attempts``.
        """
        before = record.retry
        if before is not None and rejected.stage == "engine":
            asked = rejected.attempts + before.engine_attempts
            rejected = replace(rejected, attempts=asked)
        attempt = 1 if before is None else before.attempt + 1
        if rejected.reason not in RETRY_REASONS or attempt > self.max_attempts:
            return rejected
        return Postponed(rejected, attempt)

    def encode(self, record: Record, postponed: Postponed, now: datetime) -> Outgoing:
        """Return the record to produce: key, value and headers as they came, and the retry's own.

        The delay begins with ``now``, when it is written: so a partition's log is in the order in
        which its records are due. Its timestamp is that of writing too, and the input record's is
        in a header: retention counts from the first, and an old message must not expire while it
        waits.
        """
        rejected, before = postponed.rejected, record.retry
        reason = next(known for known in RETRY_REASONS if known == rejected.reason)
        now_ms = now.timestamp() * 1000
        retry = Retry(
            *record.origin,
            timestamp_ms=record.timestamp_ms,
            attempt=postponed.attempt,
            not_before_ms=math.ceil(now_ms + self.delay_s * 1000),
            reason=reason,
            first_failed_ms=int(now_ms) if before is None else before.first_failed_ms,
            engine_attempts=rejected.attempts,
            cluster=record.origin_cluster,
        )
        headers = _without_retry(record.headers) + retry.headers()
        return Outgoing(self.topic, record.key, record.value, headers)


def restore(record: Record, now: datetime) -> Record:
    """Return a record of the retry topic as it was in the input topic, with ``retry``.

    Where its headers cannot be read, or it is due later than any setting allows, with ``damage``.
    """
    try:
        retry = read_retry(record.headers)
    except RecordRefused as error:
        return replace(record, damage=str(error))
    if retry.not_before_ms > (now.timestamp() + LONGEST_DELAY_S + _CLOCKS_S) * 1000:
        return replace(record, damage="it is due later than any delay that can be set")
    headers = _without_retry(record.headers)
    return replace(record, headers=headers, timestamp_ms=retry.timestamp_ms, retry=retry)


def _without_retry(headers: Headers) -> Headers:
    return tuple(header for header in headers if header[0] not in RETRY_HEADERS)
