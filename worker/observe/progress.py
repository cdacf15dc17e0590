"""Log the loop's events: rebalances, pauses, rejected records, and a summary at intervals."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from worker.contract.records import Headers
from worker.core.assignment import CompletedRecord
from worker.core.events import (
    BatchRefused,
    Distrusted,
    KafkaReachable,
    KafkaUnreachable,
    LoopEvent,
    PressureChanged,
    Published,
    PublishFailed,
    Rebalanced,
    Rewound,
    SuspicionChanged,
)
from worker.records.types import Postponed, Rejected, TopicPartition

INTERVAL_S = 10.0
"""Time between two summaries: often enough to see that a worker is alive, six lines a minute."""

_log = structlog.get_logger("worker.loop")

_REBALANCED = {
    "assigned": "partitions.assigned",
    "revoked": "partitions.revoked",
    "lost": "partitions.lost",
}
_PRESSURE = {"paused": "fetching.paused", "resumed": "fetching.resumed"}
"""Log events by the kind of the loop's event, written out so that a search finds them."""


class LogListener:
    """A listener of the loop. A summary has totals since the start, and the rate since the last
    summary."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_line = clock()
        self._since_line = 0
        self.totals: Counter[str] = Counter()

    def __call__(self, event: LoopEvent) -> None:  # noqa: C901 - one case for each event
        """Log the event."""
        match event:
            case Published(batch, seconds):
                self._summarize(batch, seconds)
            case PublishFailed(records, attempt, error):  # it will be retried
                _log.warning(
                    "batch.not_published", records=records, attempt=attempt, error=str(error)
                )
            case BatchRefused(records, replaced, error):
                _log.warning("batch.refused", records=records, replaced=replaced, error=str(error))
            case KafkaUnreachable(error):
                _log.warning("kafka.unreachable", error=str(error))
            case KafkaReachable(seconds):
                _log.info("kafka.reachable", seconds=round(seconds, 1))
            case Rebalanced(kind, partitions, dropped):
                names = [f"{source.topic}-{source.partition}" for source in partitions]
                _log.info(_REBALANCED[kind], partitions=names, dropped=dropped)
            case PressureChanged(kind, records, size_bytes):  # normal under load
                _log.debug(_PRESSURE[kind], records=records, bytes=size_bytes)
            case Rewound(source, offset, committed):
                _log.warning("stream.rewound", **_place(source), offset=offset, committed=committed)
            case Distrusted(source, offset, committed):
                _log.warning(
                    "stream.topic_recreated", **_place(source), offset=offset, committed=committed
                )
            case SuspicionChanged(kind, source, offset, records, deaths):
                log = _log.info if kind == "cleared" else _log.warning
                log(
                    f"crash_isolation.{kind}",
                    **_place(source),
                    offset=offset,
                    records=records,
                    deaths=deaths,
                )

    def _summarize(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Count; log each failed record, and a summary once per interval."""
        self.totals.update([completed.outcome.kind for completed in batch])
        for completed in batch:
            outcome = completed.outcome
            if isinstance(outcome, Rejected):
                _log.info(
                    "record.rejected",
                    id=completed.record.id,
                    **_trace_of(completed.record.headers),
                    reason=outcome.reason,
                    stage=outcome.stage,
                    detail=outcome.detail,
                )
            elif isinstance(outcome, Postponed):
                _log.info(
                    "record.postponed",
                    id=completed.record.id,
                    **_trace_of(completed.record.headers),
                    reason=outcome.rejected.reason,
                    attempt=outcome.attempt,
                    detail=outcome.rejected.detail,
                )
        # Rejected records are logged one by one, so that each can be found; labelled ones are only
        # counted, because there may be hundreds a second.
        self._since_line += len(batch)
        _log.debug("batch.published", records=len(batch), seconds=round(seconds, 4))
        elapsed = self._clock() - self._last_line
        if elapsed >= INTERVAL_S:
            rate = self._since_line / elapsed
            _log.info("worker.progress", records_per_s=round(rate, 1), **self.totals)
            self._last_line = self._clock()
            self._since_line = 0


_TRACE = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


def _trace_of(headers: Headers) -> dict[str, str]:
    """Return the id of a message's trace, if its headers have one (W3C Trace Context), so that its
    log events are found from the trace."""
    for name, value in headers:
        if name == "traceparent" and (found := _TRACE.fullmatch(value or b"")):
            return {"trace_id": found[1].decode()}
    return {}


def _place(source: TopicPartition) -> dict[str, Any]:
    return {"topic": source.topic, "partition": source.partition}
