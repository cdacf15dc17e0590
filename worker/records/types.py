"""The records and outcomes that cross the worker's inner boundaries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from worker.contract.errors import RejectReason
from worker.contract.records import Headers, Retry, Stage, record_id
from worker.contract.scoring import Decision, ReviewReason


def content_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the size of what a record carries, in bytes, without the framing around it."""
    size_bytes = len(key or b"") + len(value or b"")
    for name, content in headers:
        size_bytes += len(name) + len(content or b"")
    return size_bytes


@dataclass(frozen=True, slots=True)
class TopicPartition:
    """One partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it came; ``timestamp_ms`` is Unix time, None if the broker has none.

    ``source`` and ``offset`` are where it was read, and what is committed. One that was read from
    the retry topic has the headers and the timestamp that it had in the input topic, and ``retry``
    says where that was; or, where its headers cannot be read, ``damage`` says what is wrong.
    ``cluster`` is the Kafka cluster's name, where the settings give it one.
    """

    source: TopicPartition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    retry: Retry | None = None
    damage: str | None = None
    cluster: str | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers, as the bounds on memory count them."""
        return content_bytes(self.key, self.value, self.headers)

    @property
    def origin(self) -> tuple[str, int, int]:
        """Topic, partition and offset of the input record: where this one was read first."""
        retry = self.retry
        if retry is None:
            return self.source.topic, self.source.partition, self.offset
        return retry.topic, retry.partition, retry.offset

    @property
    def origin_cluster(self) -> str | None:
        """Name of the cluster in which the input record was read first, where it is known."""
        return self.cluster if self.retry is None else self.retry.cluster

    @property
    def id(self) -> str:
        """The id of whatever is made of this record. See ``record_id``."""
        return record_id(*self.origin, self.origin_cluster)


OutcomeKind = Literal["output", "review", "dead_letter", "forwarded", "skipped"]
"""Every way in which a record can end. All but the last are the record of a topic."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds a record spent waiting for the engine's turn and in the engine; of a cascade also
    in each stage that was asked."""

    queue_s: float
    engine_s: float
    stages_s: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Classified:
    """A record with its label; ``review`` is empty when nobody needs to look at it."""

    decision: Decision
    message_id: str | None
    truncated: bool
    review: tuple[ReviewReason, ...]
    timing: Timing

    @property
    def kind(self) -> OutcomeKind:
        """Where it goes."""
        return "review" if self.review else "output"


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that gets no label. ``detail`` holds no message text."""

    reason: RejectReason
    stage: Stage
    detail: str
    attempts: int = 1

    @property
    def kind(self) -> OutcomeKind:
        """Where it goes."""
        return "dead_letter"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A record without a value that is no mistake: it deletes what its key stood for.

    ``forwarded``: the results' topic gets one as well, under the same key.
    """

    forwarded: bool

    @property
    def kind(self) -> OutcomeKind:
        """Where it goes."""
        return "forwarded" if self.forwarded else "skipped"


@dataclass(frozen=True, slots=True)
class Postponed:
    """A record that goes to the retry topic: it has not ended yet.

    ``rejected`` is how it would have ended, ``attempt`` which of the delayed attempts comes next,
    from 1.
    """

    rejected: Rejected
    attempt: int

    @property
    def kind(self) -> Literal["postponed"]:
        """Where it goes; none of the ways in which a record ends."""
        return "postponed"


Outcome = Classified | Rejected | Tombstone | Postponed


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value and headers."""
        return content_bytes(self.key, self.value, self.headers)


@dataclass(frozen=True, slots=True)
class NextOffset:
    """The offset from which a partition is read after a batch is published.

    ``note`` is kept next to it, for anyone who reads the partition next.
    """

    source: TopicPartition
    offset: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """Where a partition's last owner left it; ``offset`` is None where nothing was committed.

    ``end`` is that of its log as far as it is known: the offset after its last record.
    """

    source: TopicPartition
    offset: int | None
    note: str = ""
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Outputs and the offsets that account for them: published in one step, or not at all."""

    outputs: Sequence[Outgoing]
    next_offsets: Sequence[NextOffset]
