"""The loop, step by step: order, outcomes, and how much is in flight."""

from dataclasses import dataclass, field

import pytest

from tests.support.rig import (
    Clock,
    Rig,
    ScriptedEngine,
    SinkRecord,
    make_bounds,
    make_loop_policy,
    started,
)
from tests.support.toy_adapter import one_golden, toy_manifest, toy_serving_adapter, toy_spec
from worker.contract.errors import MessageRejected
from worker.core.arms import CANARY, AdapterRouter, Arm, TrafficSplit
from worker.core.labeller import Labeller, Prepared
from worker.core.pipeline import ADMISSION_S
from worker.errors import EngineDied, StreamFailed
from worker.records.types import Record

# Ordering.


def test_only_the_contiguous_finished_prefix_is_published() -> None:
    rig = started("m0", "m1", "m2", "m3")
    rig.answer("m1", "m3")
    assert (rig.ids, rig.committed()) == ([], 0)
    rig.answer("m0")
    assert (rig.ids, rig.committed()) == (["in-0-0", "in-0-1"], 2)
    rig.answer("m2")
    assert (rig.ids, rig.committed()) == ([f"in-0-{n}" for n in range(4)], 4)


def test_a_slow_message_holds_up_its_own_partition_only() -> None:
    rig = Rig(partitions=2)
    rig.add("slow", "m1")
    rig.add("n0", "n1", partition=1)
    rig.stream.assign(0, 1)
    rig.iterate()
    rig.answer("m1", "n1", "n0")
    assert rig.ids == ["in-1-0", "in-1-1"]
    assert (rig.committed(0), rig.committed(1)) == (0, 2)


def test_results_wait_for_the_interval_unless_nothing_else_is_held() -> None:
    rig = started("m0", "m1", policy=make_loop_policy(publish_interval_s=60.0))
    rig.answer("m0")
    assert rig.ids == []
    rig.answer("m1")
    assert rig.ids == ["in-0-0", "in-0-1"]


def test_a_full_batch_does_not_wait_for_the_interval() -> None:
    policy = make_loop_policy(publish_interval_s=60.0, publish_max_records=2)
    rig = started("m0", "m1", "m2", "m3", policy=policy)
    rig.answer("m0", "m1")
    assert [len(batch.outputs) for batch in rig.stream.publishes] == [2]


# Where a record ends.


def test_every_record_ends_in_exactly_one_topic() -> None:
    rig = Rig()
    rig.add("sure", "doubtful", " ")
    rig.stream.add(None)
    rig.stream.add(b"\xff\xfe")
    rig.stream.assign(0)
    rig.iterate()
    rig.engine.answer("doubtful", "other", p=0.011)
    rig.answer("sure")
    assert rig.outputs == [
        SinkRecord("out", "in-0-0", label="billing"),
        SinkRecord("review", "in-0-1", label="other"),
        SinkRecord("dead", "in-0-2", reason="empty_message"),
        SinkRecord("dead", "in-0-3", reason="tombstone"),
        SinkRecord("dead", "in-0-4", reason="not_utf8"),
    ]
    assert rig.committed() == 5
    assert rig.loop.state.in_flight_records == 0


def test_without_a_review_topic_doubtful_labels_go_to_the_output() -> None:
    rig = started("doubtful", review_topic=None)
    rig.engine.answer("doubtful", p=0.1)
    rig.iterate()
    assert rig.outputs == [SinkRecord("out", "in-0-0", label="billing")]


def test_a_message_that_the_engine_refuses_is_repeated_and_then_a_dead_letter() -> None:
    rig = started("passing", "lasting", max_attempts=3)
    rig.engine.fail("passing", MessageRejected("engine_rejected", "why"))
    for _ in range(3):
        rig.engine.fail("lasting", MessageRejected("engine_rejected", "why"))
        rig.iterate()
    rig.answer("passing")
    assert rig.outputs == [
        SinkRecord("out", "in-0-0", label="billing"),
        SinkRecord("dead", "in-0-1", reason="engine_rejected"),
    ]
    assert dict(rig.stream.outputs[1].headers)["clerk.attempt"] == b"3"
    assert rig.stream.outputs[1].value == b"lasting"
    assert len(rig.engine.submitted) == 5


def test_an_answer_that_is_not_a_label_is_repeated_and_then_a_dead_letter() -> None:
    rig = started("m0", max_attempts=2)
    for _ in range(2):
        rig.engine.answer("m0", label=None)
        rig.iterate()
    assert rig.outputs == [SinkRecord("dead", "in-0-0", reason="invalid_answer")]


def test_a_message_without_an_answer_in_time_is_rejected_and_its_answer_ignored() -> None:
    """A stuck message blocks its partition for the deadline at most."""
    rig = started("stuck", "m1", deadline_s=10.0)
    rig.answer("m1")
    rig.engine.begin("stuck")
    rig.pass_time(7)
    assert rig.outputs == []
    rig.pass_time(4)
    assert rig.outputs == [
        SinkRecord("dead", "in-0-0", reason="deadline_exceeded"),
        SinkRecord("out", "in-0-1", label="billing"),
    ]
    rig.answer("stuck")
    rig.iterate()
    assert len(rig.ids) == 2
    assert rig.loop.state.in_flight_records == 0


def test_an_answer_that_came_in_time_counts_even_if_the_loop_was_away() -> None:
    """A slow publish does not turn answered records into rejected ones."""
    rig = started("m0", deadline_s=10.0)
    rig.engine.answer("m0")
    rig.clock.advance(60.0)
    rig.iterate()
    assert rig.outputs == [SinkRecord("out", "in-0-0", label="billing")]


def test_a_message_that_the_engine_cancels_ends_at_its_deadline() -> None:
    rig = started("m0", deadline_s=10.0)
    rig.engine.future("m0").cancel()
    rig.iterate()
    assert rig.ids == []
    rig.pass_time(11)
    assert [published.reason for published in rig.outputs] == ["deadline_exceeded"]


def test_an_engine_that_dies_ends_the_loop_and_commits_nothing_more() -> None:
    rig = started("m0", "m1", "m2")
    rig.answer("m0")
    rig.engine.answer("m1")
    rig.engine.fail("m2", EngineDied("the engine is gone"))
    with pytest.raises(EngineDied):
        rig.iterate()
    assert (rig.ids, rig.committed()) == (["in-0-0"], 1)


def test_a_health_check_that_fails_ends_the_loop_before_it_publishes() -> None:
    rig = started("m0")
    rig.engine.answer("m0")
    rig.engine.fake.die()
    with pytest.raises(EngineDied):
        rig.iterate()
    assert rig.ids == []


def test_a_truncated_log_stops_the_worker() -> None:
    rig = started("m0", "m1")
    rig.stream._position[rig.stream.sources[0]] = 0
    with pytest.raises(StreamFailed, match="in-0 delivered an offset a second time"):
        rig.iterate()


# How much is in flight: one partition alone takes half of the bounds.
SMALL = make_loop_policy(bounds=make_bounds(max_records=8, max_bytes=1_000_000))


def test_fetching_pauses_at_the_high_mark_and_resumes_at_the_low_one() -> None:
    rig = started(*(f"m{n}" for n in range(8)), policy=SMALL)
    assert len(rig.engine.pending) == 4
    assert rig.stream.calls == ["pause"]
    rig.answer("m0")
    assert rig.loop.state.in_flight_records == 3
    assert rig.stream.calls == ["pause"]
    rig.answer("m1")
    assert rig.stream.calls == ["pause", "resume"]
    rig.iterate()
    assert rig.engine.pending == ["m2", "m3", "m4", "m5", "m6"]  # and half of what was free
    assert rig.stream.calls == ["pause", "resume", "pause"]
    assert rig.events.kinds("paused", "resumed") == [("paused", 4), ("resumed", 2), ("paused", 5)]


def test_large_messages_pause_fetching_by_their_bytes() -> None:
    bounds = make_bounds(max_records=100, max_bytes=1600)
    rig = started("a" * 600, "b" * 600, policy=make_loop_policy(bounds=bounds))
    rig.add("later")
    rig.iterate()
    assert rig.stream.calls == ["pause"]
    first, second = rig.engine.pending
    rig.answer(first)
    assert rig.stream.calls == ["pause"]
    rig.answer(second)
    assert rig.stream.calls == ["pause", "resume"]
    rig.iterate()
    assert rig.engine.pending == ["later"]


def test_a_pause_holds_for_partitions_that_come_later() -> None:
    """Newly assigned partitions start unpaused; the bound must hold all the same."""
    rig = Rig(partitions=2, policy=SMALL)
    rig.add(*(f"m{n}" for n in range(4)))
    rig.add(*(f"n{n}" for n in range(4)), partition=1)
    rig.stream.assign(0)
    rig.iterate()
    rig.stream.script.append(lambda: rig.stream.assign(1))
    rig.iterate(3)
    assert rig.stream.paused == set(rig.stream.sources)
    assert rig.loop.state.in_flight_records == 6
    rig.answer("m0", "m1", "m2", "m3")
    assert rig.stream.paused == set()
    rig.iterate()
    assert "n3" in rig.engine.pending


@dataclass(frozen=True, slots=True)
class SlowLabeller(Labeller):
    """Takes 40 ms to prepare a message."""

    clock: Clock = field(default_factory=Clock)

    def prepare(self, record: Record) -> Prepared:
        """Advance the clock and prepare the record."""
        self.clock.advance(0.04)
        return Labeller.prepare(self, record)


def slow_to_prepare(rig: Rig) -> None:
    """Make the rig's labeller as slow as hostile messages would."""
    own = rig.router.main.labeller
    rig.router.main.labeller = SlowLabeller(
        own.manifest, own.encode_plain, own.thresholds, own.layout, clock=rig.clock
    )


def test_preparing_messages_does_not_keep_the_loop_from_polling_kafka() -> None:
    rig = Rig()
    slow_to_prepare(rig)
    rig.add(*(f"m{number}" for number in range(60)))
    rig.stream.assign(0)
    rig.loop.run_once()
    longest = 0.0
    while len(rig.engine.pending) < 60:
        began, before = rig.clock.now, len(rig.engine.pending)
        rig.loop.run_once()
        longest = max(longest, rig.clock.now - began)
        assert len(rig.engine.pending) > before
    assert longest <= 2 * (ADMISSION_S + 0.04)


def test_records_of_a_canary_that_died_are_prepared_again_within_the_same_budget() -> None:
    rig = Rig()
    canary = toy_serving_adapter(
        engine := ScriptedEngine(), toy_manifest(name="canary", golden=one_golden(toy_spec()))
    )
    rig.use(
        AdapterRouter(
            TrafficSplit.all_to(rig.router.main).with_arm(Arm(CANARY, canary, 1.0)),
            rig.router_events,
        )
    )
    slow_to_prepare(rig)
    rig.add(*(f"m{number}" for number in range(60)))
    rig.stream.assign(0)
    rig.iterate()
    assert len(engine.pending) == 60
    engine.fake.die()
    longest = 0.0
    while len(rig.engine.pending) < 60:
        began = rig.clock.now
        rig.loop.run_once()
        longest = max(longest, rig.clock.now - began)
    assert longest <= 2 * (ADMISSION_S + 0.04)
    rig.answer(*(f"m{number}" for number in range(60)))
    assert rig.committed() == 60


def test_a_stuck_message_keeps_no_finished_one_in_memory() -> None:
    """Other partitions run at full speed for a whole deadline; their finished records are freed."""
    rig = Rig(partitions=2, deadline_s=1000.0)
    rig.add("stuck")
    rig.stream.assign(0, 1)
    for number in range(50):
        rig.add(f"m{number}", partition=1)
        rig.iterate()
        rig.answer(f"m{number}")
    assert rig.committed(1) == 50
    monitors = rig.loop._requests._monitors.values()
    assert sum(len(monitor.lane) for monitor in monitors) == rig.loop.state.in_flight_records == 1


def test_when_the_engine_hangs_the_worker_ends_and_rejects_nothing() -> None:
    rig = started(*(f"m{n}" for n in range(10)), deadline_s=5.0)
    rig.iterate(3)
    with pytest.raises(EngineDied, match=r"answered nothing for .* with 10 messages"):
        rig.iterate(2)
    assert rig.outputs == []
