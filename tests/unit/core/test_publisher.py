"""Batches of finished records, and what happens when publishing fails."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.support.rig import (
    NOW,
    Rig,
    SinkRecord,
    make_loop_policy,
    read_output,
    started,
    too_large,
    toy_completed,
    toy_record,
)
from worker.contract import Decision
from worker.contract import records as contract
from worker.contract.records import Replay
from worker.core.assignment import PartitionState
from worker.core.publisher import (
    MAX_BACKOFF_S,
    TopicRouter,
    replace_refused,
    take_ready,
)
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    StreamFailed,
)
from worker.records.types import Batch, Classified, Rejected, Timing, TopicPartition
from worker.stream.fake import FakeStream

TOO_LARGE = Rejected("output_too_large", "encode", "")


def state(partition: int, finished: int, unfinished: int = 0, first: int = 0) -> PartitionState:
    source = TopicPartition("in", partition)
    made = PartitionState(source)
    rejected = Rejected("tombstone", "decode", "")
    for offset in range(first, first + finished + unfinished):
        made.watermark.add(offset)
        if offset < first + finished:
            record = toy_record(source=source, offset=offset)
            made.watermark.finish(offset, toy_completed(record, rejected))
    return made


def counts(partitions: list[PartitionState], limit: int) -> dict[int, int]:
    batches = take_ready(partitions, limit)
    return {batch.partition.source.partition: len(batch.completed) for batch in batches}


def test_each_partition_gets_its_share_of_a_batch() -> None:
    assert counts([state(0, 100), state(1, 2), state(2, 100)], 10) == {0: 4, 1: 2, 2: 4}
    assert counts([state(0, 100), state(1, 100), state(2, 2)], 10) == {0: 4, 1: 4, 2: 2}
    assert counts([state(0, 100), state(1, 0)], 10) == {0: 10}
    assert sum(counts([state(n, 5) for n in range(7)], 3).values()) == 3


def test_only_results_of_a_replay_are_marked_with_it() -> None:
    """Labels in their JSON; dead letters, also those without a payload, in their headers."""
    replay = Replay("bug-17", "2026-03-02T08:00:00Z", "bug 17")
    decision = Decision("billing", 0.9, {"billing": 0.9}, 0.0)
    labelled = Classified(decision, None, truncated=False, review=(), timing=Timing(0.0, 0.0))
    dead = toy_completed(toy_record(), TOO_LARGE)
    for given in (replay, None):
        router = TopicRouter("out", None, replay=given)
        result = router.route(toy_completed(toy_record(), labelled), NOW)
        assert result is not None
        assert contract.read_output(result.value).replay == given
        for completed in (dead, replace(dead, without_payload=True)):
            letter = router.route(completed, NOW)
            assert letter is not None
            assert contract.read_replay(letter.headers) == given


def test_indexes_of_records_too_large_find_their_partition() -> None:
    partitions = [state(0, 2), state(1, 2)]
    batches = take_ready(partitions, 10)
    replace_refused(batches, [3], TOO_LARGE)
    smaller = {
        (partition.source.partition, offset)
        for partition in partitions
        for offset, completed in partition.watermark.peek(9)
        if completed.without_payload
    }
    last = batches[-1].partition.source.partition
    assert smaller == {(last, 1)}


def test_a_failed_publish_is_repeated_with_the_same_results() -> None:
    rig = started("m0", "m1")
    rig.stream.failures.extend([PublishAborted("not now"), PublishAborted("nor now")])
    rig.answer("m0", "m1")
    assert rig.ids == []
    rig.iterate(3)
    assert rig.ids == ["in-0-0", "in-0-1"]
    assert len(rig.engine.submitted) == 2
    assert rig.events.kinds("publish_failed") == [
        ("publish_failed", 2, 1),
        ("publish_failed", 2, 2),
    ]


def test_the_waits_between_attempts_grow_up_to_a_bound() -> None:
    rig = started("m0", policy=make_loop_policy(publish_attempts=1000, publish_backoff_s=0.2))
    rig.stream.failures.extend(PublishAborted("away") for _ in range(8))
    rig.answer("m0")
    rig.iterate(8)
    assert rig.waits[:5] == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2])
    assert rig.waits[5:] == [MAX_BACKOFF_S] * 3
    assert rig.committed() == 1


@pytest.mark.parametrize("error", [PublishAborted, OutcomeUnknown])
def test_publishing_gives_up_after_a_bound(error: type[PublishAborted]) -> None:
    rig = started("m0", policy=make_loop_policy(publish_attempts=3))
    rig.stream.failures.extend(error("away") for _ in range(50))
    rig.engine.answer("m0")
    with pytest.raises(StreamFailed, match="3 attempts to publish failed in a row: away"):
        rig.iterate(10)
    assert (rig.ids, rig.committed()) == ([], 0)


def test_a_success_resets_the_count_of_refusals() -> None:
    rig = started(*(f"m{n}" for n in range(6)), policy=make_loop_policy(publish_attempts=2))
    for number in range(6):
        rig.stream.failures.append(PublishAborted("now and then"))
        rig.answer(f"m{number}")
        rig.iterate()
    assert rig.committed() == 6


@pytest.mark.parametrize("published", [False, True])
def test_an_unanswered_commit_neither_repeats_nor_loses(published: bool) -> None:
    rig = started("m0", "m1", "m2")
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.stream.commits_before_failure = published
    rig.answer("m0", "m1")
    assert rig.ids == (["in-0-0", "in-0-1"] if published else [])
    rig.answer("m2")
    rig.iterate()
    assert rig.ids == ["in-0-0", "in-0-1", "in-0-2"]
    assert rig.stream.calls == ["resolve_unknown_commit"]
    published_ids = [event[1] for event in rig.events.kinds("published")]
    assert list(itertools.chain(*published_ids)) == rig.ids
    assert rig.loop.state.in_flight_records == 0
    rig.add("m3")
    rig.iterate()
    rig.answer("m3")
    assert rig.stream.calls == ["resolve_unknown_commit"], "resolved again without need"


def test_nothing_is_published_while_the_last_commit_is_unresolved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And attempts to resolve it are limited too."""
    rig = started("m0", policy=make_loop_policy(publish_attempts=4))
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.stream.commits_before_failure = True
    rig.answer("m0")

    def cannot_tell(_: object) -> None:
        raise PublishAborted("cannot tell yet")

    resolve = rig.stream.resolve_unknown_commit
    monkeypatch.setattr(rig.stream, "resolve_unknown_commit", cannot_tell)
    rig.iterate(2)
    assert rig.ids == ["in-0-0"]
    monkeypatch.setattr(rig.stream, "resolve_unknown_commit", resolve)
    rig.iterate(2)
    assert rig.ids == ["in-0-0"]
    assert rig.loop.state.in_flight_records == 0

    monkeypatch.setattr(rig.stream, "resolve_unknown_commit", cannot_tell)
    rig.add("m1")
    rig.iterate()
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.engine.answer("m1")
    with pytest.raises(StreamFailed, match="cannot tell yet"):
        rig.iterate(10)


def test_an_output_too_large_becomes_a_dead_letter_and_then_one_without_payload() -> None:
    rig = started("m0", "large", "m2")
    rig.stream.failures.extend([too_large([1]), too_large([1])])
    rig.answer("m0", "large", "m2")
    rig.iterate(2)
    assert rig.outputs == [
        SinkRecord("out", "in-0-0", label="billing"),
        SinkRecord("dead", "in-0-1", reason="output_too_large"),
        SinkRecord("out", "in-0-2", label="billing"),
    ]
    letter = rig.stream.outputs[1]
    assert letter.value is None
    assert dict(letter.headers)["clerk.payload.omitted.bytes"] == b"5"
    assert rig.committed() == 3


def test_a_dead_letter_for_an_output_too_large_keeps_a_payload_that_fits() -> None:
    rig = started("large")
    rig.stream.failures.append(too_large([0]))
    rig.answer("large")
    rig.iterate()
    assert [outgoing.value for outgoing in rig.stream.outputs] == [b"large"]


def test_a_dead_letter_that_cannot_be_written_stops_the_worker() -> None:
    rig = started("large")
    rig.stream.failures.extend(too_large([0]) for _ in range(3))
    rig.engine.answer("large")
    with pytest.raises(StreamFailed, match="even without its payload"):
        rig.iterate(3)
    assert (rig.ids, rig.committed()) == ([], 0)


def test_a_fenced_worker_publishes_nothing_more() -> None:
    rig = started("m0", "m1")
    rig.answer("m0")
    rig.stream.failures.append(StreamFailed("fenced"))
    rig.engine.answer("m1")
    with pytest.raises(StreamFailed, match="fenced"):
        rig.iterate()
    assert (rig.ids, rig.committed()) == (["in-0-0"], 1)


def refusing(
    rig: Rig, *texts: str, topics: tuple[str, ...] = ("out",), certain: bool = False
) -> None:
    """Have the broker refuse every batch that has one of these messages' outputs for ``topics``.
    If ``certain``, it names all of them."""
    ids = {f"in-0-{number}" for number, text in enumerate(SENT) if text in texts}

    def publish(batch: Batch) -> None:
        bad = [
            at
            for at, outgoing in enumerate(batch.outputs)
            if outgoing.topic in topics and read_output(outgoing).id in ids
        ]
        if bad:
            named = bad if certain else ()
            rig.stream.failures.append(OutputRefused("no key", named, certain=certain))
        FakeStream.publish(rig.stream, batch)

    rig.stream.publish = publish  # type: ignore[method-assign]


SENT = [f"m{number}" for number in range(100)]


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize("bad", [["m0"], ["m99"], ["m37"], ["m3", "m4", "m90"], SENT])
def test_a_record_that_the_broker_refuses_becomes_a_dead_letter_and_the_rest_goes_on(
    bad: list[str], certain: bool
) -> None:
    """In one further attempt if the broker names the records, else by dividing the batch."""
    rig = started(*SENT, admission={"max_in_engine": 200})
    refusing(rig, *bad, certain=certain)
    for _ in range(3):
        rig.answer(*rig.engine.pending)
    rig.iterate(4 if certain else 20 + 3 * len(bad))
    reasons = {published.id: published.reason for published in rig.outputs}
    assert reasons == {
        f"in-0-{number}": "output_refused" if text in bad else None
        for number, text in enumerate(SENT)
    }
    assert rig.committed() == 100
    letter = next(each for each in rig.stream.outputs if each.topic == "dead")
    assert dict(letter.headers)["clerk.error"] == b"no key"
    assert not rig.events.kinds("publish_failed")
    assert sum(found for _, _, found in rig.events.kinds("refused")) == len(bad)


@pytest.mark.parametrize("certain", [False, True])
@pytest.mark.parametrize(("partitions", "every"), [(1, 400), (4, 400), (12, 400), (4, 10), (4, 1)])
def test_refused_records_do_not_stop_a_busy_worker(
    partitions: int, every: int, certain: bool
) -> None:
    """Under load each next batch has new records. A refusal takes 0.1 s, a commit 0.01 s."""
    rig = Rig(partitions=partitions)
    sent = found = done = 0

    def publish(batch: Batch) -> None:
        bad = [at for at, each in enumerate(batch.outputs) if not each.key and each.topic != "dead"]
        rig.clock.advance(0.1 if bad else 0.01)
        if bad:
            raise OutputRefused("no key", bad if certain else (), certain=certain)
        FakeStream.publish(rig.stream, batch)

    rig.stream.publish = publish  # type: ignore[method-assign]
    rig.stream.assign(*range(partitions))
    began = rig.clock.now
    while rig.clock.now < began + 20:
        while sent < 200 * (rig.clock.now - began):
            key = None if sent % every == every - 1 else b"k"
            rig.stream.add(f"m{sent}".encode(), sent % partitions, key)
            sent += 1
        rig.clock.advance(0.01)
        rig.loop.run_once()
        for text in rig.engine.pending:
            rig.engine.answer(text)
    done = sum(rig.stream.committed.values())
    found = sum(each.topic == "dead" for each in rig.stream.outputs)
    assert found >= (done - 512) // every
    # One by one, a record that nobody names takes two attempts.
    least = 0.8 if certain or every == 400 else 0.02
    assert done >= least * sent


def test_a_revoke_does_not_wait_for_the_end_of_a_search() -> None:
    rig = started(*SENT, admission={"max_in_engine": 200}, tick=0.05)
    rig.loop._publisher._policy = make_loop_policy(
        publish_interval_s=600.0, longest_interval_s=600.0
    )
    for _ in range(3):
        for text in rig.engine.pending:
            rig.engine.answer(text)
        rig.loop._pipeline.poll(0)
    refusing(rig, *SENT)
    began = rig.clock.now
    rig.stream.revoke(0)
    assert rig.clock.now - began < 10
    assert rig.committed() < 100
    assert rig.loop.state.in_flight_records == 0


def test_a_dead_letter_topic_that_refuses_too_stops_the_worker() -> None:
    rig = started("m0", "m1")
    refusing(rig, "m1", topics=("out", "dead"))
    rig.engine.answer("m0")
    rig.engine.answer("m1")
    with pytest.raises(StreamFailed, match=r"in-0-1 .*no key.* do not compact it"):
        rig.iterate(12)
    assert rig.ids == ["in-0-0"]


AWAY = PublishAborted("nobody answers", unreachable=True)
REFUSED = PublishAborted("no")


def test_an_outage_is_waited_out_and_reported_once() -> None:
    """Without a limit of attempts, since a new worker would not reach Kafka either."""
    rig = started("m0")
    rig.stream.failures.extend([AWAY] * 1100)
    rig.answer("m0")
    rig.iterate(1100)
    assert rig.ids == ["in-0-0"]
    assert [event[:2] for event in rig.events.kinds("outage")] == [
        ("outage", "began"),
        ("outage", "ended"),
    ]
    assert rig.events.kinds("publish_failed") == []
    assert max(rig.waits) <= 5.0


def test_the_state_shows_since_when_kafka_is_unreachable() -> None:
    rig = started("m0")
    rig.stream.failures.extend([AWAY, AWAY])
    rig.engine.answer("m0")
    rig.iterate()
    since = rig.loop.state.outage_since
    assert since is not None
    rig.iterate()
    assert rig.loop.state.outage_since == since
    rig.iterate()
    assert rig.loop.state.outage_since is None


def test_the_state_also_shows_since_when_nothing_can_be_read() -> None:
    rig = started()
    rig.stream.unreachable_since = 7.0
    assert rig.loop.state.outage_since == 7.0


def test_refusals_during_an_outage_are_counted() -> None:
    rig = started("m0", policy=make_loop_policy(publish_attempts=3))
    rig.stream.failures.extend([REFUSED, AWAY, REFUSED, AWAY, REFUSED])
    rig.engine.answer("m0")
    with pytest.raises(StreamFailed, match="3 attempts"):
        rig.iterate(5)


def test_a_commit_without_an_answer_is_resolved_after_the_outage() -> None:
    rig = started("m0")
    rig.stream.commits_before_failure = True
    rig.stream.failures.append(OutcomeUnknown("no answer", unreachable=True))
    rig.engine.answer("m0")
    rig.iterate(3)
    assert rig.ids == ["in-0-0"]
    assert rig.loop.state.outage_since is None


def test_an_idle_worker_commits_past_transaction_markers() -> None:
    """Otherwise they are lag for others: KEDA would not scale to zero, or would have to ignore the
    first messages."""
    rig = started("m0")
    source = rig.stream.sources[0]
    rig.stream.ends = {source: 2}
    rig.iterate()
    assert rig.stream.ends, "there is still a record to publish"
    rig.answer("m0")
    assert (rig.committed(), rig.ids) == (2, ["in-0-0"])
    rig.stream.ends = {source: 3}
    rig.stream.failures.append(AWAY)
    rig.iterate()
    assert rig.committed() == 2
    rig.stream.ends = {source: 3}
    rig.iterate()
    rig.loop._isolation.close(rig.loop._assignment)
    assert rig.committed() == 3
