"""What the loop shows of itself, and what it tells its listeners while it publishes."""

import threading

import pytest

from tests.support.rig import Clock, Rig, make_bounds, make_loop_policy, started
from worker.core.assignment import CompletedRecord, Watermark
from worker.core.events import LoopEvent, PressureChanged, Rebalanced, send_to_all
from worker.core.pipeline import BusyTimer
from worker.errors import OutcomeUnknown, PublishAborted, RecordTooLarge, StreamFailed
from worker.records.types import Rejected, TopicPartition

SOURCES = [TopicPartition("in", 0), TopicPartition("in", 1)]


def test_a_loop_that_has_not_begun_shows_that() -> None:
    """Neither polled nor in the group, and nothing held."""
    state = Rig().loop.state
    assert (state.polled_at, state.joined, state.stopping) == (None, False, False)
    assert (state.in_flight_records, state.in_engine_records, dict(state.waiting)) == (0, 0, {})


def test_the_state_shows_what_is_held_and_where() -> None:
    """Records and bytes in flight, those in the engine, and those behind an unfinished one."""
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


def test_each_poll_is_a_heartbeat() -> None:
    """The time of the last poll moves with each iteration, and stays where the loop does."""
    rig = started()
    rig.iterate()
    polled_at = rig.loop.state.polled_at
    assert polled_at == rig.clock.now
    rig.clock.advance(30.0)
    assert rig.loop.state.polled_at == polled_at
    rig.iterate()
    assert rig.loop.state.polled_at == rig.clock.now


def test_draining_polls_on() -> None:
    """A worker that finishes its work is not taken for a dead one."""
    rig = started("m0")
    rig.loop.stop()
    rig.clock.after(20, lambda: rig.engine.answer("m0"))
    rig.clock.tick = 0.5
    rig.loop.drain()
    state = rig.loop.state
    assert rig.committed() == 1
    assert state.stopping
    assert state.polled_at is not None
    assert rig.clock.now - state.polled_at < 5


def test_paused_partitions_are_counted() -> None:
    """Those that hold their share, and all of them where nothing is free."""
    rig = started(
        "m0", "m1", partitions=2, policy=make_loop_policy(bounds=make_bounds(max_records=2))
    )
    assert rig.loop.state.paused_partitions == 1
    rig.add("n0", partition=1)
    rig.iterate()
    assert rig.loop.state.paused_partitions == 2
    rig.answer("m0", "n0")
    assert rig.loop.state.paused_partitions == 0


def test_a_spare_worker_has_joined_without_a_partition() -> None:
    """The group had nothing for it, and it is as ready as the others."""
    rig = Rig()
    rig.stream.assign()
    assert rig.loop.state.joined
    assert not rig.loop.state.waiting


def test_who_lost_its_partitions_is_out_of_the_group_until_the_next_assignment() -> None:
    """A revoke is the group at work; a loss means that the group went on without us."""
    rig = started(partitions=2)
    rig.stream.revoke(1)
    assert rig.loop.state.joined
    rig.stream.lose(0)
    assert not rig.loop.state.joined
    rig.stream.assign(0)
    assert rig.loop.state.joined


def test_prompt_tokens_count_every_attempt() -> None:
    """What the engine was given, not what came of it."""
    rig = started("m0")
    once = rig.loop.state.prompt_tokens
    assert once == len(rig.engine.fake.pending[0])
    rig.engine.answer("m0", label=None)  # no answer: the second attempt
    rig.iterate()
    assert rig.loop.state.prompt_tokens == 2 * once


def test_the_engine_is_busy_while_it_has_a_message() -> None:
    """Overlapping messages count once, idle time not at all."""
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


def test_messages_may_enter_and_leave_on_any_thread() -> None:
    """Futures complete where the engine likes."""
    engine = BusyTimer(Clock())

    def work() -> None:
        for _ in range(2000):
            engine.enter()
            engine.leave()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(engine) == 0


def test_finished_records_behind_an_unfinished_one_wait() -> None:
    """Those of the prefix do not."""
    watermark: Watermark[str] = Watermark()
    for offset in range(4):
        watermark.add(offset)
    watermark.finish(0, "a")
    watermark.finish(2, "c")
    watermark.finish(3, "d")
    assert (watermark.ready, watermark.waiting) == (1, 2)
    watermark.finish(1, "b")
    assert (watermark.ready, watermark.waiting) == (4, 0)
    watermark.confirm(4)
    assert watermark.waiting == 0


def test_a_commit_is_announced_made_and_told() -> None:
    """In this order."""
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
        (RecordTooLarge([0]), "aborted"),
        (StreamFailed("fenced"), "aborted"),
    ],
)
def test_each_attempt_ends_in_one_result(error: Exception, result: str) -> None:
    """Also the one that ends the worker."""
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


def test_what_an_unanswered_commit_did_publish_is_told_once_and_is_no_second_transaction() -> None:
    """One transaction of unknown outcome, and its records counted when that is known."""
    rig = started("m0")
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.stream.commits_before_failure = True
    rig.answer("m0")
    rig.iterate(2)
    assert rig.events.kinds("transaction") == [("transaction", "unknown")]
    assert rig.events.kinds("published") == [("published", ["in-0-0"])]


def test_a_record_knows_when_it_was_fetched_and_finished() -> None:
    """From which follow its waits, for a label and for a rejection."""
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


def test_several_listeners_get_the_same_events_in_order() -> None:
    """Logs, metrics and traces side by side."""
    got: list[tuple[str, LoopEvent]] = []
    both = send_to_all(
        [lambda event: got.append(("a", event)), lambda event: got.append(("b", event))]
    )
    events: list[LoopEvent] = [Rebalanced("lost", SOURCES, 3), PressureChanged("paused", 4, 5)]
    for event in events:
        both(event)
    assert got == [(name, event) for event in events for name in "ab"]
