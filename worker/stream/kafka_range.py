"""Reading a stretch of a topic outside of any group: nothing is joined, nothing is committed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import StreamFailed
from worker.records.types import Record
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_types import client_log, to_record

# What has no use, or a use in a group alone; the client warns of some of them.
_NOT_TAKEN = ("statistics.interval.ms", "partition.assignment.strategy", "group.instance.id")
_LATER = 1 << 62


@dataclass(frozen=True, slots=True)
class RecordRange:
    """Which records of a topic: by one of these.

    ``last`` the newest so many over all partitions; ``since_ms`` and ``until_ms`` (Unix time, the
    latter not included) those with timestamps in between; ``offsets`` by partition the first and
    the last offset, both included, None for as far as it goes.
    """

    last: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    offsets: Mapping[int, tuple[int, int | None]] | None = None


def read_stretch(config: KafkaConfig, topic: str, stretch: RecordRange, most: int) -> list[Record]:
    """Return the committed records of a stretch, oldest first, and at most so many of its oldest
    (with ``last``: of the newest).

    What comes in while it is read is left out. Raises StreamFailed.
    """
    properties = {key: one for key, one in config.consumer.items() if key not in _NOT_TAKEN}
    reasons: list[str] = []
    consumer = Consumer(
        {
            **properties,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            # The client wants a group.id and may ask for its coordinator: the workers' own, for
            # which there are rights. Partitions are assigned here, so it is never joined.
            "group.protocol": "classic",
            "enable.auto.commit": False,
        },
        error_cb=lambda error: reasons.append(str(error.str())),
        logger=client_log,
    )
    try:
        return _read(consumer, topic, stretch, most, config.start_timeout_s)
    except KafkaException as error:
        said = reasons[-1] if reasons else error.args[0].str()
        raise StreamFailed(
            f"{topic} at {config.bootstrap_servers} cannot be read ({said}): check "
            "kafka.bootstrap_servers, kafka.security_protocol and the right to read the topic"
        ) from error
    finally:
        consumer.close()


def _read(
    consumer: Consumer, topic: str, stretch: RecordRange, most: int, timeout_s: float
) -> list[Record]:
    if stretch.last is None:
        ranges, _ = _ranges(consumer, topic, stretch, timeout_s)
        since, until = stretch.since_ms or 0, stretch.until_ms or _LATER
        return _fetch(consumer, topic, ranges, most, timeout_s, between=(since, until))[:most]
    wanted = min(stretch.last, most)
    reach = wanted
    while True:
        # Transaction markers and what was aborted are offsets without a record: reach further back.
        ranges, whole = _ranges(consumer, topic, replace(stretch, last=reach), timeout_s)
        found = _fetch(consumer, topic, ranges, reach, timeout_s)
        if whole or len(found) >= wanted:
            return found[-wanted:]
        reach *= 4


def _fetch(
    consumer: Consumer,
    topic: str,
    ranges: Mapping[int, tuple[int, int]],
    most: int,
    timeout_s: float,
    *,
    between: tuple[int, int] = (0, _LATER),
) -> list[Record]:
    """Return what is in these ranges, oldest first, with timestamps ``between`` these two; a
    partition ends with its first record of the latter time or later.

    Of each partition at most its first ``most``: no more of it can be among the oldest so many.
    """
    consumer.assign([KafkaPartition(topic, one, start) for one, (start, _) in ranges.items()])
    found: list[Record] = []
    open_ends, taken = {one: stop for one, (_, stop) in ranges.items()}, Counter[int]()
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
        if over or record.offset == stop - 1 or taken[partition] >= most:
            del open_ends[partition]
            consumer.incremental_unassign([KafkaPartition(topic, partition)])
    return sorted(found, key=lambda one: (one.timestamp_ms or 0, one.source.partition, one.offset))


def _ranges(
    consumer: Consumer, topic: str, stretch: RecordRange, timeout_s: float
) -> tuple[dict[int, tuple[int, int]], bool]:
    """Return by partition the offset to begin at and the one to stop before, and whether that is
    all there is."""
    about = consumer.list_topics(topic, timeout=timeout_s).topics[topic]
    if about.error is not None:
        raise KafkaException(about.error)
    partitions = sorted(about.partitions)
    if stretch.offsets is not None:
        if strange := sorted(set(stretch.offsets) - set(partitions)):
            raise StreamFailed(
                f"{topic} has no partition {strange[0]}: it has {len(partitions)}, from 0"
            )
        partitions = sorted(stretch.offsets)
    ends = {
        one: consumer.get_watermark_offsets(KafkaPartition(topic, one), timeout=timeout_s)
        for one in partitions
    }
    # No record before it is of that time; what comes next may be a transaction marker, whose time
    # is the broker's, so records are looked at too.
    since = _at_time(consumer, topic, partitions, stretch.since_ms, timeout_s)
    ranges, whole = {}, True
    for one, (low, high) in ends.items():
        start, stop = low, high
        if stretch.offsets is not None:
            first, final = stretch.offsets[one]
            start, stop = max(low, first), min(high, _LATER if final is None else final + 1)
        elif stretch.last is not None:
            start = max(low, high - stretch.last)
        else:
            start = max(low, since.get(one, low))
        whole = whole and start == low
        if start < stop:
            ranges[one] = (start, stop)
    return ranges, whole


def _at_time(
    consumer: Consumer, topic: str, partitions: Sequence[int], at_ms: int | None, timeout_s: float
) -> dict[int, int]:
    """Return by partition the first offset whose record is of that time or later."""
    if at_ms is None:
        return {}
    asked = [KafkaPartition(topic, one, at_ms) for one in partitions]
    found = {}
    for one in consumer.offsets_for_times(asked, timeout=timeout_s):
        if one.error is not None:
            raise KafkaException(one.error)
        found[one.partition] = _LATER if one.offset == OFFSET_END else one.offset
    return found
