"""How long an urgent message takes while others wait, and what those keep.

    python -m tests.bench.urgent [--model adapter] [--low 20000] [--messages 200] [--rate 5]

Messages come at a steady rate on one topic: to an idle worker, then while ``--low`` messages wait
on another topic, without ``kafka.urgent_topics`` and with it. The time is from published to read.
At the end both topics have a backlog, and the first results are counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from confluent_kafka import Consumer, Producer, TopicPartition

from worker.common.logs import configure_logging
from worker.demo.broker import LocalBroker
from worker.demo.client import create_demo_topics
from worker.demo.models import ensure_model, read_samples
from worker.demo.program import start_worker

PARTITIONS = 4
QUICK, SLOW = "urgent", "low"
RESULTS = ("out", "review", "dead")
TEXTS = [sample.message for sample in read_samples("holdout.jsonl")]


@dataclass
class Run:
    """A worker on topics of its own; ``came`` says when each message's result was read."""

    servers: str
    name: str
    came: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.topics = {each: f"{self.name}.{each}" for each in (QUICK, SLOW, *RESULTS)}
        create_demo_topics(self.servers, dict.fromkeys(self.topics.values(), PARTITIONS))
        self._producer = Producer(
            {"bootstrap.servers": self.servers, "linger.ms": 0, "log_level": 0}
        )
        self._consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": "bench", "log_level": 0}
        )
        self._consumer.assign(
            [
                TopicPartition(self.topics[topic], number, 0)
                for topic in RESULTS
                for number in range(PARTITIONS)
            ]
        )

    def publish(self, topic: str, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            message = {
                "id": f"{topic}-{number}",
                "message": f"{number}: {TEXTS[number % len(TEXTS)]}",
            }
            self._producer.produce(
                self.topics[topic], json.dumps(message).encode(), partition=number % PARTITIONS
            )
            if number % 1000 == 999:
                self._producer.flush()
        self._producer.flush() if count > 1 else self._producer.poll(0)

    def read(self, seconds: float) -> None:
        until = time.perf_counter() + seconds
        while (left := until - time.perf_counter()) > 0:
            if (read := self._consumer.poll(left)) is not None and read.error() is None:
                self.came[json.loads(read.value() or b"")["message_id"]] = time.perf_counter()

    def count(self, topic: str) -> int:
        return sum(name.startswith(topic) for name in self.came)

    def steadily(self, messages: int, rate: float) -> list[float]:
        """Publish urgent messages at a rate; return the milliseconds that each took."""
        sent = {}
        for number in range(messages):
            self.publish(QUICK, 1, number)
            sent[f"{QUICK}-{number}"] = time.perf_counter()
            self.read(1 / rate)
        end = time.perf_counter() + 120
        while not sent.keys() <= self.came.keys() and time.perf_counter() < end:
            self.read(0.5)
        missing = time.perf_counter()  # counted as if they came now
        return [(self.came.get(name, missing) - at) * 1e3 for name, at in sent.items()]


@contextmanager
def run(servers: str, name: str, model: Mapping[str, str], *, first: bool) -> Iterator[Run]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = Run(servers, name)
        topics = made.topics
        flags = {
            **model,
            "kafka.bootstrap_servers": f"'{servers}'",
            "kafka.group_id": f"'{name}'",
            "kafka.input_topics": json.dumps([topics[QUICK], topics[SLOW]]),
            "kafka.output_topic": f"'{topics['out']}'",
            "kafka.review_topic": f"'{topics['review']}'",
            "kafka.dead_letter_topic": f"'{topics['dead']}'",
            "log.format": "'json'",
            "http.port": "0",
        }
        if first:
            flags["kafka.urgent_topics"] = json.dumps([topics[QUICK]])
        worker = stack.enter_context(start_worker(flags, folder / "worker.log"))
        worker.wait_until_ready("partitions.assigned")
        yield made


def said(what: str, took_ms: Sequence[float]) -> None:
    p99 = statistics.quantiles(took_ms, n=100)[98]
    print(f"{what}: p50 {statistics.median(took_ms):.0f} ms, p99 {p99:.0f} ms", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=("adapter", "encoder", "cascade"), default="encoder")
    parser.add_argument("--low", type=int, default=20_000)
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--rate", type=float, default=5.0)
    given = parser.parse_args()
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    model = ensure_model(given.model).settings()
    with LocalBroker() as broker:
        servers = broker.bootstrap_servers
        with run(servers, "idle", model, first=True) as idle:
            idle.steadily(20, 10.0)
            idle.came.clear()
            said("idle", idle.steadily(given.messages, given.rate))
        for name, first in (("together", False), ("urgent-first", True)):
            with run(servers, name, model, first=first) as loaded:
                loaded.publish(SLOW, given.low)
                while loaded.count(SLOW) < given.low // 40:
                    loaded.read(0.2)
                began, before = time.perf_counter(), loaded.count(SLOW)
                took = loaded.steadily(given.messages, given.rate)
                rate = (loaded.count(SLOW) - before) / (time.perf_counter() - began)
                said(f"{name}, {given.low} waiting, the others {rate:.0f} messages/s", took)
        with run(servers, "both", model, first=True) as both:
            for topic in (SLOW, QUICK):
                both.publish(topic, given.low // 8)
            while len(both.came) < given.low // 16:
                both.read(0.1)
            share = both.count(SLOW) / len(both.came)
            print(f"both with a backlog: {share:.1%} of the first {len(both.came)} are the others'")
    return 0


if __name__ == "__main__":
    sys.exit(main())
