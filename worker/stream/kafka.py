"""Kafka through confluent-kafka: the consuming and the publishing side as one stream.

Each ``kafka_*`` module next to this one knows a part of the client; this one and all others know
only their own types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from worker.errors import PublishAborted, StreamFailed
from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_consumer import KafkaConsumer
from worker.stream.kafka_publish import KafkaPublisher
from worker.stream.port import AssignmentListener


class KafkaStream:
    """Consumer and producer of one worker. See ``worker.stream.port.Stream``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._consumer = KafkaConsumer(config)
        self._publisher = KafkaPublisher(config, self._consumer)
        self._closed = False

    def subscribe(self, listener: AssignmentListener) -> None:
        """Make the producer ready, then join the group. Raises StreamFailed."""
        try:
            self._publisher.ready(self._config.start_timeout_s)
        except PublishAborted as error:
            raise StreamFailed(
                f"the producer could not start within {self._config.start_timeout_s:g} s: {error}"
            ) from error
        self._consumer.subscribe(listener)

    def poll(
        self,
        max_records: int,
        timeout_s: float,
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        """Serve both clients and return what has arrived. Raises StreamFailed."""
        self._publisher.serve()
        return self._consumer.poll(
            max_records, timeout_s, max_bytes=max_bytes, stop_after=stop_after
        )

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop delivery of these partitions."""
        self._consumer.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Start delivery of these partitions again."""
        self._consumer.resume(partitions)

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Go on with a partition at an offset."""
        self._consumer.seek(source, offset)

    def publish(self, batch: Batch) -> None:
        """Publish a batch. Raises PublishAborted, OutputRefused, OutcomeUnknown, StreamFailed."""
        self._publisher.publish(batch)
        self._consumer.published(batch.next_offsets)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Resolve the transaction or the commit in doubt, then read what is committed."""
        self._publisher.resolve(self._config.publish_timeout_s)
        return self._consumer.committed(partitions)

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Read what the last owners of these partitions committed. Raises PublishAborted."""
        return self._consumer.read_committed(partitions)

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what the client's statistics last said, every ``statistics.interval.ms``."""
        return self._consumer.lag()

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the oldest waiting record's timestamp of each partition, as of the same time."""
        return self._consumer.oldest_ms()

    def close(self) -> None:
        """Leave the group without publishing anything more, and free both clients."""
        if self._closed:
            return
        self._closed = True
        self._publisher.close()
        self._consumer.close()
