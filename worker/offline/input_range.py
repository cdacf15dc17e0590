"""The records of a topic that a command is about: from times or offsets to records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from worker.errors import SettingsError
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.record_range import RecordRange

Offsets = Mapping[TopicPartition, tuple[int, int]]
"""By partition the first offset, and the one after the last."""


def wanted_offsets(
    scanner: TopicScanner,
    record_range: RecordRange | None,
    logs: Mapping[TopicPartition, LogSpan],
) -> Offsets:
    """Return what a range (None: everything) means in offsets of these logs.

    A time begins and ends at the first record of that time or later in each partition; what is
    published with an older time after it belongs to the same side. Raises SettingsError and
    StreamFailed.
    """
    found = {source: (log.start, log.end) for source, log in logs.items()}
    if record_range is None:
        return found
    if record_range.offsets is not None:
        return _given(record_range.offsets, logs)
    for place, at_ms in enumerate((record_range.since_ms, record_range.until_ms)):
        if at_ms is None:
            continue
        begins = scanner.at_time(list(logs), at_ms)
        for source, log in logs.items():
            at = min(log.end, max(log.start, begins.get(source, log.end)))
            start, stop = found[source]
            found[source] = (at, max(at, stop)) if place == 0 else (start, max(start, at))
    return found


def read_range(
    config: KafkaConfig, topic: str, record_range: RecordRange, limit: int
) -> list[Record]:
    """Return the committed records of a range, oldest first, and at most ``limit`` of them: its
    oldest (with ``last``: its newest).

    What comes in while it is read is left out. Raises SettingsError and StreamFailed.
    """
    with TopicScanner(config) as scanner:
        logs = scanner.spans(topic)
        if record_range.last is not None:
            return _newest(scanner, logs, min(record_range.last, limit))
        return _oldest(scanner, wanted_offsets(scanner, record_range, logs), limit)


def _newest(
    scanner: TopicScanner, logs: Mapping[TopicPartition, LogSpan], wanted: int
) -> list[Record]:
    reach = wanted
    while True:
        # Transaction markers and aborted records are offsets without a record: reach further back.
        ranges = {
            source: (max(log.start, log.end - reach), log.end) for source, log in logs.items()
        }
        found = sorted(scanner.records(ranges), key=_age)
        whole = all(start == logs[source].start for source, (start, _) in ranges.items())
        if whole or len(found) >= wanted:
            return found[-wanted:]
        reach *= 4


def _oldest(scanner: TopicScanner, ranges: Offsets, limit: int) -> list[Record]:
    found: list[Record] = []
    taken = Counter[TopicPartition]()
    left = dict(ranges)
    while left:
        # No more than ``limit`` of one partition can be among the oldest so many.
        part = {
            source: (start, min(stop, start + limit - taken[source]))
            for source, (start, stop) in left.items()
        }
        for record in scanner.records(part):
            found.append(record)
            taken[record.source] += 1
        left = {
            source: (part[source][1], stop)
            for source, (_, stop) in left.items()
            if part[source][1] < stop and taken[source] < limit
        }
    return sorted(found, key=_age)[:limit]


def _age(record: Record) -> tuple[int, int, int]:
    return record.timestamp_ms or 0, record.source.partition, record.offset


def _given(
    given: Mapping[int, tuple[int, int | None]], logs: Mapping[TopicPartition, LogSpan]
) -> Offsets:
    by_number = {source.partition: (source, log) for source, log in logs.items()}
    if strange := sorted(set(given) - set(by_number)):
        raise SettingsError(
            f"--offsets: the input has no partition {strange[0]}: it has {len(by_number)}, from 0"
        )
    found = {}
    for number, (first, last) in given.items():
        source, log = by_number[number]
        start = min(log.end, max(log.start, first))
        stop = log.end if last is None else min(log.end, last + 1)
        found[source] = (start, max(start, stop))
    return found
