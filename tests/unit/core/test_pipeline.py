"""The loop with default settings and engines that hang, are slow, or never answer one message."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from tests.support.paced_engine import PacedEngine
from tests.support.rig import Rig, isolation
from tests.support.toy_adapter import (
    CASCADE,
    ENCODERS,
    LARGE,
    SMALL,
    large,
    small,
    toy_serving_adapter,
)
from worker.core.arms import AdapterRouter, TrafficSplit
from worker.core.assignment import OffsetNote
from worker.engine.cascade import CascadeEngine, OpenStage
from worker.engine.fake import FakeEngine
from worker.engine.pacing import AdmissionPolicy
from worker.errors import EngineDied

STEP_S = 0.2


class Flow:
    """A rig on a manual clock whose engine answers at a given rate."""

    def __init__(self, rate: float, *, never: tuple[str, ...] = (), **options: Any) -> None:
        self.rig = Rig(**options)
        self.clock = self.rig.clock
        self.engine = PacedEngine(self.clock, rate, never)
        adapter = toy_serving_adapter(self.engine)
        self.rig.use(AdapterRouter(TrafficSplit.all_to(adapter), self.rig.router_events))
        self.rig.stream.assign(*range(self.rig.partitions))
        self.started = self.clock()
        self.published_at: dict[int, float] = {}
        self.batches: list[int] = []
        self.rig.on_published(self._note)
        self.sent: Counter[int] = Counter()

    @property
    def reasons(self) -> Counter[str | None]:
        """Published records by the reason of rejection, None for a label."""
        return Counter(published.reason for published in self.rig.outputs)

    def send(self, count: int, partition: int = 0) -> None:
        """Append messages to a partition."""
        for _ in range(count):
            self.rig.add(f"p{partition}m{self.sent[partition]}", partition=partition)
            self.sent[partition] += 1

    def run(
        self, seconds: float, per_s: float = 0.0, partition: int = 0, step_s: float = STEP_S
    ) -> None:
        """Let time pass in small steps, messages coming in at ``per_s``."""
        due = 0.0
        for _ in range(round(seconds / step_s)):
            due += per_s * step_s
            self.send(int(due), partition)
            due -= int(due)
            self.clock.advance(step_s)
            self.engine.work()
            self.rig.loop.run_once()

    def _note(self, batch: Any) -> None:
        self.batches.append(len(batch))
        for completed in batch:
            self.published_at[completed.record.source.partition] = self.clock() - self.started


@pytest.mark.slow
def test_a_hung_engine_under_load_is_noticed_before_a_message_is_lost() -> None:
    """Messages that time out are cancelled, and a cancellation must not count as an answer."""
    flow = Flow(rate=40.0)
    flow.run(30, per_s=20)
    flow.engine.rate = 0.0
    silent_from = flow.clock()
    with pytest.raises(EngineDied, match="answered nothing"):
        flow.run(600, per_s=20)
    noticed_s = flow.clock() - silent_from
    assert noticed_s < flow.rig.deadline_s
    assert flow.reasons.keys() == {None}, "a message was given up for the engine's fault"


@pytest.mark.slow
def test_an_engine_that_becomes_slow_with_a_full_window_loses_no_message() -> None:
    """The messages in it take longer than the deadline because of the engine's pace."""
    flow = Flow(rate=100.0)
    flow.send(3000)
    flow.run(10)
    assert flow.engine.pending > 150
    flow.engine.rate = 1.0
    flow.run(600)
    assert flow.reasons.keys() == {None}


@pytest.mark.slow
def test_a_message_without_an_answer_is_given_up_alone() -> None:
    flow = Flow(rate=20.0, never=("p0m5",))
    flow.run(200, per_s=5)
    assert flow.reasons["deadline_exceeded"] == 1
    assert flow.reasons[None] > 900


@pytest.mark.slow
def test_a_message_without_an_answer_on_a_quiet_topic_is_given_up_alone() -> None:
    flow = Flow(rate=20.0, never=("p0m0",))
    flow.send(1)
    flow.run(200)
    assert flow.reasons == {"deadline_exceeded": 1}
    flow.send(1)
    flow.run(2)
    assert flow.reasons[None] == 1


@pytest.mark.slow
@pytest.mark.parametrize("blocked", [1, 3])
def test_unanswered_messages_stall_their_own_partitions_alone(blocked: int) -> None:
    never = tuple(f"p{partition}m0" for partition in range(blocked))
    flow = Flow(rate=200.0, never=never, partitions=4)
    for _ in range(275):
        for partition in range(4):
            flow.send(6, partition)
        flow.run(0.2)
    healthy = [flow.published_at.get(partition, 0.0) for partition in range(blocked, 4)]
    assert all(last > 54 for last in healthy), flow.published_at
    published = Counter(output.id.split("-")[1] for output in flow.rig.outputs)
    for partition in range(blocked, 4):
        assert published[str(partition)] > 1500


@pytest.mark.slow
def test_the_bytes_held_are_bounded() -> None:
    """By one record more than the bound: its size is only known once it is fetched."""
    flow = Flow(rate=0.0)
    largest = 1 << 20
    for number in range(400):
        flow.rig.stream.add(b"%06d" % number + b"x" * (largest - 6))
    flow.run(3)
    assert flow.rig.loop.state.in_flight_bytes <= flow.rig.policy.bounds.max_bytes + largest


@pytest.mark.slow
def test_a_fast_engine_is_kept_busy() -> None:
    flow = Flow(rate=1000.0)
    flow.send(20_000)
    flow.run(10)
    assert flow.engine.most_pending > 100
    assert flow.reasons[None] > 8000


@pytest.mark.slow
def test_a_backlog_in_many_partitions_is_published_in_large_batches() -> None:
    """A transaction costs about a millisecond a partition, however many records it has."""
    flow = Flow(rate=50_000.0, partitions=96)
    for partition in range(96):
        flow.send(60, partition)
    flow.run(0.5, step_s=0.02)
    sizes = flow.batches[2:-2]  # without those of a small window, and of the backlog's end
    assert len(sizes) >= 4
    assert min(sizes) > 0.6 * flow.rig.policy.bounds.max_records, sizes


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_no_message_is_lost_whatever_pace_the_engine_takes(seed: int) -> None:
    draw = random.Random(seed)
    flow = Flow(rate=10 ** draw.uniform(-0.7, 3), partitions=draw.randint(1, 5))
    for _ in range(12):
        flow.engine.rate = 10 ** draw.uniform(-0.7, 3)
        for _ in range(20):
            flow.send(draw.randint(0, 40), draw.randrange(flow.rig.partitions))
            flow.run(draw.uniform(0.1, 3))
    assert flow.reasons.keys() <= {None}
    flow.engine.rate = 1000.0
    flow.run(60)
    assert flow.reasons[None] == sum(flow.sent.values())


DEADLINE_S = 60


def hung_with_orphans(*, suspects: bool) -> Rig:
    """A worker that lost partition 0 with its engine hung, and has partition 1 since."""
    rig = Rig(partitions=2, isolation=isolation(), deadline_s=DEADLINE_S)
    rig.stream.assign(0)
    rig.add("gone")
    rig.iterate(2)
    rig.engine.begin("gone")
    rig.stream.lose(0)
    if suspects:
        rig.stream.notes[rig.stream.sources[1]] = OffsetNote(owner="p0").encode(0)
    rig.add("suspect", partition=1)
    rig.stream.assign(1)
    return rig


def test_a_hang_is_noticed_while_suspects_wait_for_the_engine_to_be_empty() -> None:
    """The suspects wait for cancelled records that the engine never answers. Only another prompt
    shows that it hangs."""
    rig = hung_with_orphans(suspects=True)
    with pytest.raises(EngineDied, match="answered nothing"):
        rig.iterate(DEADLINE_S)
    assert rig.engine.pending.count("suspect") == 0
    assert rig.stream.committed.get(rig.stream.sources[1], 0) == 0


def test_suspects_are_tried_once_the_engine_has_finished_cancelled_records() -> None:
    rig = hung_with_orphans(suspects=True)
    rig.pass_time(DEADLINE_S // 2)
    assert rig.engine.pending == ["gone"]
    rig.answer("gone")
    rig.iterate(2)
    rig.answer("suspect")
    rig.iterate()
    assert rig.ids == ["in-1-0"]


def test_without_suspects_the_next_record_reveals_the_hang() -> None:
    rig = hung_with_orphans(suspects=False)
    with pytest.raises(EngineDied, match="answered nothing"):
        rig.iterate(DEADLINE_S)


POLICY = AdmissionPolicy(max_in_engine=256, deadline_s=60.0)  # the settings' defaults


class PacedCascade:
    """A loop over a cascade. ``paces``: each stage's answers a second, first in, first out."""

    def __init__(self, paces: tuple[float, float], policy: AdmissionPolicy = POLICY) -> None:
        self.rig = Rig(deadline_s=policy.deadline_s)
        self.engines = (FakeEngine(small), FakeEngine(large))
        self.paces = paces
        self.credit = [0.0, 0.0]
        stages = [
            OpenStage(rule, manifest, ENCODERS.plain, engine)
            for rule, manifest, engine in zip(
                CASCADE.stages, (SMALL, LARGE), self.engines, strict=True
            )
        ]
        cascade = CascadeEngine(stages, policy, self.rig.clock)
        adapter = toy_serving_adapter(cascade, CASCADE)
        self.rig.use(AdapterRouter(TrafficSplit.all_to(adapter), self.rig.router_events))

    def run(self, seconds: float, step_s: float = 0.1) -> Counter[str | None]:
        """Run for a time; count the results by reason (None: labelled)."""
        for _ in range(int(seconds / step_s)):
            self.rig.clock.advance(step_s)
            for at, engine in enumerate(self.engines):
                self.credit[at] = min(self.credit[at] + self.paces[at] * step_s, 1_000.0)
                pending = len(engine.pending)
                for _ in range(min(pending, int(self.credit[at]))):
                    engine.finish()
                    self.credit[at] -= 1
                if not pending:
                    self.credit[at] = min(self.credit[at], 1.0)
            self.rig.loop.run_once()
        return Counter(published.reason for published in self.rig.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("pace", [5.0, 1.0, 0.5, 0.1])
def test_a_slow_last_stage_makes_no_dead_letters(pace: float) -> None:
    world, draw = PacedCascade((200.0, pace)), random.Random(7)
    for number in range(5_000):
        world.rig.add(f"{'sure' if draw.random() < 0.8 else 'unsure'} {number}")
    world.rig.stream.assign(0)
    found = world.run(600.0)
    assert set(found) == {None}
    assert found[None] >= 0.9 * 5 * pace * 600 or found[None] == 5_000
