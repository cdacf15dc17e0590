"""From finished records to a batch."""

import pytest

from tests.support.helpers import NOW, toy_finished, toy_record
from worker.core.assignment import PartitionState
from worker.core.batch import TopicRouter, build_batch, replace_oversized, take
from worker.errors import StreamFailed
from worker.records.types import NextOffset, Rejected, TopicPartition

ROUTER = TopicRouter("out", None)


def held(partition: int, finished: int, unfinished: int = 0, first: int = 0) -> PartitionState:
    source = TopicPartition("in", partition)
    one = PartitionState(source)
    for offset in range(first, first + finished + unfinished):
        one.watermark.add(offset)
        if offset < first + finished:
            record = toy_record(source=source, offset=offset)
            one.watermark.finish(offset, toy_finished(record, Rejected("why", "decode", "")))
    return one


def counts(parts: list[PartitionState], limit: int) -> dict[int, int]:
    return {part.held.source.partition: len(part.finished) for part in take(parts, limit)}


def test_each_partition_gets_its_share_of_a_batch() -> None:
    """A busy partition does not keep a quiet one waiting, and no room is left unused."""
    assert counts([held(0, 100), held(1, 2), held(2, 100)], 10) == {0: 4, 1: 2, 2: 4}
    assert counts([held(0, 100), held(1, 100), held(2, 2)], 10) == {0: 4, 1: 4, 2: 2}
    assert counts([held(0, 100), held(1, 0)], 10) == {0: 10}
    assert sum(counts([held(n, 5) for n in range(7)], 3).values()) == 3


def test_a_batch_carries_the_offset_after_each_partitions_last_record() -> None:
    """The committed offset accounts for just what the batch holds, gaps and all."""
    batch = build_batch(take([held(0, 3, 2, first=7), held(1, 1)], 10), ROUTER, NOW)
    assert len(batch.outputs) == 4
    assert sorted(batch.next_offsets, key=lambda one: one.source.partition) == [
        NextOffset(TopicPartition("in", 0), 10),
        NextOffset(TopicPartition("in", 1), 1),
    ]


def test_indexes_of_records_too_large_find_their_partition() -> None:
    """The broker's complaint is about a place in the batch; the right record is made smaller."""
    parts = [held(0, 2), held(1, 2)]
    taken = take(parts, 10)
    replace_oversized(taken, [3], "")
    bare = {
        (part.source.partition, offset): one.bare
        for part in parts
        for offset, one in part.watermark.peek(9)
    }
    last = taken[-1].held.source.partition
    assert {key for key, is_bare in bare.items() if is_bare} == {(last, 1)}


def test_a_dead_letter_too_large_even_when_bare_stops_the_worker() -> None:
    """There is nowhere left to put the record: going on would lose it."""
    part = held(0, 1)
    replace_oversized(take([part], 1), [0], "")
    with pytest.raises(StreamFailed, match=r"dead letter of in-0-0 .* dead-letter topic"):
        replace_oversized(take([part], 1), [0], "")
