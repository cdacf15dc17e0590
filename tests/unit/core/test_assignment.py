"""What may be published of a partition: only what has nothing unfinished before it."""

from __future__ import annotations

import random

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
def test_any_order_of_finishing_gives_the_finished_prefix_in_order(
    data: st.DataObject, added: list[int]
) -> None:
    """However answers come in, what may be published is the unbroken run from the oldest on."""
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


@given(st.data(), offsets)
def test_records_may_come_while_others_finish(data: st.DataObject, added: list[int]) -> None:
    """A record that is fetched later never unlocks one before it, nor hides it."""
    mark: Watermark[int] = Watermark()
    open_now: list[int] = []
    published: list[int] = []
    coming = list(added)
    while coming or open_now:
        if coming and (not open_now or data.draw(st.booleans())):
            mark.add(coming[0])
            open_now.append(coming.pop(0))
        else:
            offset = open_now.pop(data.draw(st.integers(0, len(open_now) - 1)))
            mark.finish(offset, offset)
        got = mark.peek(3)
        assert all(offset not in open_now for offset, _ in got)
        mark.confirm(len(got))
        published += [result for _, result in got]
    mark_rest = mark.peek(1000)
    assert published + [offset for _, offset in mark_rest] == added


def test_an_offset_that_was_read_before_is_refused() -> None:
    """A log that goes backwards is told, not published twice; also after all is confirmed."""
    mark = filled(5)
    mark.finish(5, "a")
    mark.confirm(1)
    for offset in (5, 4):
        with pytest.raises(ValueError, match=f"offset {offset} after 5"):
            mark.add(offset)


def test_finishing_twice_or_the_unknown_is_an_error() -> None:
    """A record has one result; a second one is a mistake of the caller's."""
    mark = filled(1)
    mark.finish(1, "a")
    for offset in (1, 2):
        with pytest.raises(KeyError):
            mark.finish(offset, "b")


def test_a_finished_result_can_be_replaced_and_keeps_its_place() -> None:
    """An output that is too large becomes a dead letter without losing its turn."""
    mark = filled(1, 2)
    mark.finish(1, "large")
    mark.replace(1, "small")
    assert mark.peek(2) == [(1, "small")]
    with pytest.raises(KeyError):
        mark.replace(2, "not finished")


def test_more_than_is_finished_cannot_be_confirmed() -> None:
    """A count that would skip an unfinished record is refused, and nothing is forgotten."""
    mark = filled(1, 2)
    mark.finish(1, "a")
    with pytest.raises(ValueError, match="2 records confirmed and 1 are finished"):
        mark.confirm(2)
    assert mark.peek(2) == [(1, "a")]


class Held:
    """Partitions that hold as much as a test says, under one Backpressure."""

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


def test_fetching_pauses_once_at_the_high_mark_and_resumes_once_at_the_low_one() -> None:
    """Between the marks nothing changes: each pause throws a prefetch away."""
    held = Held(Bounds(max_records=8, max_bytes=1000, resume_ratio=0.5))
    for _ in range(3):
        held.take()
        assert held.decide() == ([], [])
    held.take()
    assert (held.decide(), held.decide()) == (([0], []), ([], []))
    held.release()
    assert held.decide() == ([], [])
    held.release()
    assert (held.decide(), held.decide()) == (([], [0]), ([], []))


def test_bytes_alone_can_pause() -> None:
    """A few large messages fill the memory bound long before the record bound."""
    held = Held(Bounds(max_records=100, max_bytes=2000, resume_ratio=0.5))
    held.take(size_bytes=999)
    assert held.decide() == ([], [])
    held.take(size_bytes=1)
    assert held.decide() == ([0], [])
    held.release(1, 999)
    assert held.decide() == ([], [0])


@pytest.mark.parametrize("blocked", range(1, 6))
def test_however_many_partitions_are_blocked_the_others_have_room(blocked: int) -> None:
    """As much again as each of the blocked ones holds (alpha = 1)."""
    bound = 600
    held = Held(Bounds(bound, 1 << 30, 0.5), blocked + 1)
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


@pytest.mark.parametrize("resume_ratio", [0.0, 0.5, 1.0])
@given(
    steps=st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 2)), max_size=50),
    max_records=st.integers(1, 9),
)
def test_no_mark_makes_fetching_hang_or_run_while_full(
    steps: list[tuple[int, int]], max_records: int, resume_ratio: float
) -> None:
    """Whatever the marks: full means paused, and empty means fetching."""
    held = Held(Bounds(max_records, 1000, resume_ratio), 3)
    for step, partition in steps:
        if step > 0 and held.states[partition].source not in held.pressure.paused:
            held.take(min(step, held.pressure.room[0]), 10, partition)
        elif step < 0:
            held.release(min(len(held.states[partition].watermark), -step), 10, partition)
        held.decide()
        assert held.pressure.records <= max_records
        if held.pressure.records == max_records:
            assert len(held.pressure.paused) == 3
        if held.pressure.records == 0:
            assert not held.pressure.paused


def test_marks_hold_over_many_random_steps() -> None:
    """A partition alternates between paused and fetched; it is told each change once."""
    draw = random.Random(5)
    held = Held(Bounds(40, 10_000, 0.5), 4)
    paused: set[int] = set()
    for _ in range(5000):
        partition = draw.randrange(4)
        if partition not in paused and held.pressure.room[0]:
            held.take(draw.randint(0, held.pressure.room[0]), draw.randint(1, 300), partition)
        elif len(held.states[partition].watermark):
            state = held.states[partition]
            size = state.size_bytes
            count = len(state.watermark)
            for offset in list(state.watermark._order):
                state.watermark.finish(offset, None)  # type: ignore[arg-type]
            state.watermark.confirm(count)
            state.size_bytes = 0
            held.pressure.release(count, size)
        pause, resume = held.decide()
        assert not paused & set(pause)
        assert set(resume) <= paused
        paused = (paused | set(pause)) - set(resume)
