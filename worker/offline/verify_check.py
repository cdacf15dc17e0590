"""The judge of ``clerk-worker verify``: input offsets and results in, violations out. Pure.

For each input partition it keeps a bit for each input record, one for each result, and one more for
each result of a replay: a quarter of a byte a record, and nothing else that grows with them. A
record that was tried again later takes three more.
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
"""What contradicts the guarantees; see docs/guarantees.md."""

FAULTS: tuple[Fault, ...] = get_args(Fault)


_Stream = tuple[TopicPartition, TopicPartition, str | None]
"""Results are in order within one partition of one topic, for one input partition, in one run."""

_Run = tuple[TopicPartition, str | None]
"""The results for an input partition that were made in one replay, or in the first run."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a result was read."""

    partition: TopicPartition
    offset: int

    def __str__(self) -> str:
        return record_id(self.partition.topic, self.partition.partition, self.offset)


@dataclass(frozen=True, slots=True)
class Result:
    """What the judge needs to know of a result: the input record that it is for, by which adapter
    (a digest) in which precision (None for a dead letter), in which replay (an id; None for the
    first run), and where it was read."""

    source: TopicPartition
    offset: int
    adapter_digest: str
    replay: str | None
    place: Place
    precision: str | None = None


@dataclass(frozen=True, slots=True)
class ResultsBy:
    """How many results an adapter (a digest) made in one precision (None: its dead letters)."""

    digest: str
    precision: str | None
    results: int


@dataclass(frozen=True, slots=True)
class RetryRecord:
    """What the judge needs to know of a record of the retry topic: the input record that it is for,
    which delayed attempt at it, whether it ``waits`` (the group has not committed it), and where it
    was read."""

    source: TopicPartition
    offset: int
    attempt: int
    waits: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Offender:
    """One fault: the id of the input record (None where it has none), where the result is (None
    where there is none), and what is wrong with it in words. No message text."""

    fault: Fault
    id: str | None
    place: str | None
    problem: str


@dataclass(frozen=True, slots=True)
class Span:
    """Offsets of an input partition: those from ``start`` to before ``stop`` are judged; nothing
    is at ``end`` or later, so a result that claims to be is foreign."""

    start: int
    stop: int
    end: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """How input and results compare. Counts are of records.

    ``results`` and ``by_topic`` count all that was read. ``replayed`` are results of replays,
    ``repeated`` those beyond the first where that is allowed.
    ``outside`` are results for input records that are not judged: before the range, after it, or
    deleted since; ``compacted`` those for offsets that a compacted topic no longer has.
    ``adapters`` counts the judged results by adapter and precision. ``retries`` counts the
    records of the retry topic, ``waiting`` the input records that have no result because they wait
    there.
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
    memory_bytes: int
    retries: int = 0
    waiting: int = 0

    @property
    def is_proven(self) -> bool:
        """Whether nothing contradicts the guarantees."""
        return not any(self.faults.values())


class Checker:
    """Takes the input records of a range, then all results, and says how they compare.

    ``spans`` has every input partition. ``adapters`` are first digits of the digests that may have
    made a result, None for any. ``compacted``: the input topic drops records that were superseded,
    so an offset without a record proves nothing. ``repeats_allowed``: what comes twice is no fault,
    as by ``at_least_once``, where readers deduplicate. At most ``max_offenders`` of each fault are
    told.
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
        """Take in an input record. All of a range come before the first result."""
        span = self.spans[source]
        if span.start <= offset < span.stop:
            self._inputs[source].add(offset)

    def forget_before(self, source: TopicPartition, offset: int) -> None:
        """Judge only what is at ``offset`` of a partition or later. Before the first result."""
        span = self.spans[source]
        if span.start < offset:
            self.spans[source] = replace(span, start=offset, stop=max(offset, span.stop))
            self._inputs[source].discard_before(offset)

    def add_retry(self, retry: RetryRecord) -> None:
        """Take in a record of the retry topic. All of them come before the first result."""
        self._retry_count += 1
        if self._judged(retry) is not True:
            return
        if not self._retries[retry.source, retry.attempt].add(retry.offset):
            self._note_repeat(retry, f"is on the retry topic twice for attempt {retry.attempt}")
        self._retried[retry.source].add(retry.offset)
        if retry.waits:
            self._waiting[retry.source].add(retry.offset)

    def add_result(self, result: Result) -> None:
        """Take in a result; those of one partition of a topic in the order of its log."""
        self._by_topic[result.place.partition.topic] += 1
        judged = self._judged(result)
        if judged is True:
            self._take(result)
        elif judged == "outside":
            self._outside += 1
        elif judged == "compacted":
            self._compacted += 1

    def add_unreadable(self, place: Place, problem: str) -> None:
        """Take in a record of a result topic that is none of the worker's."""
        self._by_topic[place.partition.topic] += 1
        self._note("unreadable", None, str(place), problem)

    def verdict(self) -> Verdict:
        """Say how they compare, once all have been taken in."""
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
        bitmaps = [*self._inputs.values(), *self._firsts.values(), *self._replays.values()]
        bitmaps += self._late.values()
        bitmaps += [*self._retries.values(), *self._retried.values(), *self._waiting.values()]
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
            memory_bytes=sum(bitmap.memory_bytes for bitmap in bitmaps),
            retries=self._retry_count,
            waiting=waiting,
        )

    def _judged(self, found: Result | RetryRecord) -> Literal[True, "outside", "compacted"] | None:
        """Tell whether the input record of this is judged, or why not; None: it is foreign."""
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
            # Of the order it says nothing: what is written again comes late by nature. Which of the
            # two was first is not known where they are on several topics.
            late = result.source, result.replay
            self._late[late].discard(result.offset)
            self._late_offenders.pop((late, result.offset), None)
            self._note_repeat(result, f"has a result before this one{run}")
            return
        if result.offset in self._retried[result.source]:
            return  # it comes after its neighbours, and says nothing of theirs
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
