"""Publishing a replay: tried again when nothing happened, and never when it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.support.records import toy_record
from tests.support.toy_adapter import toy_serving_adapter
from worker.contract.records import Replay, read_dead_letter
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.offline.replay.publish import ReplayPublisher
from worker.offline.replay.run import publish_results
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


def replaying(scripted: Scripted) -> ReplayPublisher:
    return ReplayPublisher(
        scripted,  # type: ignore[arg-type]
        scripted.committed,
        attempts=3,
        backoff_s=0.0,
        timeout_s=1.0,
    )


def publish(scripted: Scripted) -> None:
    publisher = replaying(scripted)
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


class Picky(Scripted):
    """A publisher whose broker refuses each batch with a label among these, whole and without a
    word on which record it is for."""

    def __init__(self, *refused: int) -> None:
        super().__init__()
        self.refused = {str(offset).encode() for offset in refused}

    def publish(self, batch: Batch) -> None:
        """Refuse it, or take it."""
        if any(each.topic == "out" and each.value in self.refused for each in batch.outputs):
            raise OutputRefused("INVALID_RECORD: no key")
        super().publish(batch)


@pytest.mark.parametrize("refused", [(), (0,), (19,), (3, 4, 11), tuple(range(20))])
def test_a_record_that_the_broker_refuses_is_a_dead_letter_and_the_rest_is_published(
    refused: tuple[int, ...],
) -> None:
    """Else the same batch would fail each time that the command goes on."""
    picky = Picky(*refused)
    records = [toy_record(offset=offset) for offset in range(20)]
    results = {
        (record.source, record.offset): Outgoing("out", None, str(record.offset).encode())
        for record in records
    }
    replay = Replay("bug-17", "2026-03-02T08:00:00Z", "bug 17")
    publish_results(replaying(picky), toy_serving_adapter(), replay, records, results)
    written = [output for batch in picky.published for output in batch.outputs]
    dead = [read_dead_letter(each.headers) for each in written if each.topic == "dead"]
    assert len(written) == 20
    assert [letter.offset for letter in dead] == list(refused)
    assert {letter.reason for letter in dead} <= {"output_refused"}
    assert picky.offsets == {records[0].source: 20}


def test_it_gives_up_after_so_many_attempts() -> None:
    """With what to do: the same command goes on."""
    scripted = Scripted(*[(PublishAborted("no"), False)] * 3)
    with pytest.raises(StreamFailed, match="the same command goes on"):
        publish(scripted)
    assert scripted.published == []
