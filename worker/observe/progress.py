"""The loop's events as log lines: each rebalance, each pause, and a summary at intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from worker.core.assignment import CompletedRecord
from worker.core.events import NullListener, PressureKind, RebalanceKind, SuspicionKind
from worker.records.types import Postponed, Rejected, TopicPartition

INTERVAL_S = 10.0
"""Between two summaries: short enough to see that a worker is alive, and six lines a minute."""

_log = structlog.get_logger("worker.loop")


class LogListener(NullListener):
    """See ``worker.core.events.Listener``. Counts since start, and a rate since the last line."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last_line = clock()
        self._since_line = 0
        self.totals: Counter[str] = Counter()

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Count; log a summary when the interval has passed."""
        self.totals.update([completed.outcome.kind for completed in batch])
        for completed in batch:
            outcome = completed.outcome
            if isinstance(outcome, Rejected):
                _log.info(
                    "record.rejected",
                    id=completed.record.id,
                    reason=outcome.reason,
                    stage=outcome.stage,
                    detail=outcome.detail,
                )
            elif isinstance(outcome, Postponed):
                _log.info(
                    "record.postponed",
                    id=completed.record.id,
                    reason=outcome.rejected.reason,
                    attempt=outcome.attempt,
                    detail=outcome.rejected.detail,
                )
        self._since_line += len(batch)
        _log.debug("batch.published", records=len(batch), seconds=round(seconds, 4))
        elapsed = self._clock() - self._last_line
        if elapsed >= INTERVAL_S:
            rate = self._since_line / elapsed
            _log.info("worker.progress", records_per_s=round(rate, 1), **self.totals)
            self._last_line = self._clock()
            self._since_line = 0

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Warn that the same results will be published again."""
        _log.warning("batch.not_published", records=records, attempt=attempt, error=str(error))

    def outage(self, seconds: float, error: Exception | None) -> None:
        """Warn once that Kafka is away while results wait, and say when it is back."""
        if error is not None:
            _log.warning("kafka.unreachable", error=str(error))
        else:
            _log.info("kafka.reachable", seconds=round(seconds, 1))

    def rebalanced(
        self, kind: RebalanceKind, partitions: Sequence[TopicPartition], dropped: int
    ) -> None:
        """Log which partitions were assigned, revoked or lost."""
        names = [f"{source.topic}-{source.partition}" for source in partitions]
        _log.info(f"partitions.{kind}", partitions=names, dropped=dropped)

    def backpressure(self, kind: PressureKind, records: int, size_bytes: int) -> None:
        """Log that fetching was paused or resumed; normal under load."""
        _log.debug(f"fetching.{kind}", records=records, bytes=size_bytes)

    def rewound(self, source: TopicPartition, offset: int, committed: int) -> None:
        """Log it."""
        _log.warning(
            "stream.rewound",
            topic=source.topic,
            partition=source.partition,
            offset=offset,
            committed=committed,
        )

    def suspicion(
        self, kind: SuspicionKind, source: TopicPartition, offset: int, records: int, deaths: int
    ) -> None:
        """Log which records may have crashed the engine, and what becomes of them."""
        log = _log.info if kind == "cleared" else _log.warning
        log(
            f"crash_isolation.{kind}",
            topic=source.topic,
            partition=source.partition,
            offset=offset,
            records=records,
            deaths=deaths,
        )
