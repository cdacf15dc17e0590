"""Delayed retry: what failed in the engine waits on the retry topic and is tried again in time."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.policies import make_bounds, make_loop_policy
from tests.support.records import Published, read_output
from tests.support.rig import Rig
from worker.contract.records import Headers, Retry, read_dead_letter, read_retry
from worker.contract.records.retry import RETRY_HEADERS
from worker.core.quarantine import QuarantinePolicy
from worker.errors import MessageRejected, OutcomeUnknown, PublishAborted, RecordTooLarge
from worker.records.header_policy import HeaderPolicy
from worker.records.retry import RetryPolicy
from worker.records.types import Outgoing, Record

POLICY = RetryPolicy("retry", delay_s=10.0, max_attempts=2)
REFUSED = MessageRejected("engine_rejected", "why")
OWN: Headers = (("trace", b"\xff\x00"), ("none", None))


def rig_with(*texts: str, headers: Headers = OWN, **options: Any) -> Rig:
    """A rig with a retry topic, everything assigned, and these messages in the engine."""
    rig = Rig(**{"retry": POLICY, "max_attempts": 1, **options})
    add(rig, *texts, headers=headers)
    rig.stream.assign(*range(len(rig.stream.sources)))
    rig.iterate()
    return rig


def add(rig: Rig, *texts: str, partition: int = 0, headers: Headers = ()) -> None:
    for text in texts:
        record = rig.stream.add(text.encode(), partition, key=b"k")
        rig.stream.log[record.source][-1] = replace(record, headers=headers)


def refuse(rig: Rig, text: str = "m0") -> None:
    """The engine refuses a message; the batch is published."""
    rig.engine.fail(text, REFUSED)
    rig.iterate()


def results(rig: Rig) -> list[Published]:
    """What was published to the topics for results."""
    return [read_output(each) for each in rig.stream.outputs if each.topic != "retry"]


def waiting(rig: Rig) -> list[Outgoing]:
    """What was published to the retry topic."""
    return [each for each in rig.stream.outputs if each.topic == "retry"]


def now_ms(rig: Rig) -> int:
    return int(rig.wall().timestamp() * 1000)


def of_retry(rig: Rig, headers: Headers, text: str = "stranger") -> None:
    """Append a record to the retry topic as some producer might."""
    source = rig.stream.retry_sources[0]
    log = rig.stream.log[source]
    log.append(Record(source, len(log), b"k", text.encode(), headers, 1_600_000_000_000))


def made_up(rig: Rig, due_in_s: float, offset: int = 7, **changes: Any) -> Retry:
    due = now_ms(rig) + int(due_in_s * 1000)
    return replace(
        Retry("in", 0, offset, 17, 1, due, "engine_rejected", 1_700_000_000_000, 1), **changes
    )


# What is written.


def test_a_message_that_the_engine_refuses_waits_on_the_retry_topic() -> None:
    """As it came, with where it came from; in the batch that commits its offset."""
    rig = rig_with("m0")
    before = now_ms(rig)
    refuse(rig)
    (batch,) = rig.stream.publishes
    (outgoing,) = batch.outputs
    assert (outgoing.topic, outgoing.key, outgoing.value) == ("retry", b"k", b"m0")
    assert outgoing.headers[:2] == OWN
    assert outgoing.timestamp_ms is None, "retention counts from when it was written"
    found = read_retry(outgoing.headers)
    assert (found.id, found.timestamp_ms) == ("in-0-0", 1_700_000_000_000)
    assert (found.attempt, found.reason, found.engine_attempts) == (1, "engine_rejected", 1)
    assert before + 10_000 <= found.not_before_ms <= now_ms(rig) + 10_001
    assert before <= found.first_failed_ms <= now_ms(rig)
    assert (results(rig), rig.committed()) == ([], 1)


def test_a_message_without_an_answer_in_time_waits_likewise() -> None:
    """And its neighbour is labelled: it is out of order from here on."""
    rig = rig_with("stuck", "m1", deadline_s=5.0)
    rig.answer("m1")
    rig.pass_time(6)
    assert results(rig) == [Published("out", "in-0-1", label="billing")]
    assert read_retry(waiting(rig)[0].headers).reason == "deadline_exceeded"
    assert rig.committed() == 2


def test_what_no_attempt_could_mend_is_dead_at_once() -> None:
    """An empty message stays empty."""
    rig = rig_with(" ")
    assert [published.reason for published in results(rig)] == ["empty_message"]
    assert waiting(rig) == []


def test_an_answer_that_is_no_label_is_dead_at_once() -> None:
    """The same prompt would get the same answer."""
    rig = rig_with("m0")
    rig.engine.answer("m0", label=None)
    rig.iterate()
    assert [published.reason for published in results(rig)] == ["invalid_answer"]


def test_the_policy_of_headers_does_not_touch_what_waits() -> None:
    """It is about results; what is tried again is the record as it came."""
    rig = rig_with("m0", header_policy=HeaderPolicy(allow=(), deny=("*",)))
    refuse(rig)
    assert waiting(rig)[0].headers[:2] == OWN
    rig.iterate(11)
    rig.answer("m0")
    (label,) = [each for each in rig.stream.outputs if each.topic == "out"]
    assert label.headers == ()


def test_forged_headers_on_the_input_mean_nothing() -> None:
    """They neither delay a message, nor give it another's id, nor go along with its label."""
    forged = Retry("other", 9, 9, 9, 2, 1 << 52, "engine_rejected", 0, 50).headers()
    rig = rig_with("m0", "m1", headers=forged + OWN)
    rig.answer("m1")
    refuse(rig)
    assert results(rig) == [Published("out", "in-0-1", label="billing")]
    (label,) = [each for each in rig.stream.outputs if each.topic == "out"]
    assert label.headers == OWN
    (again,) = waiting(rig)
    assert again.headers[:2] == OWN
    assert len(again.headers) == 2 + len(RETRY_HEADERS)
    assert read_retry(again.headers).id == "in-0-0"


def test_a_retry_that_is_too_large_for_its_topic_is_a_dead_letter() -> None:
    """With the reason that it failed for; nothing is lost."""
    rig = rig_with("m0")
    rig.stream.failures.append(RecordTooLarge([0]))
    refuse(rig)
    assert results(rig) == [Published("dead", "in-0-0", reason="engine_rejected")]
    assert waiting(rig) == []


def test_a_batch_that_is_published_again_has_the_retry_once() -> None:
    """With a delay that begins when it is written."""
    rig = rig_with("m0")
    rig.stream.failures.append(PublishAborted("aborted"))
    refuse(rig)
    assert waiting(rig) == []
    rig.iterate(3)
    (outgoing,) = waiting(rig)
    found = read_retry(outgoing.headers)
    assert found.not_before_ms - found.first_failed_ms in {10_000, 10_001}
    assert rig.committed() == 1


@pytest.mark.parametrize("published", [True, False])
def test_an_unknown_commit_is_resolved_for_retries_too(published: bool) -> None:
    """Both when a message is put there and when it is taken from there."""
    rig = rig_with("m0")
    rig.stream.commits_before_failure = published
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    refuse(rig)
    rig.iterate(3)
    assert len(waiting(rig)) == 1
    rig.iterate(11)
    rig.stream.failures.append(OutcomeUnknown("no answer"))
    rig.answer("m0")
    rig.iterate(3)
    assert results(rig) == [Published("out", "in-0-0", label="billing")]
    assert (rig.committed(0), rig.committed(1)) == (1, 1)


# When it is tried again.


def test_nothing_is_tried_before_its_time() -> None:
    """Not a moment before; then at once, under the id that it always had."""
    rig = rig_with("m0")
    refuse(rig)
    due_ms = read_retry(waiting(rig)[0].headers).not_before_ms
    while now_ms(rig) + 1000 < due_ms:
        rig.iterate()
        assert rig.engine.pending == []
        assert rig.loop.held_records == 0
    rig.iterate(2)
    assert rig.engine.pending == ["m0"]
    rig.answer("m0")
    assert results(rig) == [Published("out", "in-0-0", label="billing")]
    (label,) = [each for each in rig.stream.outputs if each.topic == "out"]
    assert label.key == b"k"
    assert label.headers == OWN
    assert b'"timestamp":"2023-11-14T22:13:20.000Z"' in (label.value or b"")
    assert (rig.committed(0), rig.committed(1)) == (1, 1)


def test_a_doubtful_label_of_a_retry_goes_to_review() -> None:
    """It is routed as any other."""
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate(11)
    rig.engine.answer("m0", "other", p=0.011)
    rig.iterate()
    assert results(rig) == [Published("review", "in-0-0", label="other")]


def test_the_partition_is_paused_until_its_head_is_due() -> None:
    """One pause and one resume; what lies behind the head stays in the topic."""
    rig = rig_with("m0", "m1", "m2")
    for text in ("m0", "m1", "m2"):
        rig.engine.fail(text, REFUSED)
    rig.iterate(2)
    source = rig.stream.retry_sources[0]
    assert rig.stream.paused == {source}
    assert rig.stream._position[source] == 1, "only the head is fetched"
    rig.iterate(7)
    assert rig.stream.calls.count("pause") == 1
    rig.iterate(4)
    assert rig.stream.paused == set()
    assert rig.engine.pending == ["m0", "m1", "m2"]
    assert rig.stream.calls.count("resume") == 1


def test_other_partitions_go_on() -> None:
    """Waiting is nobody else's affair, and takes no place in the bounds."""
    bounds = make_bounds(max_records=4, max_bytes=1_000_000, resume_ratio=0.5)
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


def test_the_client_is_not_asked_more_often_than_needed() -> None:
    """An idle loop sleeps until the next record, or until the head is due."""
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


def test_a_delay_that_was_made_shorter_lets_nothing_go_early() -> None:
    """What is due later is in front: what lies behind it is late, and nothing is early."""
    rig = rig_with()
    of_retry(rig, made_up(rig, 100.0, offset=0).headers(), "old")
    of_retry(rig, made_up(rig, 5.0, offset=1).headers(), "new")
    rig.iterate(60)
    assert rig.engine.pending == []
    rig.iterate(42)
    assert rig.engine.pending == ["old", "new"]


def test_records_that_come_in_spite_of_the_pause_wait_behind_the_head() -> None:
    """However the client takes a pause: in order, and not before their own time."""
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


def test_a_head_waits_for_room_too() -> None:
    """The bound on records is a bound."""
    bounds = make_bounds(max_records=2, max_bytes=1_000_000, resume_ratio=0.5)
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


# Until it is dead.


def test_after_the_last_attempt_it_is_dead_and_says_how_often_it_was_tried() -> None:
    """The first attempt and two more, each asking the engine twice; from where it came at first."""
    rig = rig_with("m0", max_attempts=2)
    for _ in range(3):
        rig.engine.fail("m0", REFUSED)
        rig.iterate()
        rig.engine.fail("m0", REFUSED)
        rig.iterate(13)
    assert results(rig) == [Published("dead", "in-0-0", reason="engine_rejected")]
    letter = rig.stream.outputs[-1]
    assert (letter.key, letter.value, letter.headers[:2]) == (b"k", b"m0", OWN)
    headers = dict(letter.headers)
    assert headers["clerk.retry.attempt"] == b"2"
    first = read_retry(waiting(rig)[0].headers)
    assert headers["clerk.retry.first.failed"] == str(first.first_failed_ms).encode()
    found = read_dead_letter(letter.headers)
    assert (found.id, found.attempts, found.timestamp_ms) == ("in-0-0", 6, 1_700_000_000_000)
    attempts = [read_retry(each.headers) for each in waiting(rig)]
    assert [each.attempt for each in attempts] == [1, 2]
    assert [each.engine_attempts for each in attempts] == [2, 4]
    assert {each.first_failed_ms for each in attempts} == {first.first_failed_ms}
    assert (rig.committed(0), rig.committed(1)) == (1, 2)


def test_without_attempts_what_waits_is_tried_and_nothing_more_is_put_there() -> None:
    """The way out: the topic runs empty."""
    rig = rig_with("m0", retry=replace(POLICY, max_attempts=0))
    of_retry(rig, made_up(rig, -5.0).headers(), "r0")
    refuse(rig)
    rig.iterate()
    refuse(rig, "r0")
    assert [published.id for published in results(rig)] == ["in-0-0", "in-0-7"]
    assert {published.reason for published in results(rig)} == {"engine_rejected"}
    assert waiting(rig) == []


def test_without_a_retry_topic_it_is_dead_at_once() -> None:
    """As it was before there was one."""
    rig = rig_with("m0", retry=None)
    refuse(rig)
    assert results(rig) == [Published("dead", "in-0-0", reason="engine_rejected")]
    assert not any(name.startswith("clerk.retry") for name, _ in rig.stream.outputs[0].headers)


# What should not be on the topic.


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("clerk.retry.attempt", b"1"),),
        (*Retry("in", 0, 1, None, 1, 0, "engine_rejected", 0, 1).headers(),
         ("clerk.retry.not.before", b"tomorrow")),
        Retry("in", 0, 1, None, 1, 1 << 52, "engine_rejected", 0, 1).headers(),
    ],
)  # fmt: skip
def test_a_damaged_record_is_a_dead_letter_that_says_so(headers: Headers) -> None:
    """It stops nothing and loses nothing; what it says stays readable for people."""
    rig = rig_with("m0")
    of_retry(rig, (*headers, ("mine", b"1")))
    rig.iterate(2)
    rig.answer("m0")
    assert results(rig) == [
        Published("dead", "retry-0-0", reason="retry_damaged"),
        Published("out", "in-0-0", label="billing"),
    ]
    letter = next(each for each in rig.stream.outputs if each.topic == "dead")
    assert (letter.key, letter.value) == (b"k", b"stranger")
    assert ("mine", b"1") in letter.headers
    assert set(headers) <= set(letter.headers)
    assert read_dead_letter(letter.headers).stage == "decode"
    assert rig.committed(1) == 1


# Partitions and workers that go.


def test_a_head_is_read_again_when_its_partition_comes_back() -> None:
    """It is paused anew, and tried once, in time."""
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate()
    rig.stream.revoke(1)
    assert rig.committed(1) == 0
    rig.iterate(3)
    rig.stream.assign(1)
    rig.iterate()
    assert rig.stream.paused == {rig.stream.retry_sources[0]}
    assert rig.engine.pending == []
    rig.iterate(9)
    assert rig.engine.pending == ["m0"]
    rig.answer("m0")
    assert results(rig) == [Published("out", "in-0-0", label="billing")]


def test_a_head_of_a_lost_partition_is_dropped() -> None:
    """Its next owner tries it."""
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate()
    rig.stream.lose(1)
    rig.iterate(20)
    assert rig.engine.pending == []
    assert rig.loop.state.retry_due_ms is None


def test_a_revoke_does_not_wait_for_a_head() -> None:
    """It would wait for its whole bound, for a record that is not due."""
    rig = rig_with("m0", tick=0.01, policy=make_loop_policy(revoke_drain_s=100.0))
    refuse(rig)
    rig.iterate()
    began = rig.clock.now
    rig.stream.revoke(1)
    assert rig.clock.now - began < 1.0


def test_a_worker_that_is_told_to_go_does_not_wait() -> None:
    """What waits stays in the topic, not committed; the next worker tries it."""
    rig = rig_with("m0")
    refuse(rig)
    rig.iterate()
    began = rig.clock.now
    rig.loop.stop()
    rig.loop.run()
    assert rig.clock.now - began < 1.0
    assert (results(rig), rig.committed(1)) == ([], 0)
    rig.stream._take_away(rig.stream.sources)
    after = rig_with(shared=rig.stream)
    after.clock.now = rig.clock.now
    after.iterate(11)
    assert after.engine.pending == ["m0"]


def test_an_engine_that_dies_of_a_retry_is_found_out_as_ever() -> None:
    """The notes are those of the retry topic's partition; the dead letter has the message's id."""
    rig = rig_with("m0", quarantine=QuarantinePolicy("this", 100))
    rig.iterate()
    refuse(rig)
    note = '{"v":1,"condemned":[0,4]}'
    rig.stream.notes[rig.stream.retry_sources[0]] = note
    rig.stream.committed[rig.stream.retry_sources[0]] = 0
    rig.iterate(13)
    add(rig, "m1")
    rig.iterate()
    rig.answer("m1")
    rig.iterate(3)
    assert Published("dead", "in-0-0", reason="killed_engine") in results(rig)
    assert rig.committed(1) == 1


def test_what_waits_is_shown() -> None:
    """When the first of it is due; a partition that waits is none that is too busy."""
    rig = rig_with("m0")
    assert rig.loop.state.retry_topic == "retry"
    refuse(rig)
    rig.iterate()
    state = rig.loop.state
    assert state.retry_due_ms == read_retry(waiting(rig)[0].headers).not_before_ms
    assert (state.paused_partitions, state.in_flight_records) == (0, 0)
    assert rig.stream.lag()[rig.stream.retry_sources[0]] == 1


class Shuffled:
    """One worker, to whose retry partition anything may happen."""

    def __init__(self) -> None:
        self.rig = rig_with(policy=make_loop_policy(publish_attempts=10_000))
        self.added = 0

    @property
    def ours(self) -> bool:
        return self.rig.stream.retry_sources[0] in self.rig.stream.assigned

    def step(self, kind: str) -> None:
        """Do one of the things that may happen, where it can."""
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
        """The engine answers or refuses what it has had longest, which is due."""
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
        """Answer everything there is."""
        if not self.ours:
            self.rig.stream.assign(1)
        for _ in range(400):
            self.take("answer")


KINDS = ["add", "fail", "answer", "wait", "revoke", "lose", "assign", "abort"]


@settings(max_examples=40)
@given(st.lists(st.sampled_from(KINDS), max_size=60))
def test_whatever_happens_each_message_ends_once_and_none_is_early(steps: list[str]) -> None:
    """Failures, rebalances of the retry partition and aborted batches in any order."""
    world = Shuffled()
    for step in steps:
        world.step(step)
    world.finish()
    ids = sorted(each.id for each in results(world.rig))
    assert ids == sorted(f"in-0-{n}" for n in range(world.added))
    committed, source = world.rig.stream.committed, world.rig.stream.retry_sources[0]
    assert committed.get(source, 0) == len(world.rig.stream.log[source])
