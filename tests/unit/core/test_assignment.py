"""Which records of a partition may be published, and when its fetching pauses and resumes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.assignment import Backpressure, Bounds, PartitionState, Watermark
from worker.records.types import TopicPartition

offsets = st.lists(st.integers(0, 1000), unique=True, max_size=30).map(sorted)


def filled(*numbers: int) -> Watermark[str]:
    mark: Watermark[str] = Watermark()
    for number in numbers:
        mark.add(number)
    return mark


@given(st.data(), offsets)
def test_in_any_order_of_answers_only_the_finished_prefix_may_be_published(
    data: st.DataObject, added: list[int]
) -> None:
    mark = filled(*added)
    finished: set[int] = set()
    confirmed = 0
    for offset in data.draw(st.permutations(added)):
        mark.finish(offset, f"r{offset}")
        finished.add(offset)
        left = added[confirmed:]
        unbroken = next((i for i, offset in enumerate(left) if offset not in finished), len(left))
        assert mark.ready == unbroken
        assert mark.peek(1000) == [(offset, f"r{offset}") for offset in left[:unbroken]]
        bound = data.draw(st.integers(0, 1001))
        assert mark.ready_below(bound) == sum(offset < bound for offset in left[:unbroken])
        count = data.draw(st.integers(0, unbroken))
        mark.confirm(count)
        confirmed += count
        assert len(mark) == len(added) - confirmed
    assert mark.ready == len(mark)


def test_an_offset_that_was_read_before_is_refused() -> None:
    mark = filled(5)
    mark.finish(5, "a")
    mark.confirm(1)
    for offset in (5, 4):
        with pytest.raises(ValueError, match=f"offset {offset} after 5"):
            mark.add(offset)


class Held:
    """Partitions with records in flight, under one Backpressure."""

    def __init__(self, bounds: Bounds, partitions: int = 1) -> None:
        self.pressure = Backpressure(bounds)
        self.states = [PartitionState(TopicPartition("in", n)) for n in range(partitions)]
        self._next = 0

    def take(self, count: int = 1, size_bytes: int = 1, partition: int = 0) -> None:
        for _ in range(count):
            self.states[partition].watermark.add(self._next)
            self.states[partition].size_bytes += size_bytes
            self.pressure.take(size_bytes)
            self._next += 1

    def release(self, count: int = 1, size_bytes: int = 1, partition: int = 0) -> None:
        watermark = self.states[partition].watermark
        for offset in list(watermark._order)[:count]:
            watermark.finish(offset, None)  # type: ignore[arg-type]
        watermark.confirm(count)
        self.states[partition].size_bytes -= count * size_bytes
        self.pressure.release(count, count * size_bytes)

    def decide(self) -> tuple[list[int], list[int]]:
        """The numbers of the partitions to pause and to resume."""
        pause, resume = self.pressure.decide(self.states)
        return [source.partition for source in pause], [source.partition for source in resume]


@pytest.mark.parametrize("blocked", range(1, 6))
def test_blocked_partitions_leave_as_much_room_as_each_of_them_holds(blocked: int) -> None:
    bound = 600
    held = Held(Bounds(bound, 1 << 30), blocked + 1)
    for _ in range(bound):
        held.decide()
        for partition in range(blocked):
            if held.states[partition].source not in held.pressure.paused:
                held.take(partition=partition)
    held.decide()
    each = [len(held.states[partition].watermark) for partition in range(blocked)]
    assert held.states[blocked].source not in held.pressure.paused
    assert bound - held.pressure.records >= bound // (blocked + 1) - blocked
    assert max(each) - min(each) <= 1


@given(
    steps=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), max_size=50),
    max_records=st.integers(1, 9),
)
def test_partitions_are_paused_when_full_resumed_when_empty_and_each_change_is_reported_once(
    steps: list[tuple[int, int]], max_records: int
) -> None:
    held = Held(Bounds(max_records, 1000), 3)
    paused: set[int] = set()
    for step, partition in steps:
        if step > 0 and held.states[partition].source not in held.pressure.paused:
            held.take(min(step, held.pressure.room[0]), 10, partition)
        elif step < 0:
            held.release(min(len(held.states[partition].watermark), -step), 10, partition)
        pause, resume = held.decide()
        assert not paused & set(pause)
        assert set(resume) <= paused
        paused = (paused | set(pause)) - set(resume)
        assert held.pressure.records <= max_records
        if held.pressure.records == max_records:
            assert len(paused) == 3
        if held.pressure.records == 0:
            assert not paused
