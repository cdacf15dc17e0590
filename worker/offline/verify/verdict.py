"""What the judge takes in and what it says: places, results, faults, the verdict. Pure data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from worker.contract.records import record_id
from worker.records.types import TopicPartition

Fault = Literal["missing", "twice", "out_of_order", "foreign", "unreadable", "unknown_adapter"]
"""What contradicts the guarantees; see docs/guarantees.md."""

FAULTS: tuple[Fault, ...] = get_args(Fault)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result was read."""

    partition: TopicPartition
    offset: int

    def __str__(self) -> str:
        return record_id(self.partition.topic, self.partition.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Result:
    """What the judge needs to know of a result: the input record that it is for, by which adapter
    (a digest) in which precision (None for a dead letter), in which replay (an id; None for the
    first run), and where it was read."""

    source: TopicPartition
    offset: int
    adapter_digest: str
    replay: str | None
    place: Place
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsBy:
    """How many results an adapter (a digest) made in one precision (None: its dead letters)."""

    digest: str
    precision: str | None
    results: int


@dataclass(frozen=True, slots=True)
class RetryRecord:
    """What the judge needs to know of a record of the retry topic: the input record that it is for,
    which delayed attempt at it, whether it ``waits`` (the group has not committed it), and where it
    was read."""

    source: TopicPartition
    offset: int
    attempt: int
    waits: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Offender:
    """One fault: the id of the input record (None where it has none), where the result is (None
    where there is none), and what is wrong with it in words. No message text."""

    fault: Fault
    id: str | None
    place: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of an input partition: those from ``start`` to before ``stop`` are judged; nothing
    is at ``end`` or later, so a result that claims to be is foreign."""

    start: int
    stop: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How input and results compare. Counts are of records.

    ``results`` and ``by_topic`` count all that was read. ``replayed`` are results of replays,
    ``repeated`` those beyond the first where that is allowed.
    ``outside`` are results for input records that are not judged: before the range, after it, or
    deleted since; ``compacted`` those for offsets that a compacted topic no longer has.
    ``adapters`` counts the judged results by adapter and precision. ``retries`` counts the
    records of the retry topic, ``waiting`` the input records that have no result because they wait
    there.
    """

    inputs: int
    results: int
    by_topic: Mapping[str, int]
    replayed: int
    repeated: int
    outside: int
    compacted: int
    adapters: tuple[ResultsBy, ...]
    faults: Mapping[Fault, int]
    offenders: tuple[Offender, ...]
    memory_bytes: int
    retries: int = 0
    waiting: int = 0

    @property
    def is_proven(self) -> bool:
        """Whether nothing contradicts the guarantees."""
        return not any(self.faults.values())
