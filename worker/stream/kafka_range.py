"""Reading a range of a topic outside of any group: nothing is joined, nothing is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import StreamFailed
from worker.records.types import Record
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_promises import Property
from worker.stream.kafka_reach import reach
from worker.stream.kafka_types import client_log, to_record
from worker.stream.record_range import RecordRange

# What has no use, or a use in a group alone; the client warns of some of them.
_NOT_TAKEN = ("statistics.interval.ms", "partition.assignment.strategy", "group.instance.id")
_LATER = 1 << 62
# Whether a partition ends here is told when a fetch comes back empty, after 500 ms by default.
_FETCH_WAIT_MS = 20


def read_range(
    config: KafkaConfig, topic: str, record_range: RecordRange, limit: int
) -> list[Record]:
    """Return the committed records of a range, oldest first, and at most ``limit`` of them: its
    oldest (with ``last``: its newest).

    What comes in while it is read is left out. Raises StreamFailed.
    """
    reach(config)
    reasons: list[str] = []
    consumer = Consumer(
        reading_properties(config),
        error_cb=lambda error: reasons.append(str(error.str())),
        logger=client_log,
    )
    try:
        return _read(consumer, topic, record_range, limit, config.start_timeout_s)
    except KafkaException as error:
        said = reasons[-1] if reasons else error.args[0].str()
        raise StreamFailed(
            f"{topic} at {config.bootstrap_servers} cannot be read ({said}): check "
            "kafka.bootstrap_servers, kafka.security_protocol and the right to read the topic"
        ) from error
    finally:
        consumer.close()


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


def _read(
    consumer: Consumer, topic: str, record_range: RecordRange, limit: int, timeout_s: float
) -> list[Record]:
    if record_range.last is None:
        ranges, _ = _ranges(consumer, topic, record_range, timeout_s)
        since, until = record_range.since_ms or 0, record_range.until_ms or _LATER
        return _fetch(consumer, topic, ranges, limit, timeout_s, between=(since, until))[:limit]
    wanted = min(record_range.last, limit)
    reach = wanted
    while True:
        # Transaction markers and what was aborted are offsets without a record: reach further back.
        ranges, whole = _ranges(consumer, topic, replace(record_range, last=reach), timeout_s)
        found = _fetch(consumer, topic, ranges, reach, timeout_s)
        if whole or len(found) >= wanted:
            return found[-wanted:]
        reach *= 4


def _fetch(
    consumer: Consumer,
    topic: str,
    ranges: Mapping[int, tuple[int, int]],
    limit: int,
    timeout_s: float,
    *,
    between: tuple[int, int] = (0, _LATER),
) -> list[Record]:
    """Return what is in these ranges, oldest first, with timestamps ``between`` these two; a
    partition ends with its first record of the latter time or later.

    Of each partition at most its first ``limit``: no more of it can be among the oldest so many.
    """
    consumer.assign([KafkaPartition(topic, number, start) for number, (start, _) in ranges.items()])
    found: list[Record] = []
    open_ends = {number: stop for number, (_, stop) in ranges.items()}
    taken = Counter[int]()
    while open_ends:
        message = consumer.poll(timeout_s)
        if message is None:
            raise StreamFailed(f"{topic}: no answer from Kafka for {timeout_s:g} s while reading")
        partition = message.partition()
        assert partition is not None
        if (error := message.error()) is not None:
            if error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            open_ends.pop(partition, None)
            continue
        stop = open_ends.get(partition)
        if stop is None:
            continue
        record = to_record(message)
        at_ms = record.timestamp_ms or 0
        over = record.offset >= stop or at_ms >= between[1]
        if not over and at_ms >= between[0]:
            found.append(record)
            taken[partition] += 1
        if over or record.offset == stop - 1 or taken[partition] >= limit:
            del open_ends[partition]
            consumer.incremental_unassign([KafkaPartition(topic, partition)])
    return sorted(found, key=_age)


def _age(record: Record) -> tuple[int, int, int]:
    return record.timestamp_ms or 0, record.source.partition, record.offset


def _ranges(
    consumer: Consumer, topic: str, record_range: RecordRange, timeout_s: float
) -> tuple[dict[int, tuple[int, int]], bool]:
    """Return by partition the offset to begin at and the one to stop before, and whether that is
    all there is."""
    about = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    if about.error is not None:
        raise KafkaException(about.error)
    partitions = sorted(about.partitions)
    if record_range.offsets is not None:
        if strange := sorted(set(record_range.offsets) - set(partitions)):
            raise StreamFailed(
                f"{topic} has no partition {strange[0]}: it has {len(partitions)}, from 0"
            )
        partitions = sorted(record_range.offsets)
    ends = {
        number: consumer.get_watermark_offsets(KafkaPartition(topic, number), timeout=timeout_s)
        for number in partitions
    }
    # No record before it is of that time; what comes next may be a transaction marker, whose time
    # is the broker's, so records are looked at too.
    since = _at_time(consumer, topic, partitions, record_range.since_ms, timeout_s)
    ranges, whole = {}, True
    for number, (low, high) in ends.items():
        start, stop = low, high
        if record_range.offsets is not None:
            first, final = record_range.offsets[number]
            start, stop = max(low, first), min(high, _LATER if final is None else final + 1)
        elif record_range.last is not None:
            start = max(low, high - record_range.last)
        else:
            start = max(low, since.get(number, low))
        whole = whole and start == low
        if start < stop:
            ranges[number] = (start, stop)
    return ranges, whole


def _at_time(
    consumer: Consumer, topic: str, partitions: Sequence[int], at_ms: int | None, timeout_s: float
) -> dict[int, int]:
    """Return by partition the first offset whose record is of that time or later."""
    if at_ms is None:
        return {}
    asked = [KafkaPartition(topic, number, at_ms) for number in partitions]
    found = {}
    for partition in consumer.offsets_for_times(asked, timeout=timeout_s):
        if partition.error is not None:
            raise KafkaException(partition.error)
        offset = partition.offset
        found[partition.partition] = _LATER if offset == OFFSET_END else offset
    return found
