"""Reading topics from end to end outside of any group, in bounded memory.

Nothing is joined and nothing is committed, so running workers are not affected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import StreamFailed
from worker.records.types import NextOffset, Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig, Property
from worker.stream.kafka_reach import reach
from worker.stream.kafka_types import (
    client_log,
    describe,
    is_unreachable,
    to_kafka_offsets,
    to_record,
)

_BATCH = 1000
_WAIT_S = 0.1
_AGAIN_S = 0.2
_OPEN_TRANSACTION_S = 60.0
"""A transaction that a dead worker left open ends after its own timeout, by default 15 s."""

# What has no use, or a use in a group alone; the client warns of some of them.
_NOT_TAKEN = ("statistics.interval.ms", "partition.assignment.strategy", "group.instance.id")
# Whether a partition ends here is told when a fetch comes back empty, after 500 ms by default.
_FETCH_WAIT_MS = 20

_T = TypeVar("_T")


def reading_properties(config: KafkaConfig) -> dict[str, Property]:
    """Return the properties of a client that reads what is committed, and joins no group."""
    properties = {name: value for name, value in config.consumer.items() if name not in _NOT_TAKEN}
    return {
        "fetch.wait.max.ms": _FETCH_WAIT_MS,
        **properties,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # The client wants a group.id and may ask for its coordinator: the workers' own, for
        # which there are rights. Partitions are assigned here, so it is never joined.
        "group.protocol": "classic",
        "enable.auto.commit": False,
    }


@dataclass(frozen=True, slots=True)
class LogSpan:
    """A partition's log: its first offset, and the one that the next record gets."""

    start: int
    end: int


class TopicScanner:
    """Reads topics; a context manager. All methods raise StreamFailed."""

    def __init__(self, config: KafkaConfig) -> None:
        reach(config)
        self._config = config
        self.cluster = config.cluster
        self._reasons: list[str] = []
        self._committed = self._client("read_committed")
        # Its ends of logs are those of what was written, also in transactions that are still open:
        # a commit may be known to the group before it is to the topics that are written to.
        self._written = self._client("read_uncommitted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._committed.close()
        self._written.close()

    def spans(self, topic: str) -> dict[TopicPartition, LogSpan]:
        """Return where the log of each partition begins and ends now."""
        timeout_s = self._config.start_timeout_s

        def ask() -> dict[TopicPartition, LogSpan]:
            # The client that reads learns of the topic here, and else once a second.
            about = self._committed.list_topics(topic, timeout=timeout_s).topics[topic]
            if about.error is not None:
                raise KafkaException(about.error)
            return {
                TopicPartition(topic, number): LogSpan(
                    *self._written.get_watermark_offsets(
                        KafkaPartition(topic, number), timeout=timeout_s
                    )
                )
                for number in sorted(about.partitions)
            }

        return self._ask(topic, ask)

    def committed(self, partitions: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the committed offsets of the group that the configuration names; partitions
        without one are left out."""
        asked = [KafkaPartition(source.topic, source.partition) for source in partitions]

        def ask() -> dict[TopicPartition, int]:
            found = self._committed.committed(asked, timeout=self._config.start_timeout_s)
            for partition in found:
                if partition.error is not None:
                    raise KafkaException(partition.error)
            return {
                TopicPartition(partition.topic, partition.partition): partition.offset
                for partition in found
                if partition.offset >= 0
            }

        return self._ask("the group's offsets", ask)

    def group_metadata(self) -> Any:
        """Return what a transaction needs to commit offsets of the configuration's group, of which
        nobody is a member."""
        return self._committed.consumer_group_metadata()

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException."""
        self._committed.commit(offsets=to_kafka_offsets(next_offsets), asynchronous=False)

    def commit_again(self) -> None:
        """Do nothing: anyone who publishes with a scanner does so in transactions."""

    def read_note(self, topic: str) -> str | None:
        """Return what ``write_note`` left with the group, None where there is nothing."""

        def ask() -> str | None:
            asked = [KafkaPartition(topic, 0)]
            (found,) = self._committed.committed(asked, timeout=self._config.start_timeout_s)
            if found.error is not None:
                raise KafkaException(found.error)
            return found.metadata if found.offset >= 0 else None

        return self._ask("the group's offsets", ask)

    def write_note(self, topic: str, text: str) -> None:
        """Leave a text with the group: as the metadata of an offset of a topic it does not read."""
        noted = KafkaPartition(topic, 0, 0, text)
        self._ask(
            "the group's offsets",
            lambda: self._committed.commit(offsets=[noted], asynchronous=False),
        )

    def at_time(
        self, partitions: Sequence[TopicPartition], at_ms: int
    ) -> dict[TopicPartition, int]:
        """Return the first offset with a timestamp of ``at_ms`` (Unix time) or later; partitions
        without one are left out."""
        asked = [KafkaPartition(source.topic, source.partition, at_ms) for source in partitions]

        def ask() -> dict[TopicPartition, int]:
            found = {}
            timeout_s = self._config.start_timeout_s
            for partition in self._written.offsets_for_times(asked, timeout=timeout_s):
                if partition.error is not None:
                    raise KafkaException(partition.error)
                if partition.offset != OFFSET_END:
                    source = TopicPartition(partition.topic, partition.partition)
                    found[source] = partition.offset
            return found

        return self._ask("the time's offsets", ask)

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
        """Yield the committed records from each start to before each stop; those of one partition
        in the order of its log.

        Where a transaction is still open before a stop, its end is waited for.
        """
        stops = {source: stop for source, (start, stop) in ranges.items() if start < stop}
        client = self._committed
        client.assign(
            [KafkaPartition(source.topic, source.partition, ranges[source][0]) for source in stops]
        )
        moved = time.monotonic()
        while stops:
            messages = client.consume(_BATCH, _WAIT_S)
            for message in messages:
                topic, number, offset = message.topic(), message.partition(), message.offset()
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise self._failed(str(topic), error)
                assert topic is not None
                assert number is not None
                assert offset is not None
                source = TopicPartition(topic, number)
                stop = stops.get(source)
                if stop is None:
                    continue
                if error is None and offset < stop:
                    yield to_record(message, self._config.cluster)
                    moved = time.monotonic()
                # An end of what is committed is told with the offset that comes next.
                if offset >= stop or (error is None and offset == stop - 1):
                    del stops[source]
                    client.incremental_unassign([KafkaPartition(topic, number)])
                    moved = time.monotonic()
            if time.monotonic() - moved > self._patience_s:
                raise self._stuck(stops)
        client.unassign()

    @property
    def _patience_s(self) -> float:
        return max(self._config.start_timeout_s, _OPEN_TRANSACTION_S)

    def _stuck(self, stops: Mapping[TopicPartition, int]) -> StreamFailed:
        source, stop = next(iter(stops.items()))
        said = f" ({self._reasons[-1]})" if self._reasons else ""
        return StreamFailed(
            f"{source.topic}, partition {source.partition}: cannot be read up to offset {stop} "
            f"within {self._patience_s:g} s{said}: Kafka does not answer, or a transaction on it "
            "stays open (kafka-transactions.sh find-hanging)"
        )

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        """Ask, and again while the answer is one that passes.

        For a moment a new topic has no leader and a new group no coordinator.
        """
        until = time.monotonic() + self._config.start_timeout_s
        while True:
            try:
                return ask()
            except KafkaException as error:
                if not is_unreachable(error.args[0]) or time.monotonic() >= until:
                    raise self._failed(what, error.args[0]) from error
                time.sleep(_AGAIN_S)

    def _failed(self, what: str, error: KafkaError) -> StreamFailed:
        said = self._reasons[-1] if self._reasons else describe(error)
        return StreamFailed(
            f"{what} at {self._config.bootstrap_servers} cannot be read ({said}): check "
            "kafka.bootstrap_servers, kafka.security_protocol and the rights to read the topics "
            "and to describe the group"
        )

    def _client(self, isolation: str) -> Consumer:
        return Consumer(
            {**reading_properties(self._config), "isolation.level": isolation},
            error_cb=lambda error: self._reasons.append(str(error.str())),
            logger=client_log,
        )
