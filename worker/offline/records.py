"""Read records without a consumer group: ranges of a topic, and results."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from worker.contract.errors import MessageRejected, RecordRefused
from worker.contract.records import (
    Replay,
    read_dead_letter,
    read_output,
    read_replay,
)
from worker.core.labeller import TombstonePolicy
from worker.errors import SettingsError
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.topics import RecordRange

Offsets = Mapping[TopicPartition, tuple[int, int]]
"""By partition: the first offset, and the one after the last."""


_EVERY = 1000  # records between updates of a progress bar, which are slow


def wanted_offsets(
    scanner: TopicScanner,
    record_range: RecordRange | None,
    logs: Mapping[TopicPartition, LogSpan],
) -> Offsets:
    """Convert a range (None: everything) to offsets of these logs.

    A time means the first record with that time or a later one in each partition, even if older
    records follow it. Raises SettingsError and StreamFailed.
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
    """Return the committed records of a range, oldest first: at most ``limit``, from its beginning
    (with ``last``: from its end).

    Records published meanwhile are left out. Raises SettingsError and StreamFailed.
    """
    with TopicScanner(config) as scanner:
        logs = scanner.spans(topic)
        if record_range.last is not None:
            return _newest(scanner, logs, min(record_range.last, limit))
        # The broker's lookup by time may find a transaction marker, whose time is the broker's. So
        # it only tells where to begin, and the records' own times decide.
        near = wanted_offsets(scanner, replace(record_range, until_ms=None), logs)
        until = math.inf if record_range.until_ms is None else record_range.until_ms
        return _oldest(scanner, near, limit, (record_range.since_ms or 0, until))


def _newest(
    scanner: TopicScanner, logs: Mapping[TopicPartition, LogSpan], wanted: int
) -> list[Record]:
    reach = wanted
    while True:
        # Transaction markers and aborted records use up offsets, so reach further back until there
        # are enough records.
        ranges = {
            source: (max(log.start, log.end - reach), log.end) for source, log in logs.items()
        }
        found = sorted(scanner.records(ranges), key=_age)
        whole = all(start == logs[source].start for source, (start, _) in ranges.items())
        if whole or len(found) >= wanted:
            return found[-wanted:]
        reach *= 4


def _oldest(
    scanner: TopicScanner, ranges: Offsets, limit: int, between: tuple[int, float]
) -> list[Record]:
    """Return the oldest records with a time in [between[0], between[1]). A partition is read up to
    its first record at or after the end."""
    found: list[Record] = []
    taken = Counter[TopicPartition]()
    ended: set[TopicPartition] = set()
    left = dict(ranges)
    while left:
        # At most ``limit`` records of one partition can be among the ``limit`` oldest.
        part = {
            source: (start, min(stop, start + limit - taken[source]))
            for source, (start, stop) in left.items()
        }
        for record in scanner.records(part):
            at_ms = record.timestamp_ms or 0
            if at_ms >= between[1]:
                ended.add(record.source)
            elif at_ms >= between[0] and record.source not in ended:
                found.append(record)
                taken[record.source] += 1
        left = {
            source: (part[source][1], stop)
            for source, (_, stop) in left.items()
            if part[source][1] < stop and taken[source] < limit and source not in ended
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
            f"--offsets: the input has no partition {strange[0]}: use 0 to {len(by_number) - 1}"
        )
    found = {}
    for number, (first, last) in given.items():
        source, log = by_number[number]
        start = min(log.end, max(log.start, first))
        stop = log.end if last is None else min(log.end, last + 1)
        found[source] = (start, max(start, stop))
    return found


class ScanProgress:
    """Progress bars for reading topics; a context manager."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[records]:,} records"),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def read(self, scanner: TopicScanner, topic: str, ranges: Offsets) -> Iterator[Record]:
        """Yield the records in these ranges of ``topic``."""
        total = sum(max(0, stop - start) for start, stop in ranges.values())
        task = self._progress.add_task(topic, total=total, records=0)
        reached: dict[TopicPartition, int] = {}
        count = 0
        for count, record in enumerate(scanner.records(ranges), 1):
            reached[record.source] = record.offset + 1 - ranges[record.source][0]
            if count % _EVERY == 0:
                self._progress.update(task, completed=sum(reached.values()), records=count)
            yield record
        self._progress.update(task, completed=total, records=count)


@dataclass(frozen=True, slots=True)
class ReadResult:
    """One result: its input record, its adapter's digest, and its replay (None: first run). An
    output has a label and a precision, a dead letter a ``reason``. ``cluster`` is the input's."""

    source: TopicPartition
    offset: int
    adapter_digest: str
    replay: Replay | None
    label: str | None = None
    in_review: bool = False
    reason: str | None = None
    cluster: str | None = None
    precision: str | None = None


def whole_logs(scanner: TopicScanner, topics: Iterable[str]) -> dict[str, Offsets]:
    """Return the current offsets of every partition by topic."""
    return {
        topic: {source: (log.start, log.end) for source, log in scanner.spans(topic).items()}
        for topic in topics
    }


def is_of_another_cluster(result: ReadResult, cluster: str | None) -> bool:
    """Whether a result belongs to a message in another cluster. A result without a cluster counts
    as ours: its worker had no kafka.source_cluster."""
    return result.cluster is not None and result.cluster != cluster


def read_result(record: Record, dead_letter_topic: str) -> ReadResult:
    """Read a record of any result topic. Raises RecordRefused."""
    if record.source.topic == dead_letter_topic:
        letter = read_dead_letter(record.headers)
        return ReadResult(
            TopicPartition(letter.topic, letter.partition),
            letter.offset,
            letter.adapter_digest,
            read_replay(record.headers),
            reason=letter.reason,
            cluster=letter.cluster,
        )
    try:
        output = read_output(record.content)
    except MessageRejected as error:
        raise RecordRefused("the output record", error.detail) from error
    source = output.source
    return ReadResult(
        TopicPartition(source.topic, source.partition),
        source.offset,
        output.adapter.digest,
        output.replay,
        output.label,
        output.review.needed,
        cluster=source.cluster,
        precision=output.adapter.precision,
    )


def has_no_result(record: Record, tombstones: TombstonePolicy) -> bool:
    """Whether a record is a tombstone that the settings skip or forward."""
    if record.value is not None:
        return False
    return tombstones == "skip" or (tombstones == "forward" and record.key is not None)
