"""How much a worker with a backlog receives from Kafka for what it takes.

    python -m tests.bench.fetch [--partitions 1 12 96] [--rate 2000] [--seconds 20]

librdkafka discards what it has fetched of a partition that is paused, and a worker with a backlog
pauses all the time. The loop and the client are real; the engine is a fake that answers ``rate``
messages a second, or all at once (``--rate 0``, for the most messages a second). Counted after the
warm-up, from one report of the client's statistics to another, without what the worker has in its
buffer afterwards and did not have before.
"""

from __future__ import annotations

import argparse
import json
import queue
import random
import string
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import psutil
from confluent_kafka import Producer

from tests.chaos.harness import Arena
from tests.support.toy_adapter import ENCODERS, scores, small_manifest
from worker.app import make_loop
from worker.common.logs import configure_logging
from worker.demo.broker import LocalBroker
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.engine.port import Answer
from worker.policies import kafka_config, loop_policy
from worker.serving import make_adapter_router
from worker.settings import load_settings
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_topics import prepare_topics

WARM_UP_S = 5.0


class PacedEngine(FakeEngine):
    """Answers ``rate`` prompts a second, in order; 0: each at once."""

    def __init__(self, rate: float) -> None:
        super().__init__(lambda _: scores("billing"))
        self._pause_s = 1 / rate if rate else 0.0
        self._given: queue.SimpleQueue[Future[Answer]] = queue.SimpleQueue()
        threading.Thread(target=self._answer, daemon=True).start()

    def submit(self, prompt_ids: Sequence[int]) -> Future[Answer]:
        future: Future[Answer] = Future()
        self._given.put(future)
        return future

    def _answer(self) -> None:
        due = time.monotonic()
        while True:
            future = self._given.get()
            now = time.monotonic()
            due = max(due + self._pause_s, now - 0.1)
            if due > now:
                time.sleep(due - now)
            if future.set_running_or_notify_cancel():
                future.set_result(scores("billing"))


@dataclass(frozen=True)
class Fetched:
    """Counts of one run; ``memory_mb``: the process's memory at its end."""

    messages_s: float
    cpu_us: float
    taken: tuple[int, int]
    """Records and their bytes that the loop took."""
    received: tuple[int, int]
    memory_mb: float

    @property
    def ratios(self) -> tuple[float, float]:
        """Received for each one taken: records and bytes."""
        records, size_bytes = self.taken
        return self.received[0] / max(1, records), self.received[1] / max(1, size_bytes)


def send_backlog(arena: Arena, count: int, partitions: int, characters: int = 400) -> None:
    """Fill the input topic with batches as a producer makes them."""
    producer = Producer(
        {"bootstrap.servers": arena.servers, "linger.ms": 50, "batch.num.messages": 1_000}
    )
    draw = random.Random(1)
    letters = string.ascii_lowercase + " "
    text = "".join(draw.choice(letters) for _ in range(100_000))
    for number in range(count):
        at = draw.randrange(len(text) - characters)
        value = json.dumps({"id": str(number), "message": text[at : at + characters]})
        producer.produce(arena.topics["in"], value, str(number), partition=number % partitions)
        producer.poll(0)
        while len(producer) > 50_000:
            producer.poll(0.1)
    assert producer.flush(60) == 0


@contextmanager
def worker(arena: Arena, rate: float) -> Iterator[tuple[Any, KafkaStream]]:
    """A loop on Kafka, with its stream."""
    flags = [
        f"kafka.bootstrap_servers={arena.servers}",
        f"kafka.group_id={arena.topics['in']}",
        f"kafka.input_topics=['{arena.topics['in']}']",
        f"kafka.output_topic={arena.topics['out']}",
        f"kafka.review_topic={arena.topics['review']}",
        f"kafka.dead_letter_topic={arena.topics['dead']}",
        'kafka.consumer={"statistics.interval.ms"=500}',
    ]
    settings = load_settings(flags=flags).settings
    opened = OpenedEngine(PacedEngine(rate), small_manifest(), ENCODERS, "merged")
    config = prepare_topics(kafka_config(settings.kafka))
    stream = KafkaStream(config)
    router, _ = make_adapter_router(settings, opened, lambda _: None)
    loop = make_loop(settings, stream, router, config.topics, loop_policy(settings))
    stream.subscribe(loop)
    try:
        yield loop, stream
    finally:
        stream.close()


def measure(arena: Arena, rate: float, seconds: float) -> Fetched:
    """Run a worker with a backlog for ``WARM_UP_S`` and then for ``seconds``."""
    with worker(arena, rate) as (loop, stream):
        taken = [0, 0]
        marks: list[tuple[float, float, int, int, int, int]] = []
        update, poll = stream._lag.update, stream.poll

        def note(facts: Any, paused: Any) -> None:
            update(facts, paused)
            buffered = [q for each in stream._buffer._queues.values() for q in each.records]
            marks.append(
                (
                    time.monotonic(),
                    time.process_time(),
                    *taken,
                    facts["rxmsgs"] - len(buffered),
                    facts["rx_bytes"] - sum(len(record.value or b"") for record, _ in buffered),
                )
            )

        def count(*arguments: Any, **options: Any) -> Any:
            records = poll(*arguments, **options)
            taken[0] += len(records)
            taken[1] += sum(len(record.value or b"") for record in records)
            return records

        stream._lag.update = note  # type: ignore[assignment,method-assign]
        stream.poll = count  # type: ignore[method-assign]
        while not loop.state.in_flight_records:
            loop.run_once()
        began = time.monotonic()
        while time.monotonic() < began + WARM_UP_S:
            loop.run_once()
        first = marks[-1]
        while time.monotonic() < began + WARM_UP_S + seconds:
            loop.run_once()
        last = marks[-1]
        wall, cpu, *counts = (after - before for before, after in zip(first, last, strict=True))
        records, size_bytes, received, received_bytes = (int(each) for each in counts)
        return Fetched(
            records / wall,
            1e6 * cpu / max(1, records),
            (records, size_bytes),
            (received, received_bytes),
            psutil.Process().memory_info().rss / 1e6,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[1, 12, 96])
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--messages", type=int, help="by default enough for 1.5 times as long")
    given = parser.parse_args()
    configure_logging("console", "error")
    with LocalBroker() as broker:
        for partitions in given.partitions:
            run(broker.bootstrap_servers, partitions, given)
    return 0


def run(servers: str, partitions: int, given: argparse.Namespace) -> None:
    with ExitStack() as stack:
        arena = Arena(servers, stack, partitions=partitions)
        wanted = given.messages or int(1.5 * (given.rate or 8000) * (given.seconds + WARM_UP_S))
        send_backlog(arena, wanted + 20_000, partitions)
        found = measure(arena, given.rate, given.seconds)
        records, size_bytes = found.ratios
        print(
            f"{partitions} partitions, {found.messages_s:.0f} messages/s: received {records:.2f} "
            f"records and {size_bytes:.2f} bytes for each one taken; {found.cpu_us:.0f} us of CPU "
            f"a message, {found.memory_mb:.0f} MB",
            flush=True,
        )


if __name__ == "__main__":
    raise SystemExit(main())
