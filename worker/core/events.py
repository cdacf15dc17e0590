"""The loop's events: for logs, metrics, traces, and whatever judges what was committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from worker.core.assignment import CompletedRecord
from worker.records.types import TopicPartition

TransactionResult = Literal["committed", "aborted", "unknown"]
RebalanceKind = Literal["assigned", "revoked", "lost"]
PressureKind = Literal["paused", "resumed"]
SuspicionKind = Literal["suspected", "cleared", "rejected"]
"""What becomes of records that may have crashed the engine."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """These records are about to be encoded and published in one step."""

    batch: Sequence[CompletedRecord]


@dataclass(frozen=True, slots=True)
class TransactionEnded:
    """The attempt announced by ``Publishing`` ended so, after so long.

    Without transactions (``at_least_once``) an attempt is the writing and the commit.
    """

    result: TransactionResult
    seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """These records and their offsets are committed; it took so long.

    Sent once a record, also when that became known only after an unanswered commit.
    """

    batch: Sequence[CompletedRecord]
    seconds: float


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A batch of so many records was not committed and will be tried again."""

    records: int
    attempt: int
    error: Exception


@dataclass(frozen=True, slots=True)
class KafkaUnreachable:
    """Kafka cannot be reached to publish."""

    error: Exception


@dataclass(frozen=True, slots=True)
class KafkaReachable:
    """Kafka can be reached again, after so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """Partitions came or went; ``dropped`` records are left to their next owner."""

    kind: RebalanceKind
    partitions: Sequence[TopicPartition]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Fetching of a partition stopped or resumed, at so many records and bytes in flight."""

    kind: PressureKind
    records: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """A partition was delivered from ``offset`` on, long published: before ``committed`` its
    records are left out."""

    source: TopicPartition
    offset: int
    committed: int


@dataclass(frozen=True, slots=True)
class SuspicionChanged:
    """So many records of a partition, from ``offset`` on, became suspects, or ceased to be.

    ``deaths`` are the proven ones of the record that has most.
    """

    kind: SuspicionKind
    source: TopicPartition
    offset: int
    records: int
    deaths: int


LoopEvent = (
    Publishing
    | TransactionEnded
    | Published
    | PublishFailed
    | KafkaUnreachable
    | KafkaReachable
    | Rebalanced
    | PressureChanged
    | Rewound
    | SuspicionChanged
)

Listener = Callable[[LoopEvent], None]
"""Called on the loop's thread; must not block and must not raise."""


def send_to_all(listeners: Sequence[Listener]) -> Listener:
    """Return a listener that passes each event to these, in order."""

    def send(event: LoopEvent) -> None:
        for listener in listeners:
            listener(event)

    return send
