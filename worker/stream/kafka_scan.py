"""Read topics from start to end in bounded memory, without joining a group.

Running workers are not affected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.common.schema_registry import RegistryAway
from worker.contract.errors import MessageRejected
from worker.errors import StreamFailed
from worker.records.types import NextOffset, Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig, Property
from worker.stream.kafka_reach import reach
from worker.stream.kafka_types import (
    client_log,
    describe,
    is_unreachable,
    to_kafka_offsets,
    to_kafka_partitions,
    to_record,
    to_source,
    without_errors,
)

_BATCH = 1000
_WAIT_S = 0.1
_AGAIN_S = 0.2
# Longer than the timeout of a transaction that a dead worker left open, by default 15 s.
_OPEN_TRANSACTION_S = 60.0

# Useless outside of a group; the client warns about some of them.
_NOT_TAKEN = ("statistics.interval.ms", "partition.assignment.strategy", "group.instance.id")
# The client reports the end of a partition after an empty fetch, which waits 500 ms by default.
_FETCH_WAIT_MS = 20

_T = TypeVar("_T")


def reading_properties(config: KafkaConfig) -> dict[str, Property]:
    """Return the properties of a client that reads committed records and joins no group."""
    properties = {name: value for name, value in config.consumer.items() if name not in _NOT_TAKEN}
    return {
        "fetch.wait.max.ms": _FETCH_WAIT_MS,
        **properties,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        # The client needs a group.id and may look up its coordinator. The workers' own is used,
        # because the user has rights for it. Partitions are assigned manually: it never joins.
        "group.protocol": "classic",
        "enable.auto.commit": False,
    }


@dataclass(frozen=True, slots=True)
class LogSpan:
    """A partition's first offset, and the offset of its next record."""

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
        # Its ends of logs include open transactions: the group may know of a commit before the
        # output topics do.
        self._written = self._client("read_uncommitted")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._committed.close()
        self._written.close()

    def spans(self, topic: str) -> dict[TopicPartition, LogSpan]:
        """Return the current start and end of each partition's log."""
        timeout_s = self._config.start_timeout_s

        def ask() -> dict[TopicPartition, LogSpan]:
            # This client reads the topic later. It learns of it now, otherwise once a second.
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
        """Return the configured group's committed offsets. Partitions without one are left out."""
        found = self._ask_committed(to_kafka_partitions(partitions))
        return {to_source(each): each.offset for each in found if each.offset >= 0}

    def group_metadata(self) -> Any:
        """Return the metadata for committing the configured group's offsets in a transaction. The
        group must not have members."""
        return self._committed.consumer_group_metadata()

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException."""
        self._committed.commit(offsets=to_kafka_offsets(next_offsets), asynchronous=False)

    def commit_again(self) -> None:
        """Do nothing: publishing with a scanner always uses transactions."""

    def read_note(self, topic: str) -> str | None:
        """Return the text that ``write_note`` stored with the group, if any."""
        (found,) = self._ask_committed([KafkaPartition(topic, 0)])
        return found.metadata if found.offset >= 0 else None

    def write_note(self, topic: str, text: str) -> None:
        """Store a text with the group, as the metadata of an offset of a topic that the group does
        not read."""
        noted = KafkaPartition(topic, 0, 0, text)
        self._ask(
            "the group's offsets",
            lambda: self._committed.commit(offsets=[noted], asynchronous=False),
        )

    def at_time(
        self, partitions: Sequence[TopicPartition], at_ms: int
    ) -> dict[TopicPartition, int]:
        """Return each partition's first offset with a timestamp of at least ``at_ms`` (Unix time).
        Partitions without one are left out."""
        asked = [KafkaPartition(source.topic, source.partition, at_ms) for source in partitions]
        timeout_s = self._config.start_timeout_s
        found = self._ask(
            "the time's offsets",
            lambda: without_errors(self._written.offsets_for_times(asked, timeout=timeout_s)),
        )
        return {to_source(each): each.offset for each in found if each.offset != OFFSET_END}

    def records(self, ranges: Mapping[TopicPartition, tuple[int, int]]) -> Iterator[Record]:
        """Yield the committed records of each range (start, stop); ordered within a partition.

        Waits for transactions that are open before a stop.
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
                    yield self._read(to_record(message, self._config.cluster))
                    moved = time.monotonic()
                # The end of the partition is reported with the offset of the next record.
                if offset >= stop or (error is None and offset == stop - 1):
                    del stops[source]
                    client.incremental_unassign([KafkaPartition(topic, number)])
                    moved = time.monotonic()
            if time.monotonic() - moved > self._patience_s:
                raise self._stuck(stops)
        client.unassign()

    def _read(self, record: Record) -> Record:
        """Look up the schema of a record's value, if it has one."""
        if self._config.registry is not None:
            try:
                record.plain = self._config.registry.look_up(
                    record.source.topic, record.value, record.headers
                )
            except MessageRejected as error:
                record.damage = error
            except RegistryAway as error:
                raise StreamFailed(str(error)) from error
        return record

    @property
    def _patience_s(self) -> float:
        return max(self._config.start_timeout_s, _OPEN_TRANSACTION_S)

    def _stuck(self, stops: Mapping[TopicPartition, int]) -> StreamFailed:
        source, stop = next(iter(stops.items()))
        said = f" ({self._reasons[-1]})" if self._reasons else ""
        return StreamFailed(
            f"{source.topic}, partition {source.partition}: cannot be read up to offset {stop} "
            f"within {self._patience_s:g} s{said}: Kafka does not answer, or a transaction stays "
            "open (see kafka-transactions.sh find-hanging)"
        )

    def _ask_committed(self, asked: list[KafkaPartition]) -> Sequence[KafkaPartition]:
        timeout_s = self._config.start_timeout_s
        return self._ask(
            "the group's offsets",
            lambda: without_errors(self._committed.committed(asked, timeout=timeout_s)),
        )

    def _ask(self, what: str, ask: Callable[[], _T]) -> _T:
        """Call ``ask``, and again while its error will pass.

        For a moment a new topic has no leader, and a new group has no coordinator.
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
