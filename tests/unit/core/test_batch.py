"""From finished records to a batch."""

import pytest

from tests.support.fakes import NOW
from tests.support.records import toy_completed, toy_record
from worker.core.assignment import PartitionState
from worker.core.batch import TopicRouter, build_batch, replace_refused, take_ready
from worker.errors import StreamFailed
from worker.records.types import NextOffset, Rejected, TopicPartition

TOO_LARGE = Rejected("output_too_large", "encode", "")
ROUTER = TopicRouter("out", None)


def state(partition: int, finished: int, unfinished: int = 0, first: int = 0) -> PartitionState:
    source = TopicPartition("in", partition)
    made = PartitionState(source)
    rejected = Rejected("tombstone", "decode", "")
    for offset in range(first, first + finished + unfinished):
        made.watermark.add(offset)
        if offset < first + finished:
            record = toy_record(source=source, offset=offset)
            made.watermark.finish(offset, toy_completed(record, rejected))
    return made


def counts(partitions: list[PartitionState], limit: int) -> dict[int, int]:
    batches = take_ready(partitions, limit)
    return {batch.partition.source.partition: len(batch.completed) for batch in batches}


def test_each_partition_gets_its_share_of_a_batch() -> None:
    """A busy partition does not keep a quiet one waiting, and no room is left unused."""
    assert counts([state(0, 100), state(1, 2), state(2, 100)], 10) == {0: 4, 1: 2, 2: 4}
    assert counts([state(0, 100), state(1, 100), state(2, 2)], 10) == {0: 4, 1: 4, 2: 2}
    assert counts([state(0, 100), state(1, 0)], 10) == {0: 10}
    assert sum(counts([state(n, 5) for n in range(7)], 3).values()) == 3


def test_a_batch_carries_the_offset_after_each_partitions_last_record() -> None:
    """The committed offset accounts for just what the batch holds, gaps and all."""
    batch = build_batch(take_ready([state(0, 3, 2, first=7), state(1, 1)], 10), ROUTER, NOW)
    assert len(batch.outputs) == 4
    assert sorted(batch.next_offsets, key=lambda following: following.source.partition) == [
        NextOffset(TopicPartition("in", 0), 10),
        NextOffset(TopicPartition("in", 1), 1),
    ]


def test_indexes_of_records_too_large_find_their_partition() -> None:
    """The broker's complaint is about a place in the batch; the right record is made smaller."""
    partitions = [state(0, 2), state(1, 2)]
    batches = take_ready(partitions, 10)
    replace_refused(batches, [3], TOO_LARGE)
    smaller = {
        (partition.source.partition, offset)
        for partition in partitions
        for offset, completed in partition.watermark.peek(9)
        if completed.without_payload
    }
    last = batches[-1].partition.source.partition
    assert smaller == {(last, 1)}


def test_a_dead_letter_too_large_even_without_its_payload_stops_the_worker() -> None:
    """There is nowhere left to put the record: going on would lose it."""
    partition = state(0, 1)
    replace_refused(take_ready([partition], 1), [0], TOO_LARGE)
    with pytest.raises(StreamFailed, match=r"dead letter of in-0-0 .* dead-letter topic"):
        replace_refused(take_ready([partition], 1), [0], TOO_LARGE)
