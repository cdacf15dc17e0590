"""Background work: one replica runs it, another takes over, a lasting error ends the desk."""

from __future__ import annotations

import threading
import time

import pytest

from desk.clock import now_ms
from desk.errors import KafkaUnavailable, StreamFailed
from desk.store.database import Database
from desk.work import BackgroundWork, Shift

pytestmark = pytest.mark.slow


def wait_for(done: threading.Event) -> None:
    assert done.wait(30)


def test_one_replica_works_and_another_takes_over(database: Database) -> None:
    turns: list[str] = []
    reached = {name: threading.Event() for name in ("a", "b")}

    def work(name: str) -> BackgroundWork:
        def run_once() -> int:
            turns.append(name)
            reached[name].set()
            return 0

        return BackgroundWork("work", run_once, lambda: None, idle_s=0.01)

    first = Shift(database, [work("a")], now_ms)
    second = Shift(database, [work("b")], now_ms)
    first.start()
    wait_for(reached["a"])
    second.start()
    time.sleep(0.3)
    assert not reached["b"].is_set()
    first.stop()
    wait_for(reached["b"])
    second.stop()
    assert turns.index("b") == turns.count("a")


def test_what_passes_is_tried_again(database: Database) -> None:
    said: list[str] = []
    done = threading.Event()

    def run_once() -> int:
        said.append("turn")
        if len(said) == 1:
            raise KafkaUnavailable("no broker")
        done.set()
        return 0

    shift = Shift(
        database, [BackgroundWork("work", run_once, lambda: said.append("forget"))], now_ms
    )
    shift.start()
    wait_for(done)
    shift.stop()
    assert said[:3] == ["turn", "forget", "turn"]


def test_what_does_not_pass_ends_the_desk(database: Database) -> None:
    def run_once() -> int:
        raise StreamFailed("no right to use the topic")

    shift = Shift(database, [BackgroundWork("work", run_once, lambda: None)], now_ms)
    shift.start()
    with pytest.raises(StreamFailed, match="no right"):
        shift.wait(60)
    shift.stop()
