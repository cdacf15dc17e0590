"""In any interleaving of work, rebalances, and failures, each record is published exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.support.rig import (
    Rig,
    SinkRecord,
    isolation,
    make_bounds,
    make_loop_policy,
    too_large,
)
from tests.support.worlds import World
from worker.contract.errors import MessageRejected
from worker.core.urgency import Urgency
from worker.errors import OutcomeUnknown, PublishAborted

PARTITIONS = 3
LATEST_S = 20.0
partitions = st.integers(0, PARTITIONS - 1)
NOTES = [
    "",
    "not ours",
    '{"v":1,"by":"another"}',
    '{"v":1,"by":"another","suspects":[0,4],"deaths":[1,1]}',
    '{"v":1,"suspects":[0,3],"deaths":[2,2]}',
]
"""Another worker's notes: closed, not ours, killed, killed in a trial, and its engine died."""
POLICY = make_loop_policy(
    bounds=make_bounds(max_records=6, max_bytes=200),
    publish_max_records=4,
    publish_attempts=10_000,
    revoke_drain_s=0.5,
    urgency=Urgency("urgent".__eq__),
)


class ExactlyOnce(RuleBasedStateMachine):
    """One worker under test, and another that owns the other partitions."""

    @initialize()
    def start(self) -> None:
        self.rig = Rig(
            partitions=PARTITIONS,
            urgent=1,
            policy=POLICY,
            deadline_s=50.0,
            tick=0.01,
            isolation=isolation("this", POLICY.bounds.max_records),
        )
        self.added = 0
        self.refused = False
        self.by_the_other: list[SinkRecord] = []

    def held(self, partition: int) -> bool:
        return self.rig.stream.sources[partition] in self.rig.stream.assigned

    @property
    def committed(self) -> int:
        return sum(self.rig.committed(partition) for partition in range(PARTITIONS))

    @rule(partition=partitions, count=st.integers(1, 4), empty=st.booleans())
    def messages_come(self, partition: int, count: int, empty: bool) -> None:
        for _ in range(count):
            self.rig.add(" " if empty else f"m{self.added}", partition=partition)
            self.added += 1

    @rule(times=st.integers(1, 3))
    def iterations_pass(self, times: int) -> None:
        self.rig.pass_time(times)

    @precondition(lambda self: self.rig.engine.pending)
    @rule(data=st.data())
    def the_engine_answers(self, data: st.DataObject) -> None:
        for text in data.draw(st.lists(st.sampled_from(self.rig.engine.pending), unique=True)):
            self.rig.engine.answer(text, p=0.9)

    @precondition(lambda self: self.rig.engine.pending)
    @rule(data=st.data())
    def the_engine_begins_one_it_cannot_call_off(self, data: st.DataObject) -> None:
        self.rig.engine.begin(data.draw(st.sampled_from(self.rig.engine.pending)))

    @precondition(lambda self: self.rig.engine.pending)
    @rule(data=st.data())
    def the_engine_refuses(self, data: st.DataObject) -> None:
        text = data.draw(st.sampled_from(self.rig.engine.pending))
        self.rig.engine.fail(text, MessageRejected("engine_rejected", ""))

    @rule(seconds=st.sampled_from([1.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)

    @rule(partition=partitions, within_a_poll=st.booleans())
    def a_partition_is_assigned(self, partition: int, within_a_poll: bool) -> None:
        if not self.held(partition):
            self.now_or_at_the_poll(lambda: self.rig.stream.assign(partition), within_a_poll)

    @rule(partition=partitions, within_a_poll=st.booleans())
    def a_partition_is_revoked(self, partition: int, within_a_poll: bool) -> None:
        if self.held(partition):
            self.now_or_at_the_poll(lambda: self.rig.stream.revoke(partition), within_a_poll)

    @rule(partition=partitions, within_a_poll=st.booleans())
    def a_partition_is_lost(self, partition: int, within_a_poll: bool) -> None:
        if self.held(partition):
            self.now_or_at_the_poll(lambda: self.rig.stream.lose(partition), within_a_poll)

    def now_or_at_the_poll(self, action: Any, within_a_poll: bool) -> None:
        if within_a_poll:
            self.rig.stream.script.append(action)
            self.rig.loop.run_once()
        else:
            action()

    @rule(partition=partitions, count=st.integers(1, 3), note=st.sampled_from(NOTES))
    def another_worker_does_some(self, partition: int, count: int, note: str) -> None:
        if self.held(partition):
            return
        source = self.rig.stream.sources[partition]
        start = self.rig.committed(partition)
        for record in self.rig.stream.log[source][start : start + count]:
            self.by_the_other.append(SinkRecord("out", record.id))
            self.rig.stream.committed[source] = record.offset + 1
            self.rig.stream.notes[source] = note

    @precondition(lambda self: not self.rig.stream.failures)
    @rule(failure=st.sampled_from(["aborted", "unknown", "unknown, published", "too large"]))
    def the_next_publish_fails(self, failure: str) -> None:
        self.rig.stream.commits_before_failure = failure == "unknown, published"
        error: Exception = OutcomeUnknown("no answer")
        if failure == "aborted":
            error = PublishAborted("aborted")
        # Once: a worker rightly stops if a dead letter without its payload is refused too.
        if failure == "too large" and not self.refused:
            error = too_large([0])
            self.refused = True
        self.rig.stream.failures.append(error)

    @precondition(lambda self: hasattr(self, "rig"))
    @invariant()
    def committed_offsets_account_for_the_outputs(self) -> None:
        ids = [published.id for published in [*self.rig.outputs, *self.by_the_other]]
        assert len(ids) == len(set(ids)), "published twice"
        expected = {
            f"{self.rig.stream.sources[partition].topic}-{partition}-{offset}"
            for partition in range(PARTITIONS)
            for offset in range(self.rig.committed(partition))
        }
        assert set(ids) == expected, "an offset was committed without its output, or the reverse"
        assert self.rig.loop.state.in_flight_records <= POLICY.bounds.max_records

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        rig = self.rig
        for partition in range(PARTITIONS):
            if not self.held(partition):
                rig.stream.assign(partition)
        for _ in range(1000):
            if not rig.loop.state.in_flight_records and self.committed == self.added:
                break
            for text in rig.engine.pending:
                rig.engine.answer(text)
            rig.iterate()
        self.committed_offsets_account_for_the_outputs()
        assert self.committed == self.added, "a record is stuck"
        assert (rig.loop.state.in_flight_records, rig.loop._pressure.bytes) == (0, 0)
        rig.iterate(2)
        assert rig.loop._requests.in_engine == len(rig.engine.pending)


class TestExactlyOnce(ExactlyOnce.TestCase):  # type: ignore[misc,valid-type]
    """In any order of events, no record is lost and none is published twice."""

    settings = settings(max_examples=60, stateful_step_count=30)


def simulate(seed: int) -> None:
    """Run one random world: no record is lost, doubled, stuck, or late, and no good one a dead
    letter."""
    world = World(seed)
    world.run(steps=world.draw.randint(50, 600))
    assert world.finish(), f"seed {seed}: a record is stuck"
    world.verify()
    # Each attempt to publish takes a step of the world's time, and a refused record several.
    late_s = world.settle()
    assert late_s <= LATEST_S + 512 / world.pace, f"seed {seed}: a result came after {late_s} s"
    world.verify()


@pytest.mark.parametrize("seed", range(20))
def test_each_record_has_its_one_right_end(seed: int) -> None:
    """With any pace of the stages, and any refusals, failures, rebalances, and kills."""
    simulate(seed)


@pytest.mark.long  # a quarter of an hour
@pytest.mark.timeout(3600)
def test_each_record_has_its_one_right_end_in_a_thousand_worlds() -> None:
    for seed in range(1_000, 2_000):
        simulate(seed)
