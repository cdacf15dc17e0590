"""The buffer between the client and the loop."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from worker.records.types import Record, TopicPartition
from worker.stream.fetch_buffer import RECORD_BYTES, FetchBuffer

SOURCES = [TopicPartition("in", number) for number in range(4)]
SIZE_BYTES = 100


def record(source: TopicPartition, offset: int) -> Record:
    return Record(source, offset, None, bytes(SIZE_BYTES))


def room_for(records: int) -> int:
    return records * (SIZE_BYTES + RECORD_BYTES)


def filled(counts: list[int], *, most: int = 100) -> FetchBuffer:
    buffer = FetchBuffer(room_for(most))
    for source, count in zip(SOURCES, counts, strict=False):
        for offset in range(count):
            buffer.add(record(source, offset))
    return buffer


def test_partitions_take_turns() -> None:
    buffer = filled([3, 1, 2])
    found = [(each.source.partition, each.offset) for each in buffer.take(10, None, None)]
    assert found == [(0, 0), (1, 0), (2, 0), (0, 1), (2, 1), (0, 2)]


def test_a_stopped_partition_keeps_its_records() -> None:
    buffer = filled([2, 2])
    buffer.stop(SOURCES[:1])
    assert {each.source for each in buffer.take(10, None, None)} == {SOURCES[1]}
    assert not buffer
    buffer.start(SOURCES[:1])
    assert [each.offset for each in buffer.take(10, None, None)] == [0, 1]


def test_one_partition_alone_may_have_half_and_its_fetch_resumes_at_half_of_that() -> None:
    buffer = filled([49])
    assert buffer.regulate(set()) == ([], [])
    buffer.add(record(SOURCES[0], 49))
    assert buffer.regulate(set()) == ([SOURCES[0]], [])
    buffer.take(24, None, None)
    assert buffer.regulate(set()) == ([], [])
    buffer.take(1, None, None)
    assert buffer.regulate(set()) == ([], [SOURCES[0]])
    assert not buffer.paused


def test_a_partition_that_is_blocked_leaves_room_for_the_others() -> None:
    buffer = filled([50])
    buffer.stop(SOURCES[:1])
    buffer.regulate(set())
    buffer.add(record(SOURCES[1], 0))
    assert buffer.regulate(set()) == ([], [])


def test_the_fetch_of_a_held_partition_is_paused_at_once_and_until_it_is_released() -> None:
    buffer = filled([1])
    buffer.stop(SOURCES[:1])
    assert buffer.regulate({SOURCES[0]}) == ([SOURCES[0]], [])
    buffer.start(SOURCES[:1])
    buffer.take(1, None, None)
    assert buffer.regulate(set()) == ([], [SOURCES[0]])


def test_a_partition_continues_within_what_is_buffered() -> None:
    buffer = filled([10])
    assert buffer.skip_to(SOURCES[0], 7)
    assert [each.offset for each in buffer.take(10, None, None)] == [7, 8, 9]
    buffer = filled([10])
    assert not buffer.skip_to(SOURCES[0], 10)
    assert not buffer


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "take", "stop", "start", "skip", "clear"]), st.integers(0, 3)
    ),
    max_size=200,
)


@given(STEPS)
def test_whatever_happens_each_record_is_delivered_once_and_in_order(
    steps: list[tuple[str, int]],
) -> None:
    buffer = FetchBuffer(room_for(20))
    expected: dict[TopicPartition, deque[int]] = {source: deque() for source in SOURCES}
    sent: Counter[TopicPartition] = Counter()
    stopped: set[TopicPartition] = set()
    for step, number in steps:
        source = SOURCES[number]
        match step:
            case "add":
                buffer.add(record(source, sent[source]))
                expected[source].append(sent[source])
                sent[source] += 1
            case "take":
                for taken in buffer.take(number + 1, None, None):
                    assert taken.source not in stopped
                    assert expected[taken.source].popleft() == taken.offset
            case "stop":
                buffer.stop([source])
                stopped.add(source)
            case "start":
                buffer.start([source])
                stopped.discard(source)
            case "skip":
                buffer.skip_to(source, sent[source] - 1)
                while expected[source] and expected[source][0] < sent[source] - 1:
                    expected[source].popleft()
            case "clear":
                buffer.clear([source])
                stopped.discard(source)
                expected[source].clear()
        buffer.regulate(set())
        held = sum(map(len, expected.values()))
        assert buffer._free == room_for(20) - room_for(held)
        assert bool(buffer) == any(expected[each] for each in SOURCES if each not in stopped)
