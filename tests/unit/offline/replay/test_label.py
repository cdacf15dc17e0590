"""Labelling again: the worker's outcomes, marked; an engine that hangs costs no message."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from tests.support.records import toy_record
from tests.support.toy_adapter import decode, scores, toy_serving_adapter
from worker.contract.records import Replay, read_dead_letter, read_output, read_replay
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected, StreamFailed
from worker.offline.replay.label import encode_results, label_records, make_smaller
from worker.records.types import Classified, Rejected
from worker.stream.topics import Topics

REPLAY = Replay("bug-17", "2026-03-02T08:00:00Z", "bug 17")
TOPICS = Topics(("in",), "out", "review", "dead")


def respond(prompt: Sequence[int]) -> Answer | Exception:
    text = decode([token for token in prompt if token >= 10])  # without control tokens
    if "refuse" in text:
        return MessageRejected("engine_rejected", "too long")
    return scores("delivery", 0.3 if "doubt" in text else 0.9)


def test_outcomes_are_the_workers_and_carry_the_replay() -> None:
    """A label, a doubtful one, one that the engine refuses and one that is no message."""
    adapter = toy_serving_adapter(FakeEngine(respond, service_s=0.0))
    records = [
        toy_record(value, offset=offset)
        for offset, value in enumerate((b"where is it", b"doubt", b"refuse", b"", None))
    ]
    outcomes = label_records(adapter, records, max_attempts=2, silence_s=5)
    results = encode_results(adapter, TOPICS, REPLAY, records, outcomes)
    assert [result.topic for result in results] == ["out", "review", "dead", "dead", "dead"]
    for record, result in zip(records, results, strict=True):
        assert result.key == record.key
        if result.topic == "dead":
            assert read_dead_letter(result.headers).id == record.id
            assert read_replay(result.headers) == REPLAY
        else:
            assert read_output(result.value).id == record.id
            assert json.loads(result.value or b"")["replay"]["id"] == "bug-17"
    refused = outcomes[2]
    assert isinstance(refused, Rejected)
    assert (refused.reason, refused.attempts) == ("engine_rejected", 2)
    assert isinstance(outcomes[0], Classified)


class Silent(FakeEngine):
    """Answers nothing."""

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        return Future()


def test_an_engine_that_says_nothing_ends_the_replay_and_no_message() -> None:
    """Dead letters would be the engine's fault."""
    adapter = toy_serving_adapter(Silent(respond))
    with pytest.raises(EngineDied, match="answered nothing"):
        label_records(adapter, [toy_record(b"hi")], max_attempts=2, silence_s=0.05)


class Forgetful(FakeEngine):
    """Never answers what says so."""

    def __init__(self) -> None:
        super().__init__(respond, service_s=0.0)
        self.kept: list[Future[Answer]] = []

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        if "never" not in decode([token for token in prompt_ids if token >= 10]):
            return super().submit(prompt_ids)
        self.kept.append(Future())
        return self.kept[-1]


def test_a_message_that_is_never_answered_is_a_dead_letter_and_the_rest_goes_on() -> None:
    """Else the same batch would fail each time that the command goes on. It is called off in the
    engine, which shows by a prompt that it knows that it does answer."""
    engine = Forgetful()
    adapter = toy_serving_adapter(engine)
    values = (b"hi", b"never", b"there", b"never again")
    records = [toy_record(value, offset=offset) for offset, value in enumerate(values)]
    outcomes = label_records(adapter, records, max_attempts=2, silence_s=0.05)
    kinds = [outcome.reason if isinstance(outcome, Rejected) else "label" for outcome in outcomes]
    assert kinds == ["label", "deadline_exceeded", "label", "deadline_exceeded"]
    rejected = outcomes[1]
    assert isinstance(rejected, Rejected)
    assert (rejected.stage, rejected.attempts) == ("engine", 1)
    assert [future.cancelled() for future in engine.kept] == [True, True]
    (_, letter, _, _) = encode_results(adapter, TOPICS, REPLAY, records, outcomes)
    assert read_dead_letter(letter.headers).reason == "deadline_exceeded"


def test_what_is_answered_at_last_keeps_its_label() -> None:
    """A message that takes longer than the others is no message that is never answered."""
    engine = Forgetful()
    timer = threading.Timer(0.15, lambda: engine.kept[0].set_result(scores("billing", 0.9)))
    timer.start()
    records = [toy_record(value, offset=offset) for offset, value in enumerate((b"never", b"hi"))]
    outcomes = label_records(toy_serving_adapter(engine), records, max_attempts=1, silence_s=0.1)
    timer.join()
    assert all(isinstance(outcome, Classified) for outcome in outcomes)


def test_an_engine_that_dies_meanwhile_rejects_nothing() -> None:
    """As a cascade whose second stage has fallen silent, which its first one does not show."""

    class Dying(Forgetful):
        def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
            future = super().submit(prompt_ids)
            if self.kept and future is not self.kept[-1]:
                threading.Timer(0.02, self.die).start()
            return future

    records = [toy_record(b"never")]
    with pytest.raises(EngineDied, match="the fake engine died"):
        label_records(toy_serving_adapter(Dying()), records, max_attempts=1, silence_s=0.1)


def test_a_slow_engine_is_waited_for() -> None:
    """Each answer is a sign of life, however long the whole batch takes."""
    adapter = toy_serving_adapter(FakeEngine(respond, service_s=0.05, concurrency=1))
    records = [toy_record(b"hi", offset=offset) for offset in range(10)]
    outcomes = label_records(adapter, records, max_attempts=1, silence_s=0.3)
    assert all(isinstance(outcome, Classified) for outcome in outcomes)


def test_what_is_too_large_becomes_smaller_and_keeps_the_mark() -> None:
    """A label, its dead letter, that without its payload; then nothing is left to leave out."""
    adapter = toy_serving_adapter(FakeEngine(respond, service_s=0.0))
    record = toy_record(b"hi")
    outcomes = label_records(adapter, [record], max_attempts=1, silence_s=5)
    (result,) = encode_results(adapter, TOPICS, REPLAY, [record], outcomes)
    letter = make_smaller(adapter, REPLAY, record, result, "output_too_large", "too large")
    bare = make_smaller(adapter, REPLAY, record, letter, "output_too_large", "too large")
    assert (letter.topic, letter.value, bare.value) == ("dead", b"hi", None)
    for outgoing in (letter, bare):
        assert read_dead_letter(outgoing.headers).reason == "output_too_large"
        assert read_replay(outgoing.headers) == REPLAY
    with pytest.raises(StreamFailed, match="even without its payload"):
        make_smaller(adapter, REPLAY, record, bare, "output_too_large", "too large")
