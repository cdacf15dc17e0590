"""The health checks, and their reasons."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.support.rig import Clock, Rig
from tests.support.toy_adapter import scores
from worker.core.loop import LoopState
from worker.engine.fake import FakeEngine
from worker.errors import StreamFailed
from worker.observe.health import JOINING, LOADING, STOPPING, Health
from worker.records.types import Record

IDLE = LoopState(1000.0, True, False, 0, 0, 0, 256, 0, {}, 0, 0.0)
TURN_S = 60.0


class Worker:
    """A worker's health and what it is made of."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.state = IDLE
        self.engine = FakeEngine(lambda _: scores("other"))
        self.health = Health(self.clock, TURN_S)

    def run(self) -> "Worker":
        self.health.model_ready(self.engine.check_health)
        self.health.runs(lambda: self.state)
        return self

    def verdicts(self) -> tuple[bool, bool, bool]:
        return (
            not self.health.started(),
            not self.health.alive(),
            not self.health.ready(),
        )


def test_while_the_model_loads_it_is_alive_and_nothing_else() -> None:
    worker = Worker()
    worker.clock.advance(3600)
    assert worker.verdicts() == (False, True, False)
    assert worker.health.started() == worker.health.ready() == [LOADING]


def test_an_outage_of_kafka_is_reported_and_needs_no_restart() -> None:
    """A new process could not reach Kafka either, and would have to load the model again."""
    worker = Worker().run()
    worker.state = replace(IDLE, polled_at=1120.0, outage_since=1000.0)
    worker.clock.advance(120)
    assert worker.verdicts() == (True, True, False)
    assert worker.health.ready() == ["Kafka has been unreachable for 120 s; messages wait"]


def test_warm_and_not_in_the_group_it_has_started_and_is_not_ready() -> None:
    worker = Worker()
    worker.health.model_ready(worker.engine.check_health)
    assert worker.verdicts() == (True, True, False)
    worker.state = replace(IDLE, polled_at=None, joined=False)
    worker.health.runs(lambda: worker.state)
    worker.clock.advance(3600)
    assert worker.verdicts() == (True, True, False)
    assert worker.health.ready() == [JOINING]


def test_a_loop_that_does_not_poll_is_dead_after_its_longest_iteration() -> None:
    worker = Worker().run()
    worker.clock.advance(TURN_S)
    assert worker.verdicts() == (True, True, True)
    worker.clock.advance(1.0)
    assert worker.verdicts() == (True, False, False)
    assert worker.health.alive() == ["the loop has not polled Kafka for 61 s; the limit is 60 s"]
    worker.state = replace(IDLE, polled_at=worker.clock.now)
    assert worker.verdicts() == (True, True, True)


def test_a_dead_engine_is_a_dead_worker() -> None:
    worker = Worker().run()
    worker.engine.die("its processes are gone")
    assert worker.verdicts() == (True, False, False)
    assert worker.health.alive() == ["engine: its processes are gone"]


def test_draining_is_alive_and_not_ready() -> None:
    worker = Worker().run()
    worker.state = replace(IDLE, stopping=True)
    assert worker.verdicts() == (True, True, False)
    assert worker.health.ready() == [STOPPING]
    worker.health.closing()
    worker.engine.close()
    worker.clock.advance(3600)
    assert worker.verdicts() == (True, True, False)


def test_a_worker_that_ends_by_an_error_is_dead_and_says_why() -> None:
    worker = Worker().run()
    worker.health.closing(StreamFailed("the topic is gone"))
    worker.health.closing()
    assert worker.verdicts() == (True, False, False)
    assert worker.health.alive() == ["the worker ends with StreamFailed: the topic is gone"]


def test_an_error_that_nobody_planned_is_named_and_not_quoted() -> None:
    """Its text might quote a message."""
    worker = Worker().run()
    worker.health.closing(ValueError("my card is 4111"))
    assert worker.health.alive() == ["the worker ends with ValueError"]


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_loop_that_hangs_in_kafkas_client_is_found_dead() -> None:
    """With the real loop on a thread, in a poll that does not return."""
    rig = Rig()
    go = threading.Event()
    go.set()
    original = rig.stream.poll

    def poll(max_records: int, timeout_s: float, **_: object) -> Sequence[Record]:
        go.wait(30)
        time.sleep(0.001)
        return original(max_records, timeout_s)

    rig.stream.poll = poll  # type: ignore[method-assign]
    rig.loop._clock = time.monotonic  # the rig's own clock stands still
    health = Health(time.monotonic, 0.5)
    health.model_ready(rig.engine.check_health)
    health.runs(lambda: rig.loop.state)
    thread = threading.Thread(target=rig.loop.run)
    thread.start()
    try:
        wait_for(lambda: rig.loop.state.polled_at is not None and not health.alive())
        go.clear()
        wait_for(lambda: health.alive() != [])
        [why] = health.alive()
        assert why.startswith("the loop has not polled Kafka for")
        go.set()
        wait_for(lambda: not health.alive())
    finally:
        go.set()
        rig.loop.stop()
        thread.join(20)
    assert not thread.is_alive()
