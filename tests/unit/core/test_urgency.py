"""Messages of urgent topics pass those that wait, and the others keep their share."""

from __future__ import annotations

import statistics
from collections import Counter

import pytest

from tests.support.rig import make_loop_policy
from tests.unit.core.test_pipeline import Flow
from worker.core.assignment import Backpressure, Bounds, PartitionState
from worker.core.urgency import Urgency
from worker.records.types import TopicPartition

RATE = 100.0
STEP_S = 0.01


class Topics:
    """A worker on an urgent topic and another one, whose engine answers ``RATE`` a second."""

    def __init__(self, urgent: int, others: int, *, first: bool = True, share: float = 0.1) -> None:
        urgency = Urgency("urgent".__eq__ if first else lambda _: False, share)
        policy = make_loop_policy(urgency=urgency)
        self.urgent, self.others = urgent, others
        self.flow = Flow(RATE, partitions=urgent + others, urgent=urgent, policy=policy)
        self.published: Counter[str] = Counter()
        self.took_s: list[float] = []
        self._sent: dict[tuple[int, int], float] = {}
        self.flow.rig.on_published(self._note)

    def backlog(self, *, urgent: int = 0, others: int = 0) -> None:
        for partition in range(self.urgent + self.others):
            self.flow.send(urgent if partition < self.urgent else others, partition)

    def run(self, seconds: float, *, urgent_per_s: float = 0.0) -> None:
        every = round(1 / urgent_per_s / STEP_S) if urgent_per_s else 0
        for step in range(round(seconds / STEP_S)):
            if every and step % every == 0:
                partition = step // every % self.urgent
                self._sent[partition, self.flow.sent[partition]] = self.flow.clock()
                self.flow.send(1, partition)
            self.flow.run(STEP_S, step_s=STEP_S)

    @property
    def p99_s(self) -> float:
        return statistics.quantiles(self.took_s, n=100)[98]

    def _note(self, batch: object) -> None:
        for completed in batch:  # type: ignore[attr-defined]
            source, offset = completed.record.source, completed.record.offset
            self.published[source.topic] += 1
            if (sent := self._sent.pop((source.partition, offset), None)) is not None:
                self.took_s.append(self.flow.clock() - sent)


@pytest.mark.parametrize(("urgent", "others"), [(1, 1), (4, 4), (1, 12)])
def test_urgent_messages_pass_a_backlog_and_those_before_them_lose_little(
    urgent: int, others: int
) -> None:
    idle, alone, behind = (Topics(urgent, others, first=first) for first in (True, False, True))
    idle.run(20, urgent_per_s=5)
    alone.backlog(others=8_000 // others)
    behind.backlog(others=8_000 // others)
    alone.run(20, urgent_per_s=5)
    behind.run(20, urgent_per_s=5)
    assert len(behind.took_s) > 90
    assert behind.p99_s < 5 * idle.p99_s
    assert alone.p99_s > 20 * idle.p99_s or not alone.took_s, "there was nothing to pass"
    assert behind.published["in"] > 0.9 * alone.published["in"]


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize(("urgent", "others"), [(1, 1), (4, 4), (12, 1)])
def test_the_others_keep_their_share_of_an_urgent_backlog(
    urgent: int, others: int, share: float
) -> None:
    both = Topics(urgent, others, share=share)
    both.backlog(urgent=5_000 // urgent, others=5_000 // others)
    both.run(30)
    assert both.published.total() > 0.9 * 30 * RATE
    assert both.published["in"] > 0.9 * share * both.published.total()
    assert both.published["urgent"] > both.published["in"]


def test_without_an_urgent_partition_a_worker_gives_the_others_all_it_has() -> None:
    """Another worker may have all of the urgent topic's partitions."""
    here, plain = Topics(0, 4), Topics(0, 4, first=False)
    for topics in (here, plain):
        topics.backlog(others=1000)
        topics.run(5)
    assert here.flow.rig.loop.state.in_flight_records > 300
    assert here.published == plain.published


@pytest.mark.parametrize("most", [1, 2, 9, 512])
def test_urgent_partitions_and_others_have_half_of_the_bounds_each(most: int) -> None:
    pressure = Backpressure(Bounds(most, 1 << 30))
    states = [
        PartitionState(TopicPartition("in", number), urgent=number == 0) for number in range(4)
    ]
    offset = 0
    while others := [each for each in states[1:] if each.source not in pressure.paused]:
        for state in others:
            state.watermark.add(offset := offset + 1)
            pressure.take(1)
            pressure.decide(states)
    assert pressure.records <= -(-most // 2) + 3
    assert most < 9 or states[0].source not in pressure.paused
    for state in states[1:]:
        state.watermark.forget_before(offset + 1)
    pressure.release(pressure.records, pressure.bytes)
    pressure.decide(states)
    assert not pressure.paused
