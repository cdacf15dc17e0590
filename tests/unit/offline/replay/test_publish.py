"""Publishing a replay: tried again when nothing happened, and never when it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from worker.errors import OutcomeUnknown, PublishAborted, RecordTooLarge, StreamFailed
from worker.offline.replay.publish import ReplayPublisher
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition

SOURCE = TopicPartition("in", 0)
NEXT = [NextOffset(SOURCE, 10)]
OUTPUT = Outgoing("out", None, b"large")


class Scripted:
    """A publisher that fails as told: each failure says whether the batch was published all the
    same."""

    def __init__(self, *script: tuple[Exception, bool]) -> None:
        self.script = list(script)
        self.published: list[Batch] = []
        self.offsets: dict[TopicPartition, int] = {}

    def ready(self, timeout_s: float) -> None:
        """Always is."""

    def publish(self, batch: Batch) -> None:
        """Do as the script says."""
        error, happened = self.script.pop(0) if self.script else (None, True)
        if happened:
            self.published.append(batch)
            self.offsets |= {following.source: following.offset for following in batch.next_offsets}
        if error is not None:
            raise error

    def committed(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where the group is."""
        return {source: self.offsets[source] for source in partitions if source in self.offsets}


def publish(scripted: Scripted) -> None:
    publisher = ReplayPublisher(
        scripted,  # type: ignore[arg-type]
        scripted.committed,
        attempts=3,
        backoff_s=0.0,
        timeout_s=1.0,
    )
    publisher.start()
    publisher.publish([OUTPUT], NEXT, lambda _, outgoing, __: Outgoing("dead", None, b"small"))


@pytest.mark.parametrize(
    "script",
    [
        (),
        ((PublishAborted("no"), False), (PublishAborted("no"), False)),
        ((OutcomeUnknown("?"), True),),
        ((OutcomeUnknown("?"), False),),
        ((OutcomeUnknown("?"), False), (PublishAborted("no"), False)),
    ],
)
def test_a_batch_is_published_once(script: tuple[tuple[Exception, bool], ...]) -> None:
    """Also when a commit is not answered, whether it happened or not."""
    scripted = Scripted(*script)
    publish(scripted)
    assert [batch.outputs for batch in scripted.published] == [[OUTPUT]]


def test_what_is_too_large_is_replaced() -> None:
    """And the batch is published with what took its place."""
    scripted = Scripted((RecordTooLarge([0]), False))
    publish(scripted)
    assert [outgoing.value for outgoing in scripted.published[0].outputs] == [b"small"]


def test_it_gives_up_after_so_many_attempts() -> None:
    """With what to do: the same command goes on."""
    scripted = Scripted(*[(PublishAborted("no"), False)] * 3)
    with pytest.raises(StreamFailed, match="the same command goes on"):
        publish(scripted)
    assert scripted.published == []
