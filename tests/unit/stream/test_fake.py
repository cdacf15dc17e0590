"""The fake stream keeps the promises that other tests rely on."""

from collections.abc import Callable
from typing import Any

import pytest

from worker.errors import OutcomeUnknown, PublishAborted
from worker.records.types import Batch, NextOffset, Outgoing
from worker.stream.fake import FakeStream


class Owner:
    """A listener that ignores rebalances."""

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda _: None


@pytest.fixture
def stream() -> FakeStream:
    made = FakeStream(partitions=2)
    made.subscribe(Owner())
    return made


def batch(stream: FakeStream, offset: int, partition: int = 0) -> Batch:
    return Batch([Outgoing("out", None, b"x")], [NextOffset(stream.sources[partition], offset)])


def test_records_come_in_order_from_the_committed_offset(stream: FakeStream) -> None:
    for _ in range(3):
        stream.add(b"x")
    stream.assign(0)
    assert [record.offset for record in stream.poll(2, 0)] == [0, 1]
    stream.publish(batch(stream, 1))
    stream.lose(0)
    assert stream.poll(9, 0) == []
    stream.assign(0)
    assert [record.offset for record in stream.poll(9, 0)] == [1, 2]


def test_paused_partitions_deliver_nothing_and_lose_nothing(stream: FakeStream) -> None:
    stream.assign(0, 1)
    stream.add(b"x", 0)
    stream.add(b"y", 1)
    stream.pause([stream.sources[0]])
    assert [record.value for record in stream.poll(9, 0)] == [b"y"]
    stream.resume([stream.sources[0]])
    assert [record.value for record in stream.poll(9, 0)] == [b"x"]


def test_outputs_and_offsets_become_visible_together_or_not_at_all(stream: FakeStream) -> None:
    stream.assign(0)
    stream.failures.extend([PublishAborted("no"), None, OutcomeUnknown("?")])
    with pytest.raises(PublishAborted):
        stream.publish(batch(stream, 1))
    assert (stream.outputs, stream.resolve_unknown_commit(stream.sources)) == ([], [])
    stream.publish(batch(stream, 1))
    assert len(stream.outputs) == stream.committed[stream.sources[0]] == 1
    stream.commits_before_failure = True
    with pytest.raises(OutcomeUnknown):
        stream.publish(batch(stream, 2))
    assert stream.resolve_unknown_commit(stream.sources) == [NextOffset(stream.sources[0], 2)]


def test_what_a_real_cluster_would_forbid_fails(stream: FakeStream) -> None:
    stream.assign(0)
    stream.publish(batch(stream, 2))
    with pytest.raises(AssertionError, match="backwards"):
        stream.publish(batch(stream, 1))
    with pytest.raises(AssertionError, match="lost"):
        stream.publish(batch(stream, 1, partition=1))
