"""Which offsets of the input topic a command is about."""

from __future__ import annotations

from collections.abc import Mapping

from worker.errors import SettingsError
from worker.records.types import TopicPartition
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
