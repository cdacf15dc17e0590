"""Choose the records that a replay labels again: by their results, within a range of the input."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from worker.contract.errors import RecordRefused
from worker.contract.records import Replay, supersedes
from worker.errors import SettingsError
from worker.offline.offset_set import OffsetSet
from worker.offline.records import (
    Offsets,
    ReadResult,
    ScanProgress,
    is_of_another_cluster,
    read_result,
    wanted_offsets,
    whole_logs,
)
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_scan import TopicScanner
from worker.stream.topics import RecordRange, Topics


@dataclass(frozen=True, slots=True)
class Criteria:
    """Conditions on a record's current result; all of them must hold.

    ``dead_letters``: it is a dead letter. ``reasons``: a dead letter with one of these reasons.
    ``review``: it went to review. ``labels``: it has one of these labels. ``made_by``: prefix of
    its adapter's digest.
    """

    dead_letters: bool = False
    review: bool = False
    reasons: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    made_by: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether every record is chosen, including those without a result."""
        return self == Criteria()

    def fit(self, result: ReadResult) -> bool:
        """Whether a result meets the conditions."""
        if (self.dead_letters or self.reasons) and result.reason is None:
            return False
        if self.reasons and result.reason not in self.reasons:
            return False
        if self.review and not result.in_review:
            return False
        if self.labels and result.label not in self.labels:
            return False
        return self.made_by is None or result.adapter_digest.startswith(self.made_by)


class Selector:
    """Takes all results, and returns the records whose current result meets the criteria.

    The current result is that of the replay that began last. Results of ``replay_id`` itself, from
    before an interruption, do not count: otherwise a resumed replay would choose other records.
    """

    def __init__(self, criteria: Criteria, replay_id: str) -> None:
        self._criteria = criteria
        self._own = replay_id
        self._runs: dict[str | None, Replay | None] = {None: None}
        self._all: defaultdict[tuple[str | None, TopicPartition], OffsetSet] = defaultdict(
            OffsetSet
        )
        self._fitting: defaultdict[tuple[str | None, TopicPartition], OffsetSet] = defaultdict(
            OffsetSet
        )

    def add(self, result: ReadResult) -> None:
        """Add a result, in any order."""
        run = None if result.replay is None else result.replay.id
        if run == self._own or result.offset < 0:
            return
        known = self._runs.setdefault(run, result.replay)
        if supersedes(result.replay, known):
            self._runs[run] = result.replay
        self._all[run, result.source].add(result.offset)
        if self._criteria.fit(result):
            self._fitting[run, result.source].add(result.offset)

    def selected(self, source: TopicPartition) -> OffsetSet:
        """Return the chosen offsets of an input partition."""
        found = OffsetSet()
        for run, replay in self._runs.items():
            fitting = self._fitting[run, source]
            for other, later in self._runs.items():
                if supersedes(later, replay):
                    fitting = fitting.without(self._all[other, source])
            found.update(fitting)
        return found


@dataclass(frozen=True, slots=True)
class Plan:
    """The records to label again.

    ``ranges`` are the offsets to read by input partition, ``selected`` the chosen ones among them
    (None: all). ``expired`` counts chosen records that the input topic no longer has.
    """

    ranges: Offsets
    selected: Mapping[TopicPartition, OffsetSet] | None
    expired: int = 0

    def count(self, done: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Return by partition the number of records at ``done`` or later. Without ``selected`` it
        is the number of offsets, which may be higher."""
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
        """Yield the records at ``done`` or later, in order within each partition."""
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
    """Choose the records; without a ``selector`` all in the range. Raises WorkerStopped."""
    logs = scanner.spans(input_topic)
    ranges = wanted_offsets(scanner, record_range, logs)
    if selector is None:
        return Plan({source: span for source, span in ranges.items() if span[0] < span[1]}, None)
    _read_results(scanner, progress, topics, selector)
    selected, within, expired = {}, {}, 0
    for source, (start, stop) in ranges.items():
        chosen = selector.selected(source)
        if record_range is None:
            expired += sum(offset < logs[source].start for offset in chosen)
        chosen.discard_before(start)
        for offset in [offset for offset in chosen if offset >= stop]:
            chosen.discard(offset)
        if chosen:
            selected[source] = chosen
            within[source] = (min(chosen), max(chosen) + 1)
    return Plan(within, selected, expired)


def make_selector(
    criteria: Criteria, record_range: RecordRange | None, replay_id: str
) -> Selector | None:
    """Return the selector for these criteria; None if the range alone decides. Raises SettingsError
    for a range without an end."""
    if not criteria.is_empty:
        return Selector(criteria, replay_id)
    if record_range is None:
        raise SettingsError(
            "choose the records to label again with --dead-letters, --reason, --review, --label or "
            "--made-by, or with a range (--since with --until, --offsets)"
        )
    offsets = record_range.offsets or {}
    if (record_range.since_ms is not None and record_range.until_ms is None) or any(
        last is None for _, last in offsets.values()
    ):
        raise SettingsError(
            "a range without other conditions needs an end (--until, or --offsets P:FIRST-LAST): "
            "messages published during the replay would be in it"
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
                continue  # not written by a worker; verify reports it
            if not is_of_another_cluster(result, scanner.cluster):
                selector.add(result)
