"""From what a person asks for to offsets: times, offsets, and logs that are shorter than both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest

from worker.errors import SettingsError
from worker.offline.input_range import Offsets, wanted_offsets
from worker.records.types import TopicPartition
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.record_range import RecordRange

ONE, TWO = TopicPartition("in", 0), TopicPartition("in", 1)
LOGS = {ONE: LogSpan(100, 200), TWO: LogSpan(0, 50)}


class Scanner:
    """Stands in for a cluster that knows the times of its records."""

    def __init__(self, at: Mapping[int, Mapping[TopicPartition, int]]) -> None:
        self.at = at

    def at_time(
        self, partitions: Sequence[TopicPartition], at_ms: int
    ) -> Mapping[TopicPartition, int]:
        assert set(partitions) == set(LOGS)
        return self.at[at_ms]


def wanted(
    given: RecordRange | None, at: Mapping[int, Mapping[TopicPartition, int]] | None = None
) -> Offsets:
    return wanted_offsets(cast("TopicScanner", Scanner(at or {})), given, LOGS)


def test_no_range_is_everything_that_there_is() -> None:
    """By the logs as they are now."""
    assert wanted(None) == {ONE: (100, 200), TWO: (0, 50)}


def test_a_time_begins_at_its_first_record_and_ends_before_that_of_the_other() -> None:
    """In each partition; one with nothing so new has nothing in the range."""
    at = {10: {ONE: 150, TWO: 20}, 20: {ONE: 180}, 30: {}}
    assert wanted(RecordRange(since_ms=10), at) == {ONE: (150, 200), TWO: (20, 50)}
    assert wanted(RecordRange(since_ms=10, until_ms=20), at) == {ONE: (150, 180), TWO: (20, 50)}
    assert wanted(RecordRange(since_ms=20), at) == {ONE: (180, 200), TWO: (50, 50)}
    assert wanted(RecordRange(since_ms=30), at) == {ONE: (200, 200), TWO: (50, 50)}


def test_a_time_that_ends_before_it_begins_is_empty() -> None:
    """And no range that goes backwards."""
    at = {10: {ONE: 150, TWO: 20}, 20: {ONE: 180, TWO: 30}}
    assert wanted(RecordRange(since_ms=20, until_ms=10), at) == {ONE: (180, 180), TWO: (30, 30)}


def test_offsets_are_cut_to_what_the_log_has() -> None:
    """What has expired, and what is not written yet, is left out; the last offset is included."""
    for first, last, found in (
        (120, 129, (120, 130)),
        (0, 129, (100, 130)),
        (120, None, (120, 200)),
        (120, 900, (120, 200)),
        (0, 50, (100, 100)),
        (900, 950, (200, 200)),
        (130, 120, (130, 130)),
    ):
        assert wanted(RecordRange(offsets={0: (first, last)})) == {ONE: found}


def test_a_partition_that_does_not_exist_is_told() -> None:
    """With how many there are."""
    with pytest.raises(SettingsError) as caught:
        wanted(RecordRange(offsets={0: (0, 1), 7: (0, 1)}))
    assert str(caught.value) == "--offsets: the input has no partition 7: it has 2, from 0"
