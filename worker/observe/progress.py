"""The loop's events as log lines: one a rebalance, one a pause, and a summary at intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from worker.core.assignment import CompletedRecord
from worker.core.events import NullListener, PressureKind, RebalanceKind
from worker.records.types import Classified, TopicPartition

_log = structlog.get_logger("worker.loop")


class LogListener(NullListener):
    """See ``worker.core.events.Listener``. Counts since start, and a rate since the last line."""

    def __init__(self, interval_s: float, clock: Callable[[], float]) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._last_line = clock()
        self._since_line = 0
        self.totals: Counter[str] = Counter()

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Count; write a line when the interval has passed."""
        for one in batch:
            outcome = one.outcome
            if isinstance(outcome, Classified):
                self.totals["review" if outcome.review else "output"] += 1
            else:
                self.totals["dead_letter"] += 1
                _log.info(
                    "record.rejected",
                    id=one.record.id,
                    reason=outcome.reason,
                    stage=outcome.stage,
                    detail=outcome.detail,
                )
        self._since_line += len(batch)
        _log.debug("batch.published", records=len(batch), seconds=round(seconds, 4))
        elapsed = self._clock() - self._last_line
        if elapsed >= self._interval_s:
            rate = self._since_line / elapsed
            _log.info("worker.observe.progress", records_per_s=round(rate, 1), **self.totals)
            self._last_line = self._clock()
            self._since_line = 0

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Warn: the same results will be published again."""
        _log.warning("batch.not_published", records=records, attempt=attempt, error=str(error))

    def rebalanced(
        self, kind: RebalanceKind, partitions: Sequence[TopicPartition], dropped: int
    ) -> None:
        """Tell which partitions came or went."""
        names = [f"{one.topic}-{one.partition}" for one in partitions]
        _log.info(f"partitions.{kind}", partitions=names, dropped=dropped)

    def backpressure(self, kind: PressureKind, records: int, size_bytes: int) -> None:
        """Tell that fetching stopped or went on; normal under load."""
        _log.debug(f"fetching.{kind}", records=records, bytes=size_bytes)
