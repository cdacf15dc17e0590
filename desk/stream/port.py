"""What the desk needs of Kafka: three small ports, and what goes through them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Record:
    """A record that was read. ``timestamp_ms`` is Unix time, None where it has none."""

    place: Place
    key: bytes | None
    value: bytes | None
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A correction to be written, with its place in the outbox's order."""

    sequence: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Log:
    """What a partition holds: its first offset, and the one that the next record gets."""

    start: int
    end: int


class ResultSource(Protocol):
    """Reads topics of results, committed records alone, from where it is told. One thread."""

    def logs(self, topic: str) -> Mapping[int, Log]:
        """Return what each partition holds now. Raises KafkaAway, StreamFailed."""
        ...

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """Read these partitions, each from this offset on, and nothing else."""
        ...

    def poll(self, most: int, timeout_s: float) -> Sequence[Record]:
        """Return records that came, in the order of each partition. Raises StreamFailed."""
        ...

    def ends_met(self) -> Mapping[tuple[str, int], int]:
        """Return where ``poll`` met the end of partitions since they were assigned: all records
        before it came, and behind the last one may be what is not a record (a marker, aborted
        records)."""
        ...

    def close(self) -> None:
        """Free the client."""
        ...


class TextSource(Protocol):
    """Reads single records by their places. One thread."""

    def fetch(self, places: Sequence[Place], timeout_s: float) -> Mapping[Place, Record | None]:
        """Return each record, None for one that is not there any more; what was not answered in
        time is left out. Raises KafkaAway, StreamFailed."""
        ...

    def close(self) -> None:
        """Free the client."""
        ...


class CorrectionSink(Protocol):
    """Writes corrections, with a mark of how far it is, in one transaction. One thread."""

    def start(self) -> int | None:
        """End what anybody else was writing under this name and keep them from writing more; then
        return the last sequence number that was written, None where no mark is found.

        Raises KafkaAway, StreamFailed.
        """
        ...

    def last_written(self, since_ms: int) -> int | None:
        """Return the last sequence number in the topic itself, of records that were written since
        a time: for where the mark is gone. Raises KafkaAway, StreamFailed."""
        ...

    def publish(self, records: Sequence[Outgoing]) -> None:
        """Write these records, and the last one's sequence number as the mark: all or nothing.

        After an error ``start`` says which it was. Raises KafkaAway; Superseded where another
        process has started; StreamFailed.
        """
        ...

    def close(self) -> None:
        """Free the clients; a transaction that is open is aborted by the next start."""
        ...
