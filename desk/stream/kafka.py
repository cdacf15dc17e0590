"""The real Kafka, behind the three ports. Everything runs on the caller's thread."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from confluent_kafka import (
    OFFSET_END,
    OFFSET_INVALID,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)

from desk.errors import DeskError, KafkaAway, StreamFailed
from desk.stream.config import ANSWER_S, PUBLISH_S, KafkaConfig
from desk.stream.kafka_client import (
    client_log,
    consumer,
    ensure_topic,
    is_end,
    is_record,
    on_error,
    place_of_end,
    read_logs,
    to_record,
    told_as,
    translate,
    until_answered,
)
from desk.stream.port import Log, Outgoing, Place, Record

SEQUENCE_HEADER = "clerk.desk.sequence"
NAME_HEADER = "clerk.desk.name"

# Records between two that are wanted: reading through them is cheaper than a seek.
_READ_THROUGH = 200


class KafkaResults:
    """A ``ResultSource``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client = consumer(config, **{"enable.partition.eof": True})
        self._ends: dict[tuple[str, int], int] = {}

    def logs(self, topic: str) -> Mapping[int, Log]:
        """See ``ResultSource``."""
        return read_logs(self._client, topic, ANSWER_S)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """See ``ResultSource``."""
        self._ends = {}
        self._client.assign(
            [TopicPartition(*partition, offset) for partition, offset in positions.items()]
        )

    def poll(self, most: int, timeout_s: float) -> Sequence[Record]:
        """See ``ResultSource``."""
        with told_as(self._config):
            messages = self._client.consume(most, timeout_s)
        self._ends |= dict(map(place_of_end, filter(is_end, messages)))
        return [to_record(message) for message in messages if is_record(message)]

    def ends_met(self) -> Mapping[tuple[str, int], int]:
        """See ``ResultSource``."""
        return self._ends

    def close(self) -> None:
        """See ``ResultSource``."""
        self._client.close()


class KafkaTexts:
    """A ``TextSource``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client = consumer(config)

    def fetch(self, places: Sequence[Place], timeout_s: float) -> Mapping[Place, Record | None]:
        """See ``TextSource``."""
        until = time.monotonic() + timeout_s
        found: dict[Place, Record | None] = {}
        for (topic, partition), some in groupby(
            sorted(set(places)), key=lambda place: (place.topic, place.partition)
        ):
            wanted = list(some)
            try:
                log = read_logs(self._client, topic, ANSWER_S).get(partition)
            except StreamFailed:  # the topic is gone, and all that was in it
                log = None
            if log is None:
                found |= dict.fromkeys(wanted)
                continue
            there = [place for place in wanted if log.start <= place.offset < log.end]
            found |= dict.fromkeys(place for place in wanted if place not in set(there))
            found |= self._read(topic, partition, there, until)
        return found

    def close(self) -> None:
        """See ``TextSource``."""
        self._client.close()

    def _read(
        self, topic: str, partition: int, wanted: list[Place], until: float
    ) -> dict[Place, Record | None]:
        """Read places of one partition, in the order of their offsets."""
        found: dict[Place, Record | None] = {}
        at = -1  # nothing is assigned
        with told_as(self._config):
            while wanted and time.monotonic() < until:
                offset = wanted[0].offset
                if at < 0 or offset - at > _READ_THROUGH:
                    self._client.assign([TopicPartition(topic, partition, offset)])
                    at = offset
                for message in self._client.consume(_READ_THROUGH, 0.2):
                    if not is_record(message):
                        continue
                    record = to_record(message)
                    at = record.place.offset + 1
                    # What lies before what came is no longer there: compacted, or deleted.
                    while wanted and wanted[0].offset < record.place.offset:
                        found[wanted.pop(0)] = None
                    if wanted and wanted[0] == record.place:
                        found[wanted.pop(0)] = record
        return found


class KafkaCorrections:
    """A ``CorrectionSink``: a transactional producer, and a consumer group nobody is a member of.

    The group's offset of the corrections topic's partition 0 is the last sequence number that was
    written. It is committed in the transaction of the records, so it is true or they are not there.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._mark = consumer(config)
        self._producer: Producer | None = None
        self._refused: list[KafkaError] = []
        self._fatal: KafkaError | None = None

    def start(self) -> int | None:
        """See ``CorrectionSink``."""
        self._forget_producer()
        self._fatal = None
        ensure_topic(self._config)
        timeout_s = ANSWER_S
        with told_as(self._config):
            client = Producer(dict(self._config.producer), error_cb=self._heard, logger=client_log)
            # Ends whatever the last holder of the name left open, and fences it.
            until_answered(client.init_transactions, timeout_s)
            (found,) = self._mark.committed(
                [TopicPartition(self._config.corrections_topic, 0)], timeout=timeout_s
            )
            if found.error is not None:
                raise KafkaException(found.error)
        self._producer = client
        return None if found.offset == OFFSET_INVALID else int(found.offset)

    def last_written(self, since_ms: int) -> int | None:
        """See ``CorrectionSink``."""
        topic, timeout_s = self._config.corrections_topic, ANSWER_S
        client = consumer(self._config, **{"enable.partition.eof": True})
        last = None
        try:
            with told_as(self._config):
                logs = read_logs(client, topic, timeout_s)
                asked = [TopicPartition(topic, number, since_ms) for number in logs]
                starts = client.offsets_for_times(asked, timeout=timeout_s)
                reading = [each for each in starts if each.offset not in {OFFSET_END, -1}]
                client.assign(reading)
                left = len(reading)
                until = time.monotonic() + 10 * timeout_s
                while left:
                    if time.monotonic() > until:
                        raise KafkaAway(f"{topic} cannot be read to its end")
                    for message in client.consume(1000, 0.2):
                        if is_end(message):
                            left -= 1
                        elif is_record(message):
                            last = max(last or 0, self._sequence_of(message)) or last
        finally:
            client.close()
        return last

    def publish(self, records: Sequence[Outgoing]) -> None:
        """See ``CorrectionSink``."""
        client, topic = self._producer, self._config.corrections_topic
        if client is None:
            raise KafkaAway("the producer has not been started")
        mark = [TopicPartition(topic, 0, records[-1].sequence)]
        timeout_s = PUBLISH_S
        self._refused = []
        try:
            with told_as(self._config):
                client.begin_transaction()
                for record in records:
                    client.produce(
                        topic,
                        record.value,
                        record.key,
                        headers=[
                            (SEQUENCE_HEADER, str(record.sequence).encode()),
                            (NAME_HEADER, self._config.name.encode()),
                        ],
                        on_delivery=self._delivered,
                    )
                left = client.flush(timeout_s)
                if self._refused:
                    raise KafkaException(self._refused[0])
                if left:
                    raise KafkaAway("corrections were not taken in time")
                group = self._mark.consumer_group_metadata()
                until_answered(
                    lambda s: client.send_offsets_to_transaction(mark, group, s), timeout_s
                )
                until_answered(client.commit_transaction, timeout_s)
        except DeskError:
            self._forget_producer()
            raise
        except SystemError as error:
            # The client (2.16) can lose the exception of a callback: what was fatal was heard.
            self._forget_producer()
            if self._fatal is not None:
                raise translate(self._fatal, self._config.bootstrap_servers) from error
            raise KafkaAway("the client has failed within a call, and does not say why") from error

    def close(self) -> None:
        """See ``CorrectionSink``."""
        self._forget_producer()
        self._mark.close()

    def _heard(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        on_error(error)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused.append(error)

    def _forget_producer(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _sequence_of(self, message: Message) -> int:
        headers: dict[str, Any] = dict(message.headers() or [])
        if headers.get(NAME_HEADER) != self._config.name.encode():
            return 0  # another desk's, or somebody else's
        return int(headers.get(SEQUENCE_HEADER) or 0)
