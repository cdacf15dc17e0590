"""Kill workers and brokers with -9 under load, then count what a read_committed reader sees."""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from tests.support.topics import create_topics, topic_settings
from worker.demo.broker import LocalBroker
from worker.demo.program import Program, start_worker

FAKE_WORKER = ("-m", "tests.chaos.fake_worker")
REAL_WORKER = ("-m", "worker", "run")
_QUIET: dict[str, str | int | float | bool] = {"log_level": 0}
_STALL_S = 90.0


@dataclass
class Arena:
    """A topic of inputs, workers on it, and a reader of everything they commit."""

    servers: str
    stack: ExitStack
    command: tuple[str, ...] = FAKE_WORKER
    settings: Mapping[str, str] = field(default_factory=dict)
    partitions: int = 4

    def __post_init__(self) -> None:
        self.run = uuid.uuid4().hex[:8]
        self.topics = {name: f"chaos.{self.run}.{name}" for name in ("in", "out", "review", "dead")}
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        create_topics(self.servers, self.topics.values(), self.partitions)
        self._workers = 0
        self._alive: list[Program] = []
        self.reader = Reader(self.servers, list(self.topics.values())[1:], self.partitions)
        self.stack.callback(self.reader.close)

    @property
    def kafka_settings(self) -> dict[str, str]:
        """The worker's settings for these topics, without TOML's quotes."""
        return topic_settings(self.servers, self.run, self.topics)

    def start_worker(self) -> Program:
        """Start one more worker. It ends with the arena at the latest."""
        self._workers += 1
        given = {
            **{name: f"'{value}'" for name, value in self.kafka_settings.items()},
            # A killed worker's partitions and its open transaction are waited for.
            "kafka.consumer": "{'session.timeout.ms' = 3000, 'heartbeat.interval.ms' = 500}",
            "kafka.producer": "{'transaction.timeout.ms' = 6000}",
            "kafka.publish_timeout_s": "5",
            "log.format": "'json'",
            "http.port": "0",
            **self.settings,
        }
        log = self.folder / f"worker-{self._workers}.log"
        worker = self.stack.enter_context(start_worker(given, log, self.command))
        self._alive.append(worker)
        return worker

    def kill(self, worker: Program) -> None:
        self._alive.remove(worker)
        worker.child.kill()

    def stop(self, worker: Program) -> int:
        self._alive.remove(worker)
        return worker.stop()

    def publish(self, values: Sequence[bytes | None]) -> None:
        """Publish these values, spread over the partitions."""
        producer = Producer({"bootstrap.servers": self.servers, **_QUIET})
        for number, value in enumerate(values):
            producer.produce(
                self.topics["in"],
                value=value,
                key=str(number),
                partition=number % self.partitions,
            )
            producer.poll(0)
        assert producer.flush(60) == 0

    def wait_for(self, count: int) -> None:
        """Wait until ``count`` results are committed. Fails if none come for a while."""
        seen, moved = len(self.results), time.monotonic()
        while len(self.results) < count:
            self.reader.read(0.2)
            for worker in self._alive:
                worker.check()
            if len(self.results) > seen:
                seen, moved = len(self.results), time.monotonic()
            if time.monotonic() - moved > _STALL_S:
                logs = [worker.log_path.read_text().splitlines()[-12:] for worker in self._alive]
                raise AssertionError(f"stuck at {seen} of {count}; its workers logged {logs}")

    def read_once(self, timeout_s: float) -> None:
        """Read what has arrived; wait ``timeout_s`` for a first result."""
        self.reader.read(timeout_s)

    def read_for(self, seconds: float = 1.0) -> None:
        """Keep reading: duplicates would arrive now."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.reader.read(0.2)

    @property
    def results(self) -> list[str]:
        """Ids (partition-offset of the input) of all committed results, in order of reading."""
        return self.reader.ids

    @property
    def stamps(self) -> list[tuple[str, str]]:
        """Label and adapter digest of all committed labels, in order of reading."""
        return self.reader.stamps

    @property
    def by_topic(self) -> Counter[str]:
        """Results by short topic name."""
        short = {full: name for name, full in self.topics.items()}
        return Counter(short[topic] for topic in self.reader.topics)

    def verdict(self, expected: int) -> str:
        """Compare the results with the inputs. Fails unless each input has exactly one."""
        self.read_for()
        counts = Counter(self.results)
        twice = [result for result, count in counts.items() if count > 1]
        wanted = {f"{n % self.partitions}-{n // self.partitions}" for n in range(expected)}
        missing = wanted - set(counts)
        assert not twice, f"{len(twice)} results twice: {twice[:5]}"
        assert not missing, f"{len(missing)} inputs without a result: {sorted(missing)[:5]}"
        assert set(counts) == wanted
        return f"{len(counts)} of {expected} inputs have exactly one committed result"


class Reader:
    """Reads the result topics as another client would, with read_committed and without a group."""

    def __init__(self, servers: str, topics: Sequence[str], partitions: int) -> None:
        self.ids: list[str] = []
        self.stamps: list[tuple[str, str]] = []
        """Label and adapter digest of every result with a label."""
        self.topics: list[str] = []
        self.plain: Callable[[str, bytes], bytes] = lambda _, value: value
        """Reads a topic's value, if it is written by a registered schema."""
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "chaos-reader",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                **_QUIET,
            }
        )
        for topic in topics:  # it would ask their leaders a second later
            self._consumer.list_topics(topic, timeout=20)
        self._consumer.assign(
            [TopicPartition(topic, number, 0) for topic in topics for number in range(partitions)]
        )

    def read(self, timeout_s: float) -> None:
        """Read what has arrived."""
        message = self._consumer.poll(timeout_s)
        while message is not None:
            if message.error() is None:
                self.topics.append(str(message.topic()))
                headers = dict(cast("list[tuple[str, bytes]]", message.headers() or []))
                self.ids.append(self._id(message, headers))
                if "clerk.reason" not in headers and message.value() is not None:
                    result = json.loads(self._plain(message))
                    self.stamps.append((result["label"], result["adapter"]["digest"]))
            message = self._consumer.poll(0)

    def close(self) -> None:
        self._consumer.close()

    def _plain(self, message: Message) -> bytes:
        return self.plain(str(message.topic()), message.value() or b"{}")

    def _id(self, message: Message, headers: Mapping[str, bytes]) -> str:
        if "clerk.reason" in headers:
            partition = headers["clerk.source.partition"].decode()
            return f"{partition}-{headers['clerk.source.offset'].decode()}"
        if message.value() is None:
            return "a tombstone that was forwarded"  # nothing shows which of them
        source = json.loads(self._plain(message))["source"]
        return f"{source['partition']}-{source['offset']}"


def messages(count: int, texts: Sequence[str] = ("where is parcel {}?",)) -> list[bytes]:
    """Input records, each with its own id."""
    return [
        json.dumps({"id": str(n), "message": texts[n % len(texts)].format(n)}).encode()
        for n in range(count)
    ]


def kill_and_restart(arena: Arena, values: Sequence[bytes]) -> str:
    """Kill the worker in the middle and start it again."""
    worker = arena.start_worker()
    worker.wait_until_ready()
    arena.publish(values)
    arena.wait_for(len(values) // 4)
    arena.kill(worker)
    assert len(arena.results) < len(values), "it was done before it was killed"
    arena.start_worker()
    arena.wait_for(len(values))
    return arena.verdict(len(values))


def kill_one_of_two(arena: Arena, values: Sequence[bytes]) -> str:
    """Two workers share the partitions; one is killed and the other takes over."""
    workers = [arena.start_worker(), arena.start_worker()]
    for worker in workers:
        worker.wait_until_ready()
    arena.publish(values)
    arena.wait_for(len(values) // 4)
    arena.kill(workers[0])
    assert len(arena.results) < len(values), "they were done before one was killed"
    arena.wait_for(len(values))
    return arena.verdict(len(values))


def kill_broker(
    arena: Arena, values: Sequence[bytes], broker: LocalBroker, away_s: float = 3.0
) -> str:
    """Kill the broker under the worker and restart it; the same worker continues."""
    worker = arena.start_worker()
    worker.wait_until_ready()
    arena.publish(values)
    arena.wait_for(len(values) // 4)
    broker.kill()
    assert len(arena.results) < len(values), "it was done before the broker was killed"
    time.sleep(away_s)
    worker.check()
    broker.restart()
    arena.wait_for(len(values))
    verdict = arena.verdict(len(values))
    events = Counter(worker.events())
    assert events["kafka.unreachable"] == events["kafka.reachable"], events
    assert arena.stop(worker) == 0
    return verdict
