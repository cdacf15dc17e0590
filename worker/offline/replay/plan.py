"""Which records a replay is about: chosen by their results, within a range of the input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.contract.errors import RecordRefused
from worker.errors import SettingsError
from worker.offline.input_range import Offsets, wanted_offsets
from worker.offline.offset_set import OffsetSet
from worker.offline.replay.select import Criteria, Selector
from worker.offline.results import is_of_another_cluster, read_result, whole_logs
from worker.offline.scan_progress import ScanProgress
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.record_range import RecordRange
from worker.stream.topics import Topics


@dataclass(frozen=True, slots=True)
class Plan:
    """What is labelled again.

    ``ranges`` has by input partition the first offset to read, and the one to stop before;
    ``selected`` the offsets, None for each record in the ranges. ``expired`` counts records that
    were chosen by their results and that the input topic no longer has.
    """

    ranges: Offsets
    selected: Mapping[TopicPartition, OffsetSet] | None
    expired: int = 0

    def count(self, done: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return by partition how many records are left at ``done`` or later; where every record
        of a range is meant, offsets, which may be more."""
        left = {}
        for source, (start, stop) in self.ranges.items():
            begin = max(start, done.get(source, 0))
            if self.selected is None:
                left[source] = max(0, stop - begin)
            else:
                left[source] = sum(offset >= begin for offset in self.selected[source])
        return left

    def records(
        self, scanner: TopicScanner, progress: ScanProgress, done: Mapping[TopicPartition, int]
    ) -> Iterator[Record]:
        """Yield the records at ``done`` or later, those of one partition in order."""
        ranges = {
            source: (begin, stop)
            for source, (start, stop) in self.ranges.items()
            if (begin := max(start, done.get(source, 0))) < stop
        }
        if not ranges:
            return
        topic = next(iter(ranges)).topic
        for record in progress.read(scanner, topic, ranges):
            if self.selected is None or record.offset in self.selected[record.source]:
                yield record


def make_plan(
    scanner: TopicScanner,
    progress: ScanProgress,
    topics: Topics,
    input_topic: str,
    record_range: RecordRange | None,
    selector: Selector | None,
) -> Plan:
    """Choose; without a ``selector`` each record of the range. Raises WorkerStopped."""
    logs = scanner.spans(input_topic)
    ranges = wanted_offsets(scanner, record_range, logs)
    if selector is None:
        return Plan({source: span for source, span in ranges.items() if span[0] < span[1]}, None)
    _read_results(scanner, progress, topics, selector)
    selected, within, expired = {}, {}, 0
    for source, (start, stop) in ranges.items():
        chosen = selector.selected(source)
        if record_range is None:
            expired += _count_before(chosen, logs[source])
        chosen.discard_before(start)
        bounds = chosen.bounds
        if bounds is not None and bounds[0] < stop:
            selected[source] = chosen
            within[source] = (bounds[0], min(stop, bounds[1] + 1))
            for offset in [offset for offset in chosen if offset >= stop]:
                chosen.discard(offset)
    return Plan(within, selected, expired)


def make_selector(
    criteria: Criteria, record_range: RecordRange | None, replay_id: str
) -> Selector | None:
    """Return what chooses by results; None where a range alone does.

    Raises SettingsError where the range has no end: what is published meanwhile would belong to it.
    """
    if not criteria.is_empty:
        return Selector(criteria, replay_id)
    if record_range is None:
        raise SettingsError(
            "choose what is labelled again: --dead-letters, --reason, --review, --label or "
            "--made-by, or a range (--since with --until, --offsets)"
        )
    offsets = record_range.offsets or {}
    if (record_range.since_ms is not None and record_range.until_ms is None) or any(
        last is None for _, last in offsets.values()
    ):
        raise SettingsError(
            "a range alone needs an end (--until, or --offsets P:FIRST-LAST): what is published "
            "meanwhile would belong to it"
        )
    return None


def _read_results(
    scanner: TopicScanner, progress: ScanProgress, topics: Topics, selector: Selector
) -> None:
    for topic, offsets in whole_logs(scanner, topics.results).items():
        for record in progress.read(scanner, topic, offsets):
            try:
                result = read_result(record, topics.dead_letter)
            except RecordRefused:
                continue  # none of the worker's: verify tells it
            if not is_of_another_cluster(result, scanner.cluster):
                selector.add(result)


def _count_before(chosen: OffsetSet, log: LogSpan) -> int:
    return sum(offset < log.start for offset in chosen)
