"""What the loop tells its listeners: logs, metrics, traces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from worker.core.assignment import CompletedRecord
from worker.records.types import TopicPartition

TransactionResult = Literal["committed", "aborted", "unknown"]
RebalanceKind = Literal["assigned", "revoked", "lost"]
PressureKind = Literal["paused", "resumed"]
SuspicionKind = Literal["suspected", "cleared", "rejected"]
"""What becomes of records that may have crashed the engine."""


class Listener(Protocol):
    """Told what happened. Called on the loop's thread; must not block and must not raise."""

    def publishing(self, batch: Sequence[CompletedRecord]) -> None:
        """These records are about to be encoded and published in one step."""
        ...

    def transaction(self, result: TransactionResult, seconds: float) -> None:
        """The attempt announced by ``publishing`` ended so, after so long.

        Without transactions (``at_least_once``) an attempt is the writing and the commit.
        """
        ...

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """These records and their offsets are committed; it took so long.

        Told once a record, also when that became known only after an unanswered commit.
        """
        ...

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """A batch was not committed and will be tried again."""
        ...

    def outage(self, seconds: float, error: Exception | None) -> None:
        """Kafka cannot be reached to publish, because of ``error``; with None: it can again.

        It lasted so many seconds.
        """
        ...

    def rebalanced(
        self, kind: RebalanceKind, partitions: Sequence[TopicPartition], dropped: int
    ) -> None:
        """Partitions came or went; ``dropped`` records are left to their next owner."""
        ...

    def backpressure(self, kind: PressureKind, records: int, size_bytes: int) -> None:
        """Fetching of a partition stopped or resumed, at so many records and bytes in flight."""
        ...

    def rewound(self, source: TopicPartition, offset: int, committed: int) -> None:
        """A partition was delivered from ``offset`` on, long published: before ``committed`` its
        records are left out."""
        ...

    def suspicion(
        self, kind: SuspicionKind, source: TopicPartition, offset: int, records: int, deaths: int
    ) -> None:
        """So many records of a partition, from ``offset`` on, became suspects, or ceased to be.

        ``deaths`` are the proven ones of the record that has most.
        """
        ...


class NullListener:
    """A Listener that does nothing: the base of those that hear of a few things only."""

    def publishing(self, batch: Sequence[CompletedRecord]) -> None:
        """Do nothing."""

    def transaction(self, result: TransactionResult, seconds: float) -> None:
        """Do nothing."""

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Do nothing."""

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Do nothing."""

    def outage(self, seconds: float, error: Exception | None) -> None:
        """Do nothing."""

    def rebalanced(
        self, kind: RebalanceKind, partitions: Sequence[TopicPartition], dropped: int
    ) -> None:
        """Do nothing."""

    def backpressure(self, kind: PressureKind, records: int, size_bytes: int) -> None:
        """Do nothing."""

    def rewound(self, source: TopicPartition, offset: int, committed: int) -> None:
        """Do nothing."""

    def suspicion(
        self, kind: SuspicionKind, source: TopicPartition, offset: int, records: int, deaths: int
    ) -> None:
        """Do nothing."""


class Listeners:
    """A Listener that tells several others, in order; with none it does nothing."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners

    def publishing(self, batch: Sequence[CompletedRecord]) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.publishing(batch)

    def transaction(self, result: TransactionResult, seconds: float) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.transaction(result, seconds)

    def published(self, batch: Sequence[CompletedRecord], seconds: float) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.published(batch, seconds)

    def publish_failed(self, records: int, attempt: int, error: Exception) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.publish_failed(records, attempt, error)

    def outage(self, seconds: float, error: Exception | None) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.outage(seconds, error)

    def rebalanced(
        self, kind: RebalanceKind, partitions: Sequence[TopicPartition], dropped: int
    ) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.rebalanced(kind, partitions, dropped)

    def backpressure(self, kind: PressureKind, records: int, size_bytes: int) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.backpressure(kind, records, size_bytes)

    def rewound(self, source: TopicPartition, offset: int, committed: int) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.rewound(source, offset, committed)

    def suspicion(
        self, kind: SuspicionKind, source: TopicPartition, offset: int, records: int, deaths: int
    ) -> None:
        """Tell each."""
        for listener in self._listeners:
            listener.suspicion(kind, source, offset, records, deaths)
