"""The checker behind ``clerk-worker verify``: input offsets and results in, violations out. Pure.

Memory: per input partition one bit for each input record, one for each result, and one for each
result of a replay, so a quarter of a byte per record. A record on the retry topic takes three more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Literal, get_args

from worker.contract.records import record_id
from worker.offline.offset_set import OffsetSet
from worker.records.types import TopicPartition

Fault = Literal["missing", "twice", "out_of_order", "foreign", "unreadable", "unknown_adapter"]
"""Violations of docs/guarantees.md."""

FAULTS: tuple[Fault, ...] = get_args(Fault)


# Result partition, input partition and run: within these, results must be in order.
_Stream = tuple[TopicPartition, TopicPartition, str | None]

# Input partition and replay id (None: the first run).
_Run = tuple[TopicPartition, str | None]


@dataclass(frozen=True, slots=True)
class Place:
    """The position of a record on a result topic or the retry topic."""

    partition: TopicPartition
    offset: int

    def __str__(self) -> str:
        return record_id(self.partition.topic, self.partition.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Result:
    """A result: its input record, adapter (digest) and precision (None for a dead letter), replay
    (id; None for the first run), and where it was read."""

    source: TopicPartition
    offset: int
    adapter_digest: str
    replay: str | None
    place: Place
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsBy:
    """The number of results of an adapter (digest) in one precision (None: its dead letters)."""

    digest: str
    precision: str | None
    results: int


@dataclass(frozen=True, slots=True)
class RetryRecord:
    """A record of the retry topic: its input record, the number of the delayed attempt, whether it
    ``waits`` (is not committed yet), and where it was read."""

    source: TopicPartition
    offset: int
    attempt: int
    waits: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Offender:
    """One violation: the input record's id and the result's place, each if known, and the problem
    in words, without message text."""

    fault: Fault
    id: str | None
    place: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of an input partition. Those in [start, stop) are judged; the log ends before
    ``end``, so a result for a later offset is foreign."""

    start: int
    stop: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How input and results compare. Counts are of records.

    ``results`` and ``by_topic`` count everything that was read; ``replayed`` counts results of
    replays, ``repeated`` allowed results beyond the first. Not judged are results for input records
    ``outside`` the range or deleted since, and for offsets that a ``compacted`` topic has dropped.
    ``adapters`` counts the judged results. ``retries`` counts the records of the retry topic,
    ``waiting`` the input records without a result because they are waiting there.
    """

    inputs: int
    results: int
    by_topic: Mapping[str, int]
    replayed: int
    repeated: int
    outside: int
    compacted: int
    adapters: tuple[ResultsBy, ...]
    faults: Mapping[Fault, int]
    offenders: tuple[Offender, ...]
    retries: int = 0
    waiting: int = 0

    @property
    def is_proven(self) -> bool:
        """Whether there is no violation."""
        return not any(self.faults.values())


class Checker:
    """Takes the input records of a range, then the retry records, then all results, and compares.

    ``spans`` has every input partition. ``adapters`` are prefixes of the allowed adapters' digests
    (None: any). ``compacted``: the input topic drops superseded records, so an offset without a
    record proves nothing. ``repeats_allowed``: a second result is not a violation, as with
    ``at_least_once``. At most ``max_offenders`` of each fault are reported.
    """

    def __init__(
        self,
        spans: Mapping[TopicPartition, Span],
        *,
        adapters: Sequence[str] | None = None,
        compacted: bool = False,
        repeats_allowed: bool = False,
        max_offenders: int = 10,
    ) -> None:
        self.spans = dict(spans)
        self._allowed = None if adapters is None else tuple(adapters)
        self._compacted_topic = compacted
        self._repeats_allowed = repeats_allowed
        self._max_offenders = max_offenders
        self._inputs: defaultdict[TopicPartition, OffsetSet] = defaultdict(OffsetSet)
        self._firsts: defaultdict[TopicPartition, OffsetSet] = defaultdict(OffsetSet)
        self._replays: defaultdict[tuple[TopicPartition, str], OffsetSet] = defaultdict(OffsetSet)
        self._retries: defaultdict[tuple[TopicPartition, int], OffsetSet] = defaultdict(OffsetSet)
        self._retried: defaultdict[TopicPartition, OffsetSet] = defaultdict(OffsetSet)
        self._waiting: defaultdict[TopicPartition, OffsetSet] = defaultdict(OffsetSet)
        self._retry_count = 0
        self._newest: dict[_Stream, int] = {}
        self._late: defaultdict[_Run, OffsetSet] = defaultdict(OffsetSet)
        self._late_offenders: dict[tuple[_Run, int], Offender] = {}
        self._faults: Counter[Fault] = Counter()
        self._offenders: list[Offender] = []
        self._by_topic: Counter[str] = Counter()
        self._adapters: Counter[tuple[str, str | None]] = Counter()
        self._outside = self._replayed = self._compacted = self._repeated = 0

    def add_input(self, source: TopicPartition, offset: int) -> None:
        """Add an input record; all of them before the first retry record or result."""
        span = self.spans[source]
        if span.start <= offset < span.stop:
            self._inputs[source].add(offset)

    def forget_before(self, source: TopicPartition, offset: int) -> None:
        """Judge only offsets from ``offset`` on: earlier records expired during the check, so they
        were read in part. Before the first result."""
        span = self.spans[source]
        if span.start < offset:
            self.spans[source] = replace(span, start=offset, stop=max(offset, span.stop))
            self._inputs[source].discard_before(offset)

    def add_retry(self, retry: RetryRecord) -> None:
        """Add a record of the retry topic; all of them before the first result."""
        self._retry_count += 1
        if self._judged(retry) is not True:
            return
        if not self._retries[retry.source, retry.attempt].add(retry.offset):
            self._note_repeat(retry, f"is on the retry topic twice for attempt {retry.attempt}")
        self._retried[retry.source].add(retry.offset)
        if retry.waits:
            self._waiting[retry.source].add(retry.offset)

    def add_result(self, result: Result) -> None:
        """Add a result; those of one partition of a topic in log order."""
        self._by_topic[result.place.partition.topic] += 1
        judged = self._judged(result)
        if judged is True:
            self._take(result)
        elif judged == "outside":
            self._outside += 1
        elif judged == "compacted":
            self._compacted += 1

    def add_unreadable(self, place: Place, problem: str) -> None:
        """Add a record of a result topic that no worker wrote."""
        self._by_topic[place.partition.topic] += 1
        self._note("unreadable", None, str(place), problem)

    def verdict(self) -> Verdict:
        """Return the comparison, once everything has been added."""
        faults = Counter(self._faults)
        faults["out_of_order"] = sum(map(len, self._late.values()))
        waiting = 0
        offenders = [*self._offenders, *self._late_offenders.values()]
        for source in sorted(self._inputs, key=lambda source: (source.topic, source.partition)):
            open_ = self._without_result(source)
            missing = open_.without(self._waiting[source])
            waiting += len(open_) - len(missing)
            faults["missing"] += len(missing)
            kept = sum(offender.fault == "missing" for offender in offenders)
            offenders += [
                Offender("missing", _id(source, offset), None, "no result in any topic")
                for offset in islice(missing, self._max_offenders - kept)
            ]
        return Verdict(
            inputs=sum(map(len, self._inputs.values())),
            results=self._by_topic.total(),
            by_topic=dict(self._by_topic),
            replayed=self._replayed,
            repeated=self._repeated,
            outside=self._outside,
            compacted=self._compacted,
            adapters=tuple(ResultsBy(*by, count) for by, count in self._adapters.items()),
            faults={fault: faults[fault] for fault in FAULTS},
            offenders=tuple(offenders),
            retries=self._retry_count,
            waiting=waiting,
        )

    def _judged(self, found: Result | RetryRecord) -> Literal[True, "outside", "compacted"] | None:
        """Return True if the input record is judged, or why not; None if the result is foreign."""
        span = self.spans.get(found.source)
        if span is None:
            self._blame("foreign", found, "there is no such input partition")
        elif not 0 <= found.offset < span.end:
            self._blame("foreign", found, "the input partition ends before it")
        elif not span.start <= found.offset < span.stop:
            return "outside"
        elif found.offset in self._inputs[found.source]:
            return True
        elif self._compacted_topic:
            return "compacted"
        else:
            self._blame("foreign", found, "the input has no record at this offset")
        return None

    def _take(self, result: Result) -> None:
        self._adapters[result.adapter_digest, result.precision] += 1
        if self._allowed is not None and not result.adapter_digest.startswith(self._allowed):
            self._blame(
                "unknown_adapter", result, f"made by the adapter {result.adapter_digest[:12]}"
            )
        if result.replay is None:
            seen, run = self._firsts[result.source], ""
        else:
            seen = self._replays[result.source, result.replay]
            run = f" in the replay {result.replay}"
            self._replayed += 1
        if not seen.add(result.offset):
            # A repeated result proves nothing about order: it comes late by nature, and on several
            # topics it is unknown which of the two was first. So withdraw an earlier accusation.
            late = result.source, result.replay
            self._late[late].discard(result.offset)
            self._late_offenders.pop((late, result.offset), None)
            self._note_repeat(result, f"has a result before this one{run}")
            return
        if result.offset in self._retried[result.source]:
            return  # tried again later, so it rightly comes after its neighbours
        stream = (result.place.partition, result.source, result.replay)
        newest = self._newest.get(stream, -1)
        if result.offset < newest:
            self._note_late(result, f"comes after the result of {_id(result.source, newest)}{run}")
        else:
            self._newest[stream] = result.offset

    def _without_result(self, source: TopicPartition) -> OffsetSet:
        missing = self._inputs[source].without(self._firsts[source])
        for (replayed, _), seen in self._replays.items():
            if replayed == source:
                missing = missing.without(seen)
        return missing

    def _note_repeat(self, found: Result | RetryRecord, problem: str) -> None:
        if self._repeats_allowed:
            self._repeated += 1
        else:
            self._blame("twice", found, problem)

    def _note_late(self, result: Result, problem: str) -> None:
        late = result.source, result.replay
        self._late[late].add(result.offset)
        if len(self._late_offenders) < self._max_offenders:
            self._late_offenders[late, result.offset] = Offender(
                "out_of_order", _id(result.source, result.offset), str(result.place), problem
            )

    def _blame(self, fault: Fault, found: Result | RetryRecord, problem: str) -> None:
        self._note(fault, _id(found.source, found.offset), str(found.place), problem)

    def _note(self, fault: Fault, id_: str | None, place: str | None, problem: str) -> None:
        self._faults[fault] += 1
        if self._faults[fault] <= self._max_offenders:
            self._offenders.append(Offender(fault, id_, place, problem))


def _id(source: TopicPartition, offset: int) -> str:
    return record_id(source.topic, source.partition, offset)
