"""The journal: what was seen of a fault, and that without an effect it does not count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.chaos.journal import Effect, Journal
from tests.chaos.plan import Fault, Kind
from tests.chaos.worker_log import WorkerLog


def fault(number: int, kind: Kind = "kill") -> Fault:
    return Fault(number, 1.0, kind, "worker-0", 0.0, 0.0)


def test_a_fault_without_an_effect_does_not_count(tmp_path: Path) -> None:
    """It is written down all the same."""
    journal = Journal(tmp_path / "journal.jsonl")
    journal.add(fault(1), 1.0, Effect("process gone", frozenset({1, 0}), 2.5))
    journal.add(fault(2), 2.0, Effect(None))
    journal.add(fault(3, "freeze"), 3.0, Effect("moved"))
    journal.note("worker.ended", code=4)
    journal.close()
    assert journal.counted == 2
    assert journal.by_kind() == {"kill": (2, 1), "freeze": (1, 1)}
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text().splitlines()]
    assert [line.get("effect") for line in lines] == ["process gone", "no effect", "moved", None]
    assert (lines[0]["partitions"], lines[0]["recovery_s"]) == ([0, 1], 2.5)
    assert [line.get("counts") for line in lines] == [True, False, True, None]
    assert lines[3]["code"] == 4


def test_a_log_says_what_a_worker_holds(tmp_path: Path) -> None:
    """Assigned one after another, revoked, lost; half a line waits for its other half."""
    path = tmp_path / "1.log"
    path.touch()
    log = WorkerLog(path)

    def write(text: str) -> None:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
        log.read()

    write('{"event": "partitions.assigned", "partitions": ["a.in-0", "a.in-12"]}\nno json\n')
    assert log.held == {0, 12}
    write('{"event": "partitions.revoked", "part')
    assert log.held == {0, 12}
    write('itions": ["a.in-0"]}\n{"event": "partitions.assigned", "partitions": ["a.in-3"]}\n')
    assert log.held == {12, 3}
    write('{"event": "partitions.lost", "partitions": ["a.in-3", "a.in-12"]}\n')
    assert log.held == frozenset()
    assert [said.event for said in log.since(0.0, "partitions.revoked")] == ["partitions.revoked"]


def test_a_stepped_clock_is_seen_in_a_log(tmp_path: Path) -> None:
    """By the times of its lines."""
    path = tmp_path / "1.log"
    path.write_text('{"event": "worker.ready", "timestamp": "2001-02-03T04:05:06.7Z"}\n')
    log = WorkerLog(path)
    log.read()
    (offset_s,) = log.clock_offsets_s(0.0)
    assert offset_s < -700_000_000
    assert log.clock_offsets_s(float("inf")) == []


@pytest.mark.parametrize("since", [0.0, float("inf")])
def test_trouble_is_what_came_after_a_moment(tmp_path: Path, since: float) -> None:
    """Not what was there before."""
    path = tmp_path / "1.log"
    path.write_text('{"event": "kafka.unreachable"}\n')
    log = WorkerLog(path)
    log.read()
    assert len(log.since(since, "kafka.unreachable")) == (since == 0.0)
