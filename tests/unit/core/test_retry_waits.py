"""Delayed retry: a record is tried when it is due, and nothing else waits for it."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.rig import (
    OWN,
    POLICY,
    REFUSED,
    Rig,
    SinkRecord,
    add,
    isolation,
    made_up,
    make_bounds,
    make_loop_policy,
    now_ms,
    of_retry,
    refuse,
    results,
    rig_with,
    waiting,
)
from worker.contract.records import read_retry
from worker.errors import PublishAborted


def test_no_record_is_tried_before_it_is_due() -> None:
    rig = rig_with("m0")
    refuse(rig)
    due_ms = read_retry(waiting(rig)[0].headers).not_before_ms
    while now_ms(rig) + 1000 < due_ms:
        rig.iterate()
        assert rig.engine.pending == []
        assert rig.loop.state.in_flight_records == 0
    rig.iterate(2)
    assert rig.engine.pending == ["m0"]
    rig.answer("m0")
    assert results(rig) == [SinkRecord("out", "in-0-0", label="billing")]
    (label,) = [each for each in rig.stream.outputs if each.topic == "out"]
    assert label.key == b"k"
    assert label.headers == OWN
    assert b'"timestamp":"2023-11-14T22:13:20.000Z"' in (label.value or b"")
    assert (rig.committed(0), rig.committed(1)) == (1, 1)


def test_the_partition_is_paused_until_its_head_is_due() -> None:
    rig = rig_with("m0", "m1", "m2")
    for text in ("m0", "m1", "m2"):
        rig.engine.fail(text, REFUSED)
    rig.iterate(2)
    source = rig.stream.sources[-1]
    assert rig.stream.paused == {source}
    assert rig.stream._position[source] == 1, "only the head is fetched"
    rig.iterate(7)
    assert rig.stream.calls.count("pause") == 1
    rig.iterate(4)
    assert rig.stream.paused == set()
    assert rig.engine.pending == ["m0", "m1", "m2"]
    assert rig.stream.calls.count("resume") == 1


def test_other_partitions_go_on() -> None:
    bounds = make_bounds(max_records=4, max_bytes=1_000_000)
    rig = rig_with("m0", policy=make_loop_policy(bounds=bounds))
    refuse(rig)
    rig.iterate()
    for number in range(6):
        add(rig, f"n{number}")
        rig.iterate()
        rig.answer(f"n{number}")
    assert rig.committed() == 7
    assert rig.loop.state.paused_partitions == 0
    assert [published.id for published in results(rig)] == [f"in-0-{n}" for n in range(1, 7)]


def test_an_idle_loop_sleeps_until_a_record_comes_or_the_head_is_due() -> None:
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate()
    asked: list[float] = []
    poll = rig.stream.poll

    def noting(max_records: int, timeout_s: float, **options: Any) -> Any:
        asked.append(timeout_s)
        return poll(max_records, timeout_s, **options)

    rig.stream.poll = noting  # type: ignore[method-assign]
    rig.iterate(8)
    assert set(asked[:7]) == {0.5}
    left_s = (read_retry(waiting(rig)[0].headers).not_before_ms - now_ms(rig)) / 1000
    rig.clock.advance(left_s - 0.2)
    rig.loop.run_once()
    assert asked[-1] == pytest.approx(0.2, abs=0.01)


def test_with_a_shortened_delay_no_record_is_early() -> None:
    rig = rig_with()
    of_retry(rig, made_up(rig, 100.0, offset=0).headers(), "old")
    of_retry(rig, made_up(rig, 5.0, offset=1).headers(), "new")
    rig.iterate(60)
    assert rig.engine.pending == []
    rig.iterate(42)
    assert rig.engine.pending == ["old", "new"]


def test_records_delivered_in_spite_of_the_pause_wait_behind_the_head() -> None:
    rig = rig_with()
    of_retry(rig, made_up(rig, 5.0, offset=0).headers(), "r0")
    of_retry(rig, made_up(rig, 20.0, offset=1).headers(), "r1")
    rig.iterate()
    rig.stream.paused.clear()
    rig.iterate(7)
    assert rig.engine.pending == ["r0"]
    rig.iterate(16)
    assert rig.engine.pending == ["r0", "r1"]
    rig.answer("r1", "r0")
    assert [published.id for published in results(rig)] == ["in-0-0", "in-0-1"]


def test_a_due_head_waits_until_there_is_room() -> None:
    bounds = make_bounds(max_records=2, max_bytes=1_000_000)
    rig = rig_with(policy=make_loop_policy(bounds=bounds), partitions=2)
    of_retry(rig, made_up(rig, 3.0).headers(), "r0")
    rig.iterate()
    add(rig, "m0")
    rig.iterate()
    add(rig, "n0", partition=1)
    rig.iterate(10)
    assert sorted(rig.engine.pending) == ["m0", "n0"]
    rig.answer("m0")
    rig.iterate(2)
    assert sorted(rig.engine.pending) == ["n0", "r0"]


def test_backpressure_neither_resumes_nor_pauses_a_partition_with_a_held_head() -> None:
    """Neither when there is room again, nor before the head is due."""
    bounds = make_bounds(max_records=4, max_bytes=1_000_000)
    rig = rig_with(policy=make_loop_policy(bounds=bounds))
    of_retry(rig, made_up(rig, -1.0, offset=0).headers(), "r0")
    of_retry(rig, made_up(rig, 30.0, offset=1).headers(), "r1")
    rig.iterate()
    add(rig, "m0", "m1")
    rig.iterate(3)
    assert sorted(rig.engine.pending) == ["m0", "m1", "r0"]
    rig.answer("m0", "m1")
    rig.iterate(3)
    source = rig.stream.sources[-1]
    assert source in rig.stream.paused
    rig.loop._pressure.paused.add(source)  # as if it had been too busy before
    rig.iterate(5)
    assert source in rig.stream.paused
    rig.answer("r0")
    rig.iterate(25)
    assert rig.engine.pending == ["r1"]
    assert rig.stream.paused == set()


def test_a_revoke_does_not_wait_for_a_head() -> None:
    rig = rig_with("m0", tick=0.01, policy=make_loop_policy(revoke_drain_s=100.0))
    refuse(rig)
    rig.iterate()
    began = rig.clock.now
    rig.stream.revoke(1)
    assert rig.clock.now - began < 1.0


def test_a_drain_does_not_wait_for_a_head() -> None:
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate()
    began = rig.clock.now
    rig.loop.stop()
    rig.loop.run()
    assert rig.clock.now - began < 1.0
    assert (results(rig), rig.committed(1)) == ([], 0)
    rig.stream._unassign(rig.stream.sources)
    after = rig_with(shared=rig.stream)
    after.clock.now = rig.clock.now
    after.iterate(11)
    assert after.engine.pending == ["m0"]


def test_crash_isolation_works_for_records_of_the_retry_topic() -> None:
    """Notes belong to the retry topic's partition; the dead letter has the input record's id."""
    rig = rig_with("m0", isolation=isolation())
    rig.iterate()
    refuse(rig)
    note = '{"v":1,"deaths":[0,3]}'
    rig.stream.notes[rig.stream.sources[-1]] = note
    rig.stream.committed[rig.stream.sources[-1]] = 0
    rig.iterate(13)
    add(rig, "m1")
    rig.iterate()
    rig.answer("m1")
    rig.iterate(3)
    assert SinkRecord("dead", "in-0-0", reason="killed_engine") in results(rig)
    assert rig.committed(1) == 1


@pytest.mark.parametrize("committed", [1, 2])
def test_after_a_rewind_a_held_head_is_neither_lost_nor_delivered_twice(committed: int) -> None:
    """Record 0 is due, and record 1 is early: the head. The client begins with record 0 again."""
    rig = Rig(retry=POLICY, isolation=isolation(), max_attempts=1)
    for due_in_s in (-5, 30, 40):
        of_retry(rig, made_up(rig, due_in_s, len(rig.stream.log[rig.stream.sources[-1]])).headers())
    rig.stream.committed[rig.stream.sources[-1]] = committed
    rig.stream.forgets_committed = True
    rig.stream.assign(0, 1)
    for _ in range(60):
        rig.iterate()
        for text in rig.engine.pending:
            rig.engine.answer(text)
    assert [result.id for result in results(rig)] == [f"in-0-{at}" for at in range(committed, 3)]
    assert rig.committed(1) == 3


def test_the_state_shows_when_the_first_head_is_due() -> None:
    rig = rig_with("m0")
    assert rig.loop.state.retry_topic == "retry"
    refuse(rig)
    rig.iterate()
    state = rig.loop.state
    assert state.retry_due_ms == read_retry(waiting(rig)[0].headers).not_before_ms
    assert (state.paused_partitions, state.in_flight_records) == (0, 0)
    assert rig.stream.lag()[rig.stream.sources[-1]] == 1
    rig.stream.lose(1)
    assert rig.loop.state.retry_due_ms is None


class Shuffled:
    """One worker whose retry partition is rebalanced and whose publishes fail, in any order."""

    def __init__(self) -> None:
        policy = make_loop_policy(publish_attempts=10_000, revoke_drain_s=0.0)
        self.rig = rig_with(policy=policy)
        self.added = 0

    @property
    def ours(self) -> bool:
        return self.rig.stream.sources[-1] in self.rig.stream.assigned

    def step(self, kind: str) -> None:
        """Do one step, if it is possible now."""
        if kind == "add":
            add(self.rig, f"m{self.added}")
            self.added += 1
        elif kind in {"fail", "answer"}:
            self.take(kind)
        elif kind == "wait":
            self.rig.iterate(4)
        elif kind == "abort":
            self.rig.stream.failures.append(PublishAborted("aborted"))
        elif kind == "assign" and not self.ours:
            self.rig.stream.assign(1)
        elif kind in {"revoke", "lose"} and self.ours:
            getattr(self.rig.stream, kind)(1)

    def take(self, kind: str) -> None:
        """The engine answers or refuses its oldest message, which must be due."""
        rig = self.rig
        written = [read_retry(each.headers) for each in waiting(rig)]
        due = {retry.id: retry.not_before_ms for retry in written}  # of each the last attempt
        for text in rig.engine.pending[:1]:
            assert now_ms(rig) >= due.get(f"in-0-{text[1:]}", 0)
            if kind == "fail":
                rig.engine.fail(text, REFUSED)
            else:
                rig.engine.answer(text)
        rig.iterate()

    def finish(self) -> None:
        """Answer all messages."""
        if not self.ours:
            self.rig.stream.assign(1)
        for _ in range(400):
            self.take("answer")


KINDS = ["add", "fail", "answer", "wait", "revoke", "lose", "assign", "abort"]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(KINDS), max_size=60))
def test_whatever_happens_each_message_ends_once_and_none_is_early(steps: list[str]) -> None:
    world = Shuffled()
    for step in steps:
        world.step(step)
    world.finish()
    ids = sorted(each.id for each in results(world.rig))
    assert ids == sorted(f"in-0-{n}" for n in range(world.added))
    committed, source = world.rig.stream.committed, world.rig.stream.sources[-1]
    assert committed.get(source, 0) == len(world.rig.stream.log[source])
