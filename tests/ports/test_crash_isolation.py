"""A message that crashes the engine ends at most four workers, on real Kafka.

The workers are processes with an engine of fixed service time, restarted by a supervisor when they
end. Needs Kafka.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from typing import cast

import pytest

from tests.chaos.fake_worker import POISON
from tests.chaos.harness import Arena, messages
from tests.support.processes import verify
from tests.support.topics import read_messages
from worker.demo.program import Program

COUNT = 400
AT = 150
PARTITIONS = 4

pytestmark = pytest.mark.timeout(300)


class Supervisor:
    """Restarts workers that end; keeps their exit codes."""

    def __init__(self, arena: Arena, workers: int) -> None:
        self.arena = arena
        self.workers = [arena.start_worker() for _ in range(workers)]
        self.logs: list[Program] = list(self.workers)
        self.codes: list[int] = []

    def wait_for(self, count: int, timeout_s: float = 200.0) -> None:
        """Wait until ``count`` results are committed."""
        until = time.monotonic() + timeout_s
        while len(self.arena.results) < count:
            assert time.monotonic() < until, f"{len(self.arena.results)} results, {self.codes}"
            self.arena.reader.read(0.2)
            for at, worker in enumerate(self.workers):
                code = worker.child.exit_code()
                if code is not None:
                    self.codes.append(code)
                    self.arena._alive.remove(worker)
                    self.workers[at] = self.arena.start_worker()
                    self.logs.append(self.workers[at])

    def events(self) -> Counter[str]:
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
    """After at most four crashes the message is the only dead letter; all others are labelled
    once."""
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
    prove(arena, delivery)


@pytest.mark.parametrize("death", [pytest.param("engine", marks=pytest.mark.long), "process"])
def test_suspicion_survives_a_takeover(
    arena: Arena, monkeypatch: pytest.MonkeyPatch, death: str
) -> None:
    """The next owner of the partition continues with the suspects of the last one."""
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
    prove(arena, "exactly_once")


def test_a_rolling_restart_accuses_nobody(arena: Arena) -> None:
    """Draining workers close their notes, so the next ones suspect nothing."""
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
    found = []
    for message in read_messages(arena.servers, arena.topics["dead"]):
        pairs = cast("list[tuple[str, bytes]]", message.headers() or [])
        headers = {name: value.decode() for name, value in pairs}
        source = f"{headers['clerk.source.partition']}-{headers['clerk.source.offset']}"
        found.append((source, headers["clerk.reason"]))
    return found


def prove(arena: Arena, delivery: str) -> None:
    code, found = verify(arena.kafka_settings | {"kafka.delivery": delivery})
    assert code == 0, found["offenders"]
