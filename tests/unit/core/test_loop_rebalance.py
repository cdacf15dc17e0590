"""Rebalances and the end of a worker: no record is lost or published twice."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.support.rig import Rig, SinkRecord, isolation, make_loop_policy, started
from worker.errors import EngineDied, OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import CommittedOffset, Record
from worker.stream.fake import FakeStream

AT_ONCE = make_loop_policy(revoke_drain_s=0.0, publish_interval_s=600.0)


def test_a_revoke_publishes_the_finished_prefix_and_drops_the_rest() -> None:
    rig = started("m0", "m1", "m2", "m3", policy=AT_ONCE)
    rig.answer("m0", "m1", "m3")
    assert rig.ids == []
    rig.stream.revoke(0)
    assert (rig.ids, rig.committed()) == (["in-0-0", "in-0-1"], 2)
    assert rig.events.kinds("revoked") == [("revoked", [0], 2)]
    assert rig.loop.state.in_flight_records == 0


def test_answers_of_an_ended_assignment_are_ignored() -> None:
    rig = started("m0", "m1", policy=AT_ONCE)
    called_off = rig.engine.future("m1")
    rig.engine.begin("m0")
    rig.stream.revoke(0)
    assert called_off.cancelled()
    rig.answer("m0")
    rig.iterate(2)
    assert (rig.ids, rig.committed(), rig.loop.state.in_flight_records) == ([], 0, 0)


def test_a_revoke_waits_for_work_in_flight_within_its_bound() -> None:
    rig = started("m0", "m1", "m2", tick=0.01, policy=make_loop_policy(revoke_drain_s=2.0))
    rig.clock.after(1.0, lambda: rig.engine.answer("m0"))
    rig.clock.after(1.9, lambda: rig.engine.answer("m1"))
    began = rig.clock.now
    rig.stream.revoke(0)
    assert rig.ids == ["in-0-0", "in-0-1"]
    assert 2.0 <= rig.clock.now - began < 2.2
    assert rig.events.kinds("revoked") == [("revoked", [0], 1)]


def test_a_revoke_returns_as_soon_as_nothing_is_in_flight() -> None:
    rig = started("m0", tick=0.01, policy=make_loop_policy(revoke_drain_s=100.0))
    rig.clock.after(0.5, lambda: rig.engine.answer("m0"))
    began = rig.clock.now
    rig.stream.revoke(0)
    assert rig.committed() == 1
    assert rig.clock.now - began < 1.0


def test_a_revoke_publishes_everything_finished_however_much_it_is() -> None:
    policy = make_loop_policy(revoke_drain_s=0.0, publish_max_records=3, publish_interval_s=600.0)
    rig = started("slow", *(f"m{n}" for n in range(10)), policy=policy)
    rig.answer(*(f"m{n}" for n in range(10)))
    rig.engine.answer("slow")
    rig.loop._pipeline.poll(0.0)
    rig.stream.revoke(0)
    assert rig.committed() == 11
    assert [len(batch.outputs) for batch in rig.stream.publishes] == [3, 3, 3, 2]


def test_a_lost_partition_publishes_nothing() -> None:
    rig = started("m0", "m1", policy=AT_ONCE)
    rig.answer("m0")
    rig.stream.lose(0)
    rig.iterate(3)
    assert (rig.ids, rig.committed()) == ([], 0)
    assert rig.events.kinds("lost") == [("lost", [0], 2)]


@pytest.mark.parametrize("how", ["revoke", "lose"])
def test_records_fetched_before_their_partition_went_away_are_left_to_its_new_owner(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rebalance in the middle of a poll: its records belong to another worker already."""
    rig = Rig(partitions=2)
    rig.add("m0")
    rig.add("n0", partition=1)
    rig.stream.assign(0, 1)
    poll = rig.stream.poll

    def rebalance_after(
        max_records: int, timeout_s: float, *, max_bytes: int | None = None
    ) -> Sequence[Record]:
        records = poll(max_records, timeout_s, max_bytes=max_bytes)
        getattr(rig.stream, how)(0)
        return records

    monkeypatch.setattr(rig.stream, "poll", rebalance_after)
    rig.iterate()
    monkeypatch.setattr(rig.stream, "poll", poll)
    rig.answer("n0")
    assert [text for text, _ in rig.engine.submitted] == ["n0"]
    assert (rig.ids, rig.loop.state.in_flight_records) == (["in-1-0"], 0)


def test_a_repeated_assignment_starts_the_partition_again() -> None:
    """Its results do not count twice."""
    rig = started("m0", "m1", policy=AT_ONCE)
    rig.answer("m0")
    rig.stream.assign(0)
    rig.iterate()
    assert rig.loop.state.in_flight_records == 2
    rig.answer("m0", "m1")
    assert rig.ids == ["in-0-0", "in-0-1"]


@pytest.mark.parametrize("published", [False, True])
def test_a_revoke_whose_publish_is_not_answered_neither_repeats_nor_skips(
    published: bool,
) -> None:
    rig = started("m0", "m1", policy=AT_ONCE)
    rig.answer("m0")
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.stream.commits_before_failure = published
    rig.stream.revoke(0)
    rig.stream.assign(0)
    rig.iterate()
    rig.answer(*rig.engine.pending)
    assert rig.ids == ["in-0-0", "in-0-1"]


def test_a_revoke_that_cannot_publish_gives_the_partition_up() -> None:
    rig = started("m0", policy=AT_ONCE)
    rig.engine.answer("m0")
    rig.loop._pipeline.poll(0.0)
    rig.stream.failures.append(PublishAborted("broker away"))
    rig.stream.revoke(0)
    assert (rig.ids, rig.loop.state.waiting) == ([], {})
    assert rig.events.kinds("publish_failed") == [("publish_failed", 1, 1)]


def test_an_engine_that_dies_during_a_revoke_stops_the_worker() -> None:
    rig = started("m0", tick=0.01)
    rig.clock.after(0.5, lambda: rig.engine.fail("m0", EngineDied("gone")))
    with pytest.raises(EngineDied):
        rig.stream.revoke(0)
    assert rig.committed() == 0


# The end.


def test_stop_drains_publishes_and_returns() -> None:
    rig = Rig(tick=0.01, policy=make_loop_policy(drain_s=10.0))
    rig.add("m0", "m1")
    rig.stream.script.append(lambda: rig.stream.assign(0))

    def stop() -> None:
        rig.loop.stop()
        rig.clock.after(0.5, lambda: rig.add("too late"))
        rig.clock.after(1.0, lambda: rig.engine.answer("m1"))
        rig.clock.after(2.0, lambda: rig.engine.answer("m0"))

    rig.stream.script.append(stop)
    rig.loop.run()
    assert rig.ids == ["in-0-0", "in-0-1"]
    assert [text for text, _ in rig.engine.submitted] == ["m0", "m1"]
    assert (rig.committed(), rig.loop.state.in_flight_records) == (2, 0)


def test_drain_respects_its_bound_and_leaves_the_rest_uncommitted() -> None:
    rig = started("m0", "m1", "m2", tick=0.01, policy=make_loop_policy(drain_s=5.0))
    rig.clock.after(1.0, lambda: rig.engine.answer("m0"))
    rig.clock.after(1.0, lambda: rig.engine.answer("m2"))
    future = rig.engine.future("m1")
    began = rig.clock.now
    rig.loop.drain()
    assert 5.0 <= rig.clock.now - began < 5.2
    assert (rig.ids, rig.committed()) == (["in-0-0"], 1)
    assert future.cancelled()
    assert rig.loop.state.in_flight_records == 0


def test_drain_keeps_polling() -> None:
    """A draining worker is still a member of its group, and partitions may be revoked."""
    rig = started("m0", "m1", tick=0.01, policy=make_loop_policy(drain_s=5.0, revoke_drain_s=0.0))
    rig.clock.after(3.0, lambda: rig.stream.script.append(lambda: rig.stream.revoke(0)))
    rig.clock.after(2.0, lambda: rig.engine.answer("m0"))
    began = rig.clock.now
    rig.loop.drain()
    assert (rig.ids, rig.committed()) == (["in-0-0"], 1)
    assert rig.clock.now - began < 4.0
    assert rig.events.kinds("revoked") == [("revoked", [0], 1)]


def test_drain_takes_no_records_of_a_partition_that_comes_meanwhile() -> None:
    rig = Rig(partitions=2, tick=0.01, policy=make_loop_policy(drain_s=2.0))
    rig.add("m0")
    rig.add("n0", partition=1)
    rig.stream.assign(0)
    rig.iterate()
    rig.stream.script.append(lambda: rig.stream.assign(1))
    rig.clock.after(1.0, lambda: rig.engine.answer("m0"))
    rig.loop.drain()
    assert rig.ids == ["in-0-0"]
    assert (rig.committed(0), rig.committed(1)) == (1, 0)


def test_drain_tries_a_failed_publish_again() -> None:
    rig = started("m0", tick=0.01)
    rig.stream.failures.append(PublishAborted("not now"))
    rig.engine.answer("m0")
    rig.loop.drain()
    assert rig.outputs == [SinkRecord("out", "in-0-0", label="billing")]


def test_drain_ends_when_the_engine_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = started("m0", tick=0.01)

    def gone() -> None:
        raise EngineDied("gone")

    monkeypatch.setattr(rig.engine, "check_health", gone)
    began = rig.clock.now
    with pytest.raises(EngineDied):
        rig.loop.drain()
    assert rig.clock.now - began < 1.0


def begun(stream: FakeStream, *, isolated: bool) -> Rig:
    """A worker on a partition of three records, two of them published by an earlier owner.

    The client delivers the partition from its beginning in spite of the committed offset.
    """
    for text in ("old", "older", "new"):
        stream.add(text.encode())
    stream.committed[stream.sources[0]] = 2
    stream.forgets_committed = True
    rig = Rig(isolation=isolation() if isolated else None, shared=stream)
    stream.assign(0)
    return rig


@pytest.mark.parametrize("isolated", [False, True])
def test_records_before_the_committed_offset_are_skipped(isolated: bool) -> None:
    """They get no second result and are not in flight; the committed offset does not go back."""
    stream = FakeStream()
    rig = begun(stream, isolated=isolated)
    rig.iterate(2)
    assert rig.engine.pending == ["new"]
    assert rig.loop.state.in_flight_records == 1
    rig.answer("new")
    assert rig.events.kinds("published") == [("published", ["in-0-2"])]
    assert stream.committed[stream.sources[0]] == 3
    assert rig.events.kinds("rewound") == [("rewound", 0, 0, 2)]
    assert rig.loop.state.in_flight_records == 0


def test_a_long_log_is_not_read_again_up_to_the_committed_offset() -> None:
    """The worker seeks there; it does not read and hold a million records for nothing."""
    stream = FakeStream()
    for number in range(100_000):
        stream.add(str(number).encode())
    stream.committed[stream.sources[0]] = 99_999
    stream.forgets_committed = True
    rig = Rig(shared=stream)
    stream.assign(0)
    rig.iterate(3)
    assert rig.engine.pending == ["99999"]


@pytest.mark.parametrize("isolated", [False, True])
def test_records_before_the_committed_offset_are_skipped_in_later_polls_too(isolated: bool) -> None:
    stream = FakeStream()
    rig = begun(stream, isolated=isolated)
    stream.log[stream.sources[0]], rest = [], stream.log[stream.sources[0]]
    stream.log[stream.sources[0]].append(rest[0])
    ends = lambda partitions: [CommittedOffset(each, 2, "", 3) for each in partitions]  # noqa: E731
    stream.read_committed = ends  # type: ignore[method-assign]
    rig.iterate(2)
    stream.log[stream.sources[0]].extend(rest[1:])
    rig.iterate()
    assert rig.engine.pending == ["new"]


@pytest.mark.parametrize("isolated", [False, True])
def test_a_committed_offset_beyond_the_end_of_a_truncated_log_is_ignored(isolated: bool) -> None:
    stream = FakeStream()
    for text in ("a", "b"):
        stream.add(text.encode())
    stream.forgets_committed = True
    known = lambda partitions: [CommittedOffset(each, 9, "", 2) for each in partitions]  # noqa: E731
    stream.read_committed = known  # type: ignore[method-assign]
    rig = Rig(isolation=isolation() if isolated else None, shared=stream)
    stream.assign(0)
    rig.iterate(2)
    assert sorted(rig.engine.pending) == ["a", "b"]


def test_until_it_is_known_nothing_goes_to_the_engine() -> None:
    stream = FakeStream()
    rig = begun(stream, isolated=False)
    real, refusals = stream.read_committed, [PublishAborted("not yet", unreachable=True)]

    def read(partitions: object) -> object:
        if refusals:
            raise refusals.pop()
        return real(partitions)  # type: ignore[arg-type]

    stream.read_committed = read  # type: ignore[method-assign, assignment]
    rig.iterate()
    assert rig.engine.pending == []
    rig.iterate(2)
    assert rig.engine.pending == ["new"]


@pytest.mark.parametrize("isolated", [False, True])
@pytest.mark.parametrize("messages", [1, 2, 3, 5])
def test_the_offset_of_a_deleted_topic_of_the_same_name_is_not_trusted(
    isolated: bool, messages: int
) -> None:
    """The new topic may have fewer messages than the deleted one, as many, or more."""
    stream = FakeStream()
    policy = isolation() if isolated else None
    rig = started("old 0", "old 1", isolation=policy, shared=stream)
    rig.answer("old 0", "old 1")
    stream.recreate()
    with pytest.raises(StreamFailed, match="created again"):
        rig.iterate()
    rig.loop._isolation.close(rig.loop._assignment)
    for number in range(messages):
        stream.add(f"new {number}".encode())
    rig = Rig(isolation=policy, shared=stream)
    stream.assign(0)
    rig.iterate(3)
    assert len(rig.engine.pending) == messages
    assert rig.engine.pending == [f"new {number}" for number in range(len(rig.engine.pending))]
    rig.answer(*rig.engine.pending)
    assert rig.committed() == len(stream.log[stream.sources[0]])
    assert len(rig.events.kinds("distrusted")) == 1
    again = Rig(isolation=policy, shared=stream)
    stream.assign(0)
    again.add("newest")
    again.iterate(3)
    assert again.engine.pending == ["newest"]


def test_an_offset_that_was_mirrored_from_another_cluster_is_trusted() -> None:
    """The topic there has another id. Otherwise everything would be labelled again."""
    stream = FakeStream()
    stream.topic_id = "theirs/1/id"
    rig = started("old 0", "old 1", shared=stream)
    rig.answer("old 0", "old 1")
    stream.topic_id = "ours/2/id"
    rig = Rig(shared=stream)
    stream.assign(0)
    rig.add("new")
    rig.iterate(2)
    assert rig.engine.pending == ["new"]
