"""A message that kills the engine ends no more than four workers, on real Kafka.

The workers are processes with an engine of fixed service time; a supervisor starts each again that
has ended. Needs Kafka.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import cast

import pytest
from confluent_kafka import Consumer

from tests.chaos.fake_worker import POISON
from tests.chaos.harness import Arena, messages
from worker.demo.program import Program

COUNT = 400
AT = 150
PARTITIONS = 4

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[Arena]:
    with ExitStack() as stack:
        yield Arena(bootstrap_servers, stack)


class Supervisor:
    """Keeps so many workers running; counts those that ended by themselves."""

    def __init__(self, arena: Arena, workers: int) -> None:
        self.arena = arena
        self.workers = [arena.start_worker() for _ in range(workers)]
        self.logs: list[Program] = list(self.workers)
        self.codes: list[int] = []

    def wait_for(self, count: int, timeout_s: float = 200.0) -> None:
        """Until so many results are committed."""
        until = time.monotonic() + timeout_s
        while len(self.arena.results) < count:
            assert time.monotonic() < until, f"{len(self.arena.results)} results, {self.codes}"
            self.arena._reader.read(0.2)
            for at, worker in enumerate(self.workers):
                code = worker.child.exit_code()
                if code is not None:
                    self.codes.append(code)
                    self.arena._alive.remove(worker)
                    self.workers[at] = self.arena.start_worker()
                    self.logs.append(self.workers[at])

    def events(self) -> Counter[str]:
        """What all workers have logged, by name."""
        return Counter(event for worker in self.logs for event in worker.events())


def poisoned(count: int, at: int) -> list[bytes]:
    values = messages(count)
    values[at] = json.dumps({"id": "p", "message": POISON}).encode()
    return values


@pytest.mark.parametrize(
    ("death", "code", "delivery"),
    [
        ("engine", 5, "exactly_once"),
        pytest.param("engine", 5, "at_least_once", marks=pytest.mark.long),
        pytest.param("process", -9, "exactly_once", marks=pytest.mark.long),
        pytest.param("process", -9, "at_least_once", marks=pytest.mark.long),
    ],
)
def test_a_crash_loop_ends_by_itself(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, death: str, code: int, delivery: str
) -> None:
    """The message is the one dead letter, after four deaths; all others are labelled once."""
    monkeypatch.setenv("CHAOS_POISON", death)
    arena.settings = {"kafka.delivery": f"'{delivery}'", "kafka.instance_id": "'worker-0'"}
    arena.publish(poisoned(COUNT, AT))
    supervisor = Supervisor(arena, workers=1)
    supervisor.wait_for(COUNT)
    arena.read_for()
    assert set(arena.results) == {f"{n % PARTITIONS}-{n // PARTITIONS}" for n in range(COUNT)}
    if delivery == "exactly_once":
        assert "exactly one" in arena.verdict(COUNT)
    assert set(supervisor.codes) == {code}
    assert len(supervisor.codes) <= 4
    assert arena.by_topic["dead"] == 1
    assert dead_letters(arena) == [(f"{AT % PARTITIONS}-{AT // PARTITIONS}", "killed_engine")]
    assert supervisor.events()["crash_isolation.rejected"] == 1
    assert all(POISON not in worker.log_path.read_text() for worker in supervisor.logs)
    assert arena.stop(supervisor.workers[0]) == 0
    verify(arena, delivery)


@pytest.mark.parametrize("death", [pytest.param("engine", marks=pytest.mark.long), "process"])
def test_suspicion_survives_a_takeover(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """Two workers: anyone who has the partition next goes on from what the last one left."""
    monkeypatch.setenv("CHAOS_POISON", death)
    arena.publish(poisoned(COUNT, AT))
    supervisor = Supervisor(arena, workers=2)
    supervisor.wait_for(COUNT)
    assert "exactly one" in arena.verdict(COUNT)
    assert dead_letters(arena) == [(f"{AT % PARTITIONS}-{AT // PARTITIONS}", "killed_engine")]
    # Two that are killed within one rebalance may leave the same word twice.
    assert len(supervisor.codes) <= 6
    for worker in supervisor.workers:
        assert arena.stop(worker) == 0
    verify(arena, "exactly_once")


def test_a_rolling_restart_accuses_nobody(arena: Arena) -> None:
    """Workers that drain close their partitions: the next ones have nothing to suspect."""
    first = arena.start_worker()
    arena.publish(messages(COUNT))
    arena.wait_for(COUNT // 4)
    second = arena.start_worker()
    second.wait_until_ready("partitions.assigned")
    assert arena.stop(first) == 0
    arena.wait_for(COUNT)
    assert "exactly one" in arena.verdict(COUNT)
    assert "crash_isolation.suspected" not in [*first.events(), *second.events()]
    assert arena.stop(second) == 0


def dead_letters(arena: Arena) -> list[tuple[str, str]]:
    """Source and reason of each dead letter."""
    consumer = Consumer(
        {
            "bootstrap.servers": arena.servers,
            "group.id": f"{arena.run}.dead",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe([arena.topics["dead"]])
    found = []
    until = time.monotonic() + 8
    while time.monotonic() < until:
        message = consumer.poll(0.2)
        if message is None or message.error() is not None:
            continue
        pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
        headers = {name: value.decode() for name, value in pairs}
        source = f"{headers['clerk.source.partition']}-{headers['clerk.source.offset']}"
        found.append((source, headers["clerk.reason"]))
    consumer.close()
    return found


def verify(arena: Arena, delivery: str) -> None:
    """Have ``clerk-worker verify`` prove it."""
    settings = {
        "kafka.bootstrap_servers": arena.servers,
        "kafka.group_id": arena.run,
        "kafka.input_topics": arena.topics["in"],
        "kafka.output_topic": arena.topics["out"],
        "kafka.review_topic": arena.topics["review"],
        "kafka.dead_letter_topic": arena.topics["dead"],
        "kafka.delivery": delivery,
    }
    flags = [part for name, value in settings.items() for part in ("-s", f"{name}='{value}'")]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CLERK_")}
    done = subprocess.run(
        [sys.executable, "-m", "worker", "verify", "--json", *flags],
        env=clean, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
