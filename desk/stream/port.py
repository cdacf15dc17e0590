"""The desk's three ports to Kafka, and their types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """The place of a record."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read. ``timestamp_ms`` is Unix time, None if it has none."""

    place: Place
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A correction or retraction to write, with its place in the outbox's order."""

    sequence: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """A partition's first offset, and the offset of its next record."""

    start: int
    end: int


class ResultSource(Protocol):
    """Reads committed records of the result topics, from given offsets. One thread."""

    def logs(self, topic: str) -> Mapping[int, Log]:
        """Return the offsets that each partition holds now. Raises KafkaAway, StreamFailed."""
        ...

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read only these partitions, each from its offset."""
        ...

    def poll(self, most: int, timeout_s: float) -> Sequence[Record]:
        """Return new records, in order within each partition. Raises StreamFailed."""
        ...

    def ends_met(self) -> Mapping[tuple[str, int], int]:
        """Return the ends of partitions that ``poll`` has reached since ``assign``.

        All records before an end were returned. It may lie behind the last record, because markers
        and aborted records have offsets too.
        """
        ...

    def close(self) -> None:
        """Free the client."""
        ...


class TextSource(Protocol):
    """Reads single records by place. One thread."""

    def fetch(self, places: Sequence[Place], timeout_s: float) -> Mapping[Place, Record | None]:
        """Return each place's record, None if it is gone. Places that were not read in time are
        left out. Raises KafkaAway, StreamFailed."""
        ...

    def close(self) -> None:
        """Free the client."""
        ...


class CorrectionSink(Protocol):
    """Writes records of the corrections topic and a mark in one transaction. One thread."""

    def start(self) -> int | None:
        """Abort and fence any other writer of this name; then return the mark, which is the last
        sequence number written. None if there is no mark.

        Raises KafkaAway, StreamFailed.
        """
        ...

    def last_written(self, since_ms: int) -> int | None:
        """Return the last sequence number in the topic since a time, for when the mark is gone.
        Raises KafkaAway, StreamFailed."""
        ...

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Write these records, and the last one's sequence number as the mark: all or nothing.

        After an error, ``start`` returns which of the two happened. Raises KafkaAway; Superseded if
        another process has started; StreamFailed.
        """
        ...

    def close(self) -> None:
        """Free the clients. The next ``start`` aborts an open transaction."""
        ...
