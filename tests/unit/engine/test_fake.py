"""The fake engine keeps the port's promises."""

import weakref
from concurrent.futures import Future, wait

import pytest

from worker.engine.fake import FakeEngine, Prompt
from worker.engine.port import Answer, CodeScores, Engine
from worker.errors import EngineDied, MessageRejected

TIMEOUT_S = 5


def respond(prompt: Prompt) -> Answer | Exception:
    if not prompt:
        return MessageRejected("engine_rejected", "an empty prompt")
    return CodeScores({7: -float(prompt[0])})


def test_it_is_an_engine() -> None:
    engine: Engine = FakeEngine(respond)
    engine.warm_up([[1]])
    engine.check_health()
    engine.close()


def test_a_prompt_waits_until_it_is_finished() -> None:
    engine = FakeEngine(respond)
    first, second = engine.submit([1]), engine.submit([2])
    assert engine.pending == [(1,), (2,)]
    engine.finish(1)
    assert second.result(0) == CodeScores({7: -2.0})
    assert not first.done()
    engine.finish_all()
    assert first.result(0) == CodeScores({7: -1.0})


def test_an_answer_can_be_an_error_of_that_prompt() -> None:
    engine = FakeEngine(respond)
    bad, good = engine.submit([]), engine.submit([1])
    engine.finish_all()
    with pytest.raises(MessageRejected):
        bad.result(0)
    assert good.result(0)


def test_what_was_answered_is_not_kept() -> None:
    engine = FakeEngine(respond)
    gone = weakref.ref(engine.submit([1]))
    engine.finish_all()
    assert gone() is None


def test_a_test_can_fail_one_prompt() -> None:
    engine = FakeEngine(respond)
    future = engine.submit([1])
    engine.fail(MessageRejected("engine_rejected", "no"))
    assert isinstance(future.exception(0), MessageRejected)
    engine.check_health()


def test_a_cancelled_prompt_is_not_pending() -> None:
    engine = FakeEngine(respond)
    first, second = engine.submit([1]), engine.submit([2])
    assert first.cancel()
    assert engine.pending == [(2,)]
    engine.finish(0)
    assert second.done()


def test_death_fails_what_is_pending_and_what_comes() -> None:
    engine = FakeEngine(respond)
    future = engine.submit([1])
    engine.die()
    assert isinstance(future.exception(0), EngineDied)
    with pytest.raises(EngineDied):
        engine.check_health()
    with pytest.raises(EngineDied):
        engine.submit([1])


def test_closing_twice_is_safe() -> None:
    engine = FakeEngine(respond)
    engine.close()
    engine.close()


def test_a_callback_may_submit_again() -> None:
    engine = FakeEngine(respond)
    later: list[Future[Answer]] = []
    engine.submit([1]).add_done_callback(lambda _: later.append(engine.submit([2])))
    engine.finish_all()
    assert engine.pending == [(2,)]
    assert len(later) == 1


def test_with_a_service_time_it_answers_by_itself() -> None:
    engine = FakeEngine(respond, service_s=0.001, concurrency=4)
    futures = [engine.submit([one]) for one in range(20)]
    futures[19].cancel()
    assert not wait(futures, TIMEOUT_S).not_done
    assert futures[3].result() == CodeScores({7: -3.0})
    engine.close()


def test_dying_in_service_fails_every_prompt() -> None:
    engine = FakeEngine(respond, service_s=0.05, concurrency=2)
    futures = [engine.submit([one]) for one in range(6)]
    engine.die()
    assert {type(one.exception(TIMEOUT_S)) for one in futures} == {EngineDied}
