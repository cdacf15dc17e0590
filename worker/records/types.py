"""The records and outcomes that the worker's packages exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

from worker.contract.errors import MessageRejected, RejectReason
from worker.contract.records import Headers, Retry, Stage, record_id
from worker.contract.scoring import Decision, ReviewReason


def content_bytes(key: bytes | None, value: bytes | None, headers: Headers) -> int:
    """Return the bytes of a record's key, value, and headers, without framing."""
    # Added up without a generator: this runs several times for each record.
    size_bytes = len(key or b"") + len(value or b"")
    for name, content in headers:
        size_bytes += len(name) + len(content or b"")
    return size_bytes


# A tuple, because it is the key of most of the loop's dictionaries: a dataclass would hash and
# compare in Python, a dozen times for each record.
class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


# Not frozen, like all that is made for each record: a frozen dataclass takes four times as long to
# make, and together they were a sixth of the loop's work.
@dataclass(slots=True)
class Record:
    """A consumed Kafka record.

    - ``source``, ``offset``: where it was read, for the commit.
    - ``timestamp_ms``: Unix time, None if the broker has none.
    - ``retry``: set for a record of the retry topic, which then has the headers and the timestamp
      of the input record. It contains the input record's place.
    - ``plain``: the value as JSON, if it was written with a registered schema.
    - ``damage``: why it cannot be read: the headers of a record of the retry topic, or a schema.
    - ``cluster``: the cluster's configured name, if there is one.
    """

    source: TopicPartition
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()
    timestamp_ms: int | None = None
    retry: Retry | None = None
    damage: MessageRejected | None = None
    cluster: str | None = None
    plain: bytes | None = None

    @property
    def content(self) -> bytes | None:
        """The value to decode. Raises MessageRejected."""
        if self.damage is not None:
            raise self.damage
        return self.value if self.plain is None else self.plain

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value, and headers, which count against the memory bound."""
        return content_bytes(self.key, self.value, self.headers)

    @property
    def origin(self) -> tuple[str, int, int]:
        """Topic, partition, and offset of the input record."""
        retry = self.retry
        if retry is None:
            return self.source.topic, self.source.partition, self.offset
        return retry.topic, retry.partition, retry.offset

    @property
    def origin_cluster(self) -> str | None:
        """The configured name of the input record's cluster, if there is one."""
        return self.cluster if self.retry is None else self.retry.cluster

    @property
    def id(self) -> str:
        """The id of this record's result. See ``record_id``."""
        return record_id(*self.origin, self.origin_cluster)


OutcomeKind = Literal["output", "review", "dead_letter", "forwarded", "skipped"]
"""All ways in which a record can end. All but the last write a record."""


@dataclass(slots=True)
class Timing:
    """Seconds in the queue and in the engine; in a cascade, also in each stage that answered."""

    queue_s: float
    engine_s: float
    stages_s: tuple[float, ...] = ()


@dataclass(slots=True)
class Classified:
    """A labelled record. ``review`` is empty if it does not need review."""

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
    """A record without a label. ``detail`` contains no message text."""

    reason: RejectReason
    stage: Stage
    detail: str
    attempts: int = 1
    kind: ClassVar[OutcomeKind] = "dead_letter"


@dataclass(frozen=True, slots=True)
class Tombstone:
    """An intended record without a value, which deletes its key.

    ``forwarded``: the output topic gets a tombstone with the same key.
    """

    forwarded: bool

    @property
    def kind(self) -> OutcomeKind:
        """Where it goes."""
        return "forwarded" if self.forwarded else "skipped"


@dataclass(frozen=True, slots=True)
class Postponed:
    """A record that goes to the retry topic, so that it has not ended yet.

    ``rejected``: its outcome without delayed retry. ``attempt``: the number of the next delayed
    attempt, from 1.
    """

    rejected: Rejected
    attempt: int
    kind: ClassVar[Literal["postponed"]] = "postponed"  # not one of OutcomeKind: it has not ended


Outcome = Classified | Rejected | Tombstone | Postponed


@dataclass(slots=True)
class Outgoing:
    """One record to produce."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size_bytes(self) -> int:
        """Bytes of key, value, and headers."""
        return content_bytes(self.key, self.value, self.headers)


@dataclass(frozen=True, slots=True)
class NextOffset:
    """The offset to commit with a batch: the next record to read.

    ``note`` is stored in its metadata, for the partition's next owner.
    """

    source: TopicPartition
    offset: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """A partition's committed offset and note; ``offset`` is None if nothing was committed.

    ``end``: the offset after the last record of the log, if known. ``topic_id``: the topic's id, if
    known: it differs if the topic was deleted and created again.
    """

    source: TopicPartition
    offset: int | None
    note: str = ""
    end: int | None = None
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Outputs and next offsets, published together or not at all."""

    outputs: Sequence[Outgoing]
    next_offsets: Sequence[NextOffset]
