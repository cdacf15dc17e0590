"""Kafka in memory, for tests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from desk.errors import StreamFailed, Superseded
from desk.stream.port import Log, Outgoing, Place, Record


@dataclass
class FakeTopics:
    """The values of topics by partition. ``starts`` says how many of the first are gone."""

    values: dict[str, dict[int, list[bytes | None]]] = field(default_factory=dict)
    starts: dict[tuple[str, int], int] = field(default_factory=dict)

    def append(
        self, topic: str, *values: bytes | None, partition: int = 0, partitions: int = 1
    ) -> None:
        """Write records; a missing topic is created."""
        made = self.values.setdefault(topic, {n: [] for n in range(partitions)})
        made.setdefault(partition, []).extend(values)

    def logs(self, topic: str) -> Mapping[int, Log]:
        """See ``ResultSource``."""
        if topic not in self.values:
            raise StreamFailed(f"{topic}: there is no such topic")
        return {
            number: Log(self.starts.get((topic, number), 0), len(values))
            for number, values in self.values[topic].items()
        }

    def record(self, place: Place) -> Record | None:
        """Return the record at a place, None if it is gone."""
        log = self.logs(place.topic).get(place.partition)
        if log is None or not log.start <= place.offset < log.end:
            return None
        value = self.values[place.topic][place.partition][place.offset]
        return Record(place, b"key-%d" % place.offset, value, 1_770_000_000_000 + place.offset)


class FakeResults:
    """A ``ResultSource`` on topics in memory."""

    def __init__(self, topics: FakeTopics) -> None:
        self._topics = topics
        self._positions: dict[tuple[str, int], int] = {}

    def logs(self, topic: str) -> Mapping[int, Log]:
        """See ``ResultSource``."""
        return self._topics.logs(topic)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """See ``ResultSource``."""
        self._positions = dict(positions)

    def poll(self, most: int, timeout_s: float) -> Sequence[Record]:  # noqa: ARG002 - it never waits
        """See ``ResultSource``."""
        found: list[Record] = []
        for (topic, number), position in sorted(self._positions.items()):
            log = self._topics.logs(topic)[number]
            for offset in range(max(position, log.start), log.end):
                if len(found) < most:
                    record = self._topics.record(Place(topic, number, offset))
                    assert record is not None
                    found.append(record)
                    self._positions[topic, number] = offset + 1
        return found

    def ends_met(self) -> Mapping[tuple[str, int], int]:
        """See ``ResultSource``. Nothing but records stands in these."""
        return {}

    def close(self) -> None:
        """See ``ResultSource``."""


class FakeTexts:
    """A ``TextSource`` on topics in memory. ``asked`` lists the places that were requested."""

    def __init__(self, topics: FakeTopics) -> None:
        self._topics = topics
        self.asked: list[Place] = []

    def fetch(
        self,
        places: Sequence[Place],
        timeout_s: float,  # noqa: ARG002 - it never waits
    ) -> Mapping[Place, Record | None]:
        """See ``TextSource``."""
        self.asked += places
        return {place: self._topics.record(place) for place in places}

    def close(self) -> None:
        """See ``TextSource``."""


class FakeCorrections:
    """A ``CorrectionSink``. Several on one list fence each other, as producers of one name do."""

    def __init__(self, written: list[Outgoing]) -> None:
        self.written = written
        self._epoch = 0

    _epochs: dict[int, int] = defaultdict(int)  # noqa: RUF012 - shared by design

    def start(self) -> int | None:
        """See ``CorrectionSink``."""
        self._epochs[id(self.written)] += 1
        self._epoch = self._epochs[id(self.written)]
        return max((record.sequence for record in self.written), default=None)

    def last_written(self, since_ms: int) -> int | None:  # noqa: ARG002 - all is kept
        """See ``CorrectionSink``."""
        return max((record.sequence for record in self.written), default=None)

    def publish(self, records: Sequence[Outgoing]) -> None:
        """See ``CorrectionSink``."""
        if self._epoch != self._epochs[id(self.written)]:
            raise Superseded("another process of this desk publishes now")
        self.written.extend(records)

    def close(self) -> None:
        """See ``CorrectionSink``."""
