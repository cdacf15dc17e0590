"""Delayed retry: which records go to the retry topic, and when one becomes a dead letter."""

from dataclasses import replace

import pytest

from tests.support.rig import (
    OWN,
    POLICY,
    REFUSED,
    SinkRecord,
    made_up,
    now_ms,
    of_retry,
    refuse,
    results,
    rig_with,
    too_large,
    waiting,
)
from worker.contract.records import Headers, Retry, read_dead_letter, read_retry
from worker.contract.records.headers import NEEDED_RETRY_HEADERS
from worker.errors import OutcomeUnknown


def test_a_message_that_the_engine_refuses_waits_on_the_retry_topic() -> None:
    rig = rig_with("m0")
    before = now_ms(rig)
    refuse(rig)
    (batch,) = rig.stream.publishes
    (outgoing,) = batch.outputs
    assert (outgoing.topic, outgoing.key, outgoing.value) == ("retry", b"k", b"m0")
    assert outgoing.headers[:2] == OWN
    found = read_retry(outgoing.headers)
    assert (found.id, found.timestamp_ms) == ("in-0-0", 1_700_000_000_000)
    assert (found.attempt, found.reason, found.engine_attempts) == (1, "engine_rejected", 1)
    assert before + 10_000 <= found.not_before_ms <= now_ms(rig) + 10_001
    assert before <= found.first_failed_ms <= now_ms(rig)
    assert (results(rig), rig.committed()) == ([], 1)


def test_a_message_past_its_deadline_waits_on_the_retry_topic() -> None:
    rig = rig_with("stuck", "m1", deadline_s=5.0)
    rig.answer("m1")
    rig.pass_time(6)
    assert results(rig) == [SinkRecord("out", "in-0-1", label="billing")]
    assert read_retry(waiting(rig)[0].headers).reason == "deadline_exceeded"
    assert rig.committed() == 2


def test_a_message_that_no_attempt_could_fix_is_a_dead_letter_at_once() -> None:
    rig = rig_with(" ")
    assert [published.reason for published in results(rig)] == ["empty_message"]
    assert waiting(rig) == []


def test_an_answer_that_is_not_a_label_is_a_dead_letter_at_once() -> None:
    """The same prompt would get the same answer again."""
    rig = rig_with("m0")
    rig.engine.answer("m0", label=None)
    rig.iterate()
    assert [published.reason for published in results(rig)] == ["invalid_answer"]


def test_forged_retry_headers_on_the_input_are_ignored() -> None:
    forged = Retry("other", 9, 9, 9, 2, 1 << 52, "engine_rejected", 0, 50).headers()
    rig = rig_with("m0", "m1", headers=forged + OWN)
    rig.answer("m1")
    refuse(rig)
    assert results(rig) == [SinkRecord("out", "in-0-1", label="billing")]
    (label,) = [each for each in rig.stream.outputs if each.topic == "out"]
    assert label.headers == OWN
    (again,) = waiting(rig)
    assert again.headers[:2] == OWN
    assert len(again.headers) == 2 + len(NEEDED_RETRY_HEADERS)
    assert read_retry(again.headers).id == "in-0-0"


def test_a_record_too_large_for_the_retry_topic_is_a_dead_letter() -> None:
    rig = rig_with("m0")
    rig.stream.failures.append(too_large([0]))
    refuse(rig)
    rig.iterate()
    assert results(rig) == [SinkRecord("dead", "in-0-0", reason="engine_rejected")]
    assert waiting(rig) == []


@pytest.mark.parametrize("published", [True, False])
def test_an_unknown_commit_is_resolved_for_retries_too(published: bool) -> None:
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
    assert results(rig) == [SinkRecord("out", "in-0-0", label="billing")]
    assert (rig.committed(0), rig.committed(1)) == (1, 1)


def test_after_the_last_attempt_it_is_a_dead_letter_with_the_number_of_attempts() -> None:
    rig = rig_with("m0", max_attempts=2)
    for _ in range(3):
        rig.engine.fail("m0", REFUSED)
        rig.iterate()
        rig.engine.fail("m0", REFUSED)
        rig.iterate(13)
    assert results(rig) == [SinkRecord("dead", "in-0-0", reason="engine_rejected")]
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


def test_with_no_attempts_left_in_the_settings_the_retry_topic_runs_empty() -> None:
    rig = rig_with("m0", retry=replace(POLICY, max_attempts=0))
    of_retry(rig, made_up(rig, -5.0).headers(), "r0")
    refuse(rig)
    rig.iterate()
    refuse(rig, "r0")
    assert [published.id for published in results(rig)] == ["in-0-0", "in-0-7"]
    assert {published.reason for published in results(rig)} == {"engine_rejected"}
    assert waiting(rig) == []


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
def test_a_record_with_damaged_retry_headers_is_a_dead_letter(headers: Headers) -> None:
    rig = rig_with("m0")
    of_retry(rig, (*headers, ("mine", b"1")))
    rig.iterate(2)
    rig.answer("m0")
    assert results(rig) == [
        SinkRecord("dead", "retry-0-0", reason="retry_damaged"),
        SinkRecord("out", "in-0-0", label="billing"),
    ]
    letter = next(each for each in rig.stream.outputs if each.topic == "dead")
    assert (letter.key, letter.value) == (b"k", b"stranger")
    assert ("mine", b"1") in letter.headers
    assert set(headers) <= set(letter.headers)
    assert read_dead_letter(letter.headers).stage == "decode"
    assert rig.committed(1) == 1
