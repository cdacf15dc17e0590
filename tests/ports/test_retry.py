"""Delayed retry on real Kafka: workers killed while messages wait and while one is retried.

The engine has a fixed service time and refuses messages on request. ``clerk-worker verify`` judges
the result.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from confluent_kafka import Producer

from tests.chaos.harness import Arena, messages
from tests.support.processes import verify, wait_until
from tests.support.topics import create_topics, read_messages
from worker.contract.records import Retry, read_dead_letter, read_retry
from worker.contract.timestamps import parse_rfc3339

COUNT = 24
PARTITIONS = 2
NEVER = 99_999_999_999
HeaderList = list[tuple[str, bytes]]

pytestmark = pytest.mark.timeout(180)


class RetryArena(Arena):
    """An arena with a retry topic."""

    def set_up(self, delay_s: float, attempts: int, **more: str) -> None:
        """Set the workers' settings."""
        if "retry" not in self.topics:
            name = self.topics["retry"] = f"chaos.{self.run}.retry"
            create_topics(self.servers, [name], PARTITIONS)
        self.settings = {
            "kafka.instance_id": "'worker-0'",
            "kafka.consumer": "{'session.timeout.ms' = 2000}",
            "loop.retry_delay_s": str(delay_s),
            "loop.retry_max_attempts": str(attempts),
            **{name.replace("__", "."): value for name, value in more.items()},
        }

    def judge(self) -> dict[str, Any]:
        """Return what ``verify`` prints. Fails unless everything is proven."""
        settings = self.kafka_settings
        if "kafka.delivery" in self.settings:
            settings["kafka.delivery"] = self.settings["kafka.delivery"].strip("'")
        code, found = verify(settings)
        assert (code, found["proven"]) == (0, True), found["offenders"]
        return found

    def read(self, topic: str) -> list[tuple[HeaderList, bytes, int]]:
        """Headers, value and timestamp of every committed record."""
        return [
            (cast("HeaderList", each.headers() or []), each.value() or b"", each.timestamp()[1])
            for each in read_messages(self.servers, self.topics[topic])
        ]

    def retries(self) -> list[Retry]:
        """The records on the retry topic, done or not."""
        return [read_retry(headers) for headers, _, _ in self.read("retry")]

    def wait_for_retries(self, count: int) -> None:
        """Wait until ``count`` records were put on the retry topic."""
        wait_until(lambda: len(self.read("retry")) >= count, 30)


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[RetryArena]:
    with ExitStack() as stack:
        yield RetryArena(bootstrap_servers, stack, partitions=PARTITIONS)


def refused(number: int, until: float) -> bytes:
    """A message that the engine refuses before that moment (Unix time)."""
    return json.dumps({"id": f"r{number}", "message": f"refused until {until:.1f}"}).encode()


def with_refused(places: dict[int, float]) -> list[bytes]:
    """Messages, with those at ``places`` refused until a time."""
    values = messages(COUNT)
    for number, until in places.items():
        values[number] = refused(number, until)
    return values


@pytest.mark.parametrize(
    "more",
    [
        {},
        pytest.param({"kafka__delivery": "'at_least_once'"}, marks=pytest.mark.long),
        pytest.param(
            {"kafka__consumer": "{'group.protocol' = 'consumer'}"}, marks=pytest.mark.long
        ),
    ],
)
def test_failures_are_retried_in_time_and_lasting_ones_become_dead_letters(
    arena: RetryArena, more: dict[str, str]
) -> None:
    """Pending while they wait, then one result each; the dead letter has the number of attempts. A
    foreign record on the topic also becomes a dead letter and stops nothing."""
    arena.set_up(5.0, 2, **more)
    worker = arena.start_worker()
    worker.wait_until_ready("partitions.assigned")
    passing, lasting = [3, 4, 9], [6, 13]
    fixed = time.time() + 7.5
    places = dict.fromkeys(passing, fixed) | dict.fromkeys(lasting, float(NEVER))
    arena.publish(with_refused(places))
    arena.wait_for(COUNT - 5)
    found = arena.judge()
    assert (found["waiting"], found["inputs"]) == (5, COUNT)
    stranger = Producer({"bootstrap.servers": arena.servers})
    stranger.produce(arena.topics["retry"], b"planted text", headers={"clerk.retry.attempt": b"x"})
    assert stranger.flush(20) == 0
    arena.wait_for(COUNT + 1)
    assert arena.stop(worker) == 0
    assert_each_once(arena, more)
    assert_attempts(arena, passing, lasting)
    log = worker.log_path.read_text()
    assert "refused until" not in log
    assert "planted text" not in log
    assert Counter(worker.events())["record.postponed"] == len(arena.read("retry")) - 1


def assert_each_once(arena: RetryArena, more: dict[str, str]) -> None:
    """``verify`` blames only the foreign record."""
    ids = [f"{n % PARTITIONS}-{n // PARTITIONS}" for n in range(COUNT)]
    dead = {read_dead_letter(headers).id for headers, _, _ in arena.read("dead")}
    (strange,) = [id_ for id_ in dead if id_.startswith(arena.topics["retry"])]
    counts = Counter(arena.results)
    counts.subtract([strange.removeprefix(f"{arena.topics['retry']}-")])
    if "kafka__delivery" not in more:
        assert {id_: count for id_, count in counts.items() if count} == dict.fromkeys(ids, 1)
    with pytest.raises(AssertionError, match=r"unreadable.*lacks the header"):
        arena.judge()


def assert_attempts(arena: RetryArena, passing: list[int], lasting: list[int]) -> None:
    """No retry was early; dead letters used all attempts and keep their headers."""
    letters = [
        (read_dead_letter(headers), dict(headers), value)
        for headers, value, _ in arena.read("dead")
    ]
    refusals = [each for each in letters if each[0].reason == "engine_rejected"]
    assert len(refusals) == len(lasting)
    for letter, headers, value in refusals:
        assert headers["clerk.retry.attempt"] == b"2"
        assert letter.topic == arena.topics["in"]
        assert letter.attempts == 2 * 3
        assert b"refused until" in value
    assert [each[0].reason for each in letters].count("retry_damaged") == 1
    written: dict[str, list[tuple[Retry, int]]] = {}
    for pairs, _, at_ms in arena.read("retry"):
        if len(pairs) > 1:
            retry = read_retry(pairs)
            written.setdefault(retry.id, []).append((retry, at_ms))
    assert len(written) == len(passing) + len(lasting)
    for attempts in written.values():
        attempts.sort(key=lambda each: each[0].attempt)
        for (before, _), (_, at_ms) in pairwise(attempts):
            assert at_ms >= before.not_before_ms, "tried before its time"
        assert [retry.attempt for retry, _ in attempts] == list(range(1, len(attempts) + 1))


def test_a_worker_killed_while_messages_wait_and_while_one_is_tried(
    arena: RetryArena, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With -9, twice: nothing lost or duplicated, by the reader's count and by ``verify``."""
    control = tmp_path / "engine"
    monkeypatch.setenv("CHAOS_CONTROL", str(control))
    arena.set_up(2.0, 50)
    first = arena.start_worker()
    first.wait_until_ready("partitions.assigned")
    arena.publish(with_refused(dict.fromkeys(range(0, COUNT, 3), time.time() + 1.5)))
    arena.wait_for(COUNT - COUNT // 3)
    arena.wait_for_retries(COUNT // 3)
    arena.kill(first)
    control.write_text("hang")
    second = arena.start_worker()
    done = control.with_suffix(".done")
    wait_until(done.exists, 30)
    arena.kill(second)
    control.write_text("")
    third = arena.start_worker()
    arena.wait_for(COUNT)
    arena.verdict(COUNT)
    assert arena.stop(third) == 0
    found = arena.judge()
    assert (found["waiting"], found["inputs"], found["pending"]) == (0, COUNT, 0)
    assert found["retries"] >= COUNT // 3


def test_a_draining_worker_does_not_wait_and_its_successor_is_not_early(
    arena: RetryArena,
) -> None:
    """SIGTERM ends it at once. The next worker, with a shorter delay, keeps the time that was
    set."""
    arena.set_up(4.0, 3)
    first = arena.start_worker()
    first.wait_until_ready("partitions.assigned")
    arena.publish(with_refused(dict.fromkeys([1, 2, 3, 4], time.time() + 1.5)))
    arena.wait_for_retries(4)
    assert arena.stop(first) == 0
    ended_ms = time.time() * 1000
    due_ms = {retry.id: retry.not_before_ms for retry in arena.retries()}
    arena.set_up(1.0, 3)
    second = arena.start_worker()
    arena.wait_for(COUNT)
    arena.verdict(COUNT)
    results = [
        json.loads(value) for topic in ("out", "review") for _, value, _ in arena.read(topic)
    ]
    labelled = {result["id"]: parse_rfc3339(result["labelled_at"]) for result in results}
    assert len(due_ms) == 4
    assert ended_ms < min(due_ms.values())
    for id_, at_ms in due_ms.items():
        assert labelled[id_].timestamp() * 1000 >= at_ms - 1
        assert labelled[id_].timestamp() * 1000 < at_ms + 8000
    assert arena.stop(second) == 0
    assert arena.judge()["waiting"] == 0
