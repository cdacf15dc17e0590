"""Exactly once survives kill -9: of a worker, of one of two workers, of the broker.

The workers are real, in their own processes, with an engine of fixed service time instead of a
model; ``make chaos`` runs the same with the model.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.chaos.harness import Arena, kill_and_restart, kill_broker, kill_one_of_two, messages
from worker.demo.broker import LocalBroker

COUNT = 2000


def test_a_killed_worker_loses_and_doubles_nothing(arena: Arena) -> None:
    kill_and_restart(arena, messages(COUNT))


def test_a_killed_worker_of_two_loses_and_doubles_nothing(arena: Arena) -> None:
    kill_one_of_two(arena, messages(COUNT))


def test_a_killed_broker_loses_and_doubles_nothing() -> None:
    """The worker outlives its broker and exits 0 at the end."""
    with LocalBroker() as broker, ExitStack() as stack:
        kill_broker(Arena(broker.bootstrap_servers, stack), messages(COUNT), broker)


@pytest.mark.long  # most of a minute without a broker
def test_a_long_broker_outage_does_not_end_the_worker() -> None:
    """Longer than all attempts to publish: results wait, and the model stays loaded."""
    settings = {"kafka.publish_timeout_s": "1"}
    with LocalBroker() as broker, ExitStack() as stack:
        arena = Arena(broker.bootstrap_servers, stack, settings=settings)
        kill_broker(arena, messages(COUNT), broker, away_s=45)


def test_sigterm_under_load_drains_and_exits_0(arena: Arena) -> None:
    """In-flight messages are committed; the next worker does only the rest."""
    worker = arena.start_worker()
    worker.wait_until_ready()
    arena.publish(messages(COUNT))
    arena.wait_for(COUNT // 4)
    assert arena.stop(worker) == 0
    assert "worker.drained" in worker.events()
    arena.start_worker()
    arena.wait_for(COUNT)
    arena.verdict(COUNT)


def test_scaling_out_and_in_under_load(arena: Arena) -> None:
    arena.start_worker().wait_until_ready()
    arena.publish(messages(COUNT))
    arena.wait_for(COUNT // 5)
    second = arena.start_worker()
    second.wait_until_ready()
    arena.wait_for(COUNT // 2)
    assert arena.stop(second) == 0
    arena.wait_for(COUNT)
    arena.verdict(COUNT)
