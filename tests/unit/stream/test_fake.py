"""The fake keeps the promises that tests rely on."""

import pytest

from worker.errors import OutcomeUnknown, PublishAborted
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition
from worker.stream.fake import FakeStream


class Owner:
    """Takes note of what it is told, and publishes when it is asked to let go."""

    def __init__(self) -> None:
        self.told: list[tuple[str, int]] = []

    def on_assigned(self, partitions: list[TopicPartition]) -> None:
        self.told += [("assigned", source.partition) for source in partitions]

    def on_revoked(self, partitions: list[TopicPartition]) -> None:
        self.told += [("revoked", source.partition) for source in partitions]

    def on_lost(self, partitions: list[TopicPartition]) -> None:
        self.told += [("lost", source.partition) for source in partitions]


@pytest.fixture
def stream() -> FakeStream:
    made = FakeStream(partitions=2)
    made.subscribe(Owner())  # type: ignore[arg-type]
    return made


def batch(stream: FakeStream, offset: int, partition: int = 0) -> Batch:
    return Batch([Outgoing("out", None, b"x")], [NextOffset(stream.sources[partition], offset)])


def test_records_come_in_order_from_the_committed_offset(stream: FakeStream) -> None:
    """A partition that comes back is read from where it was committed, not from where it was."""
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
    """After resume they go on where they stopped."""
    stream.assign(0, 1)
    stream.add(b"x", 0)
    stream.add(b"y", 1)
    stream.pause([stream.sources[0]])
    assert [record.value for record in stream.poll(9, 0)] == [b"y"]
    stream.resume([stream.sources[0]])
    assert [record.value for record in stream.poll(9, 0)] == [b"x"]


def test_polling_for_nothing_delivers_nothing(stream: FakeStream) -> None:
    """It serves the client only."""
    stream.assign(0)
    stream.add(b"x")
    assert stream.poll(0, 0) == []
    assert len(stream.poll(1, 0)) == 1


def test_outputs_and_offsets_become_visible_together_or_not_at_all(stream: FakeStream) -> None:
    """The one promise that matters."""
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
    """Offsets that go backwards, and offsets of a partition that another worker has."""
    stream.assign(0)
    stream.publish(batch(stream, 2))
    with pytest.raises(AssertionError, match="backwards"):
        stream.publish(batch(stream, 1))
    with pytest.raises(AssertionError, match="lost"):
        stream.publish(batch(stream, 1, partition=1))
