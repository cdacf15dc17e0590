"""The loop's events, for logs, metrics, traces, and judges of committed records."""

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
"""The fate of records that may have crashed the engine."""


@dataclass(frozen=True, slots=True)
class Publishing:
    """An attempt to encode and publish these records begins."""

    batch: Sequence[CompletedRecord]


@dataclass(frozen=True, slots=True)
class TransactionEnded:
    """The result and duration of the attempt that ``Publishing`` announced.

    Without transactions (``at_least_once``) an attempt is the writes and the commit.
    """

    result: TransactionResult
    seconds: float


@dataclass(frozen=True, slots=True)
class Published:
    """These records and their offsets are committed.

    Each record is in exactly one such event, also if its commit got no answer at first.
    """

    batch: Sequence[CompletedRecord]
    seconds: float


@dataclass(frozen=True, slots=True)
class PublishFailed:
    """A batch was not committed and will be tried again. ``attempt`` counts from 1."""

    records: int
    attempt: int
    error: Exception


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """The broker refused a batch because of records in it; it was not committed.

    ``replaced``: how many were found and become dead letters. 0: the batch is divided to find them,
    or tried again without the labels of shadows.
    """

    records: int
    replaced: int
    error: Exception


@dataclass(frozen=True, slots=True)
class KafkaUnreachable:
    """Kafka cannot be reached to publish."""

    error: Exception


@dataclass(frozen=True, slots=True)
class KafkaReachable:
    """Kafka can be reached again; the outage lasted ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Rebalanced:
    """Partitions were assigned, revoked, or lost; ``dropped`` records go to the next owner."""

    kind: RebalanceKind
    partitions: Sequence[TopicPartition]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class PressureChanged:
    """Fetching of a partition paused or resumed, with the records and bytes in flight."""

    kind: PressureKind
    records: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Rewound:
    """A partition was delivered from ``offset`` on although ``committed`` is later. The records in
    between are skipped."""

    source: TopicPartition
    offset: int
    committed: int


@dataclass(frozen=True, slots=True)
class Distrusted:
    """A partition's ``committed`` offset belongs to a deleted topic of the same name. The partition
    was read from ``offset`` on, and is now read from its beginning."""

    source: TopicPartition
    offset: int | None
    committed: int | None


@dataclass(frozen=True, slots=True)
class SuspicionChanged:
    """``records`` of a partition, from ``offset`` on, became suspects or are no longer suspects.

    ``deaths`` is the highest number of proven deaths of one of them.
    """

    kind: SuspicionKind
    source: TopicPartition
    offset: int
    records: int
    deaths: int


# Dataclasses and one function to call with them. As methods of a listener, each event was declared
# four times: by the protocol, by a class that does nothing, by one that passes events on, and by
# the fake of the tests.
LoopEvent = (
    Publishing
    | TransactionEnded
    | Published
    | PublishFailed
    | BatchRefused
    | KafkaUnreachable
    | KafkaReachable
    | Rebalanced
    | PressureChanged
    | Rewound
    | Distrusted
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
