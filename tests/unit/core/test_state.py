"""The loop's state, and the events of publishing."""

import pytest

from tests.support.rig import Clock, make_bounds, make_loop_policy, started, too_large
from worker.core.assignment import CompletedRecord
from worker.core.pipeline import BusyTimer
from worker.errors import OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import Rejected, TopicPartition

SOURCES = [TopicPartition("in", 0), TopicPartition("in", 1)]


def test_the_state_shows_records_in_flight_in_the_engine_and_behind_unfinished_ones() -> None:
    rig = started("m0", "m1", "m2", partitions=2)
    assert rig.loop.state.in_engine_records == 3
    rig.answer("m1", "m2")
    state = rig.loop.state
    assert (state.in_flight_records, state.in_flight_bytes) == (3, 6)
    assert state.in_engine_records == 1
    assert state.waiting == {SOURCES[0]: 2, SOURCES[1]: 0}
    rig.answer("m0")
    state = rig.loop.state
    assert (state.in_flight_records, state.in_engine_records) == (0, 0)
    assert state.waiting == {SOURCES[0]: 0, SOURCES[1]: 0}


def test_records_of_the_finished_prefix_do_not_count_as_waiting() -> None:
    rig = started("m0", "m1", "m2", policy=make_loop_policy(publish_interval_s=60.0))
    rig.answer("m0", "m2")
    assert rig.loop.state.waiting == {SOURCES[0]: 1}


def test_the_state_shows_the_time_of_the_last_poll() -> None:
    rig = started()
    rig.iterate()
    polled_at = rig.loop.state.polled_at
    assert polled_at == rig.clock.now
    rig.clock.advance(30.0)
    assert rig.loop.state.polled_at == polled_at
    rig.iterate()
    assert rig.loop.state.polled_at == rig.clock.now


def test_paused_partitions_are_counted() -> None:
    rig = started(
        "m0", "m1", partitions=2, policy=make_loop_policy(bounds=make_bounds(max_records=2))
    )
    assert rig.loop.state.paused_partitions == 1
    rig.add("n0", partition=1)
    rig.iterate()
    assert rig.loop.state.paused_partitions == 2
    rig.answer("m0", "n0")
    assert rig.loop.state.paused_partitions == 0


def test_a_worker_that_lost_partitions_has_not_joined_until_the_next_assignment() -> None:
    """A revoke is part of a rebalance; a loss means that the group has removed the worker."""
    rig = started(partitions=2)
    rig.stream.revoke(1)
    assert rig.loop.state.joined
    rig.stream.lose(0)
    assert not rig.loop.state.joined
    rig.stream.assign(0)
    assert rig.loop.state.joined


def test_prompt_tokens_count_every_attempt() -> None:
    rig = started("m0")
    once = rig.loop.state.prompt_tokens
    assert once == len(rig.engine.fake.pending[0])
    rig.engine.answer("m0", label=None)  # no answer: the second attempt
    rig.iterate()
    assert rig.loop.state.prompt_tokens == 2 * once


def test_the_engine_is_busy_while_it_has_a_message() -> None:
    clock = Clock()
    engine = BusyTimer(clock)
    assert engine.busy_s == 0
    engine.enter()
    clock.advance(2.0)
    engine.enter()
    clock.advance(3.0)
    assert (len(engine), engine.busy_s) == (2, 5.0)
    engine.leave()
    engine.leave()
    clock.advance(100.0)
    assert (len(engine), engine.busy_s) == (0, 5.0)
    engine.enter()
    clock.advance(1.0)
    assert engine.busy_s == 6.0


def test_a_commit_is_announced_made_and_reported_in_this_order() -> None:
    rig = started("m0")
    rig.answer("m0")
    assert rig.events.kinds("publishing", "transaction", "published") == [
        ("publishing", ["in-0-0"]),
        ("transaction", "committed"),
        ("published", ["in-0-0"]),
    ]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (PublishAborted("away"), "aborted"),
        (OutcomeUnknown("no answer"), "unknown"),
        (too_large([0]), "aborted"),
        (StreamFailed("fenced"), "aborted"),
    ],
)
def test_each_attempt_ends_in_one_result(error: Exception, result: str) -> None:
    rig = started("m0")
    rig.stream.failures.append(error)
    rig.engine.answer("m0")
    if isinstance(error, StreamFailed):
        with pytest.raises(StreamFailed):
            rig.iterate()
    else:
        rig.iterate(2)
        assert rig.committed() == 1
    found = [event[1] for event in rig.events.kinds("transaction")]
    assert found[0] == result
    assert found[1:] == ([] if isinstance(error, StreamFailed) else ["committed"])
    assert len(rig.events.kinds("publishing")) == len(found)


def test_a_record_knows_when_it_was_fetched_and_finished() -> None:
    rig = started("m0")
    seen: list[CompletedRecord] = []
    rig.on_published(seen.extend)
    fetched_at = rig.clock.now
    rig.clock.advance(3.0)
    rig.add("  ")
    rig.engine.answer("m0")
    rig.iterate(2)
    first, second = seen
    assert (first.fetched_at, first.finished_at) == (fetched_at, fetched_at + 3.0)
    assert isinstance(second.outcome, Rejected)
    assert second.finished_at == second.fetched_at == fetched_at + 4.0
