"""The load: a producer at a steady rate that survives its broker, and counts accepted records."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Producer

from tests.fuzz.__main__ import payload
from tests.support.hostile import hostile_values

Values = Callable[[int], bytes | None]
"""The value of a record, by its number."""


def plain_values(texts: tuple[str, ...] = ("where is parcel {}?",)) -> Values:
    """Valid messages, each with its own id."""
    return lambda n: json.dumps({"id": str(n), "message": texts[n % len(texts)].format(n)}).encode()


def some_refused(values: Values, every: int = 10, for_s: float = 2.5) -> Values:
    """The same, but the engine refuses every tenth for a while."""

    def made(n: int) -> bytes | None:
        if n % every:
            return values(n)
        text = f"refused until {time.time() + for_s:.1f}"
        return json.dumps({"id": str(n), "message": text}).encode()

    return made


def hostile_and_fuzzed(count: int, seed: int) -> Values:
    """Messages of every kind, alternating with mutated payloads."""
    rng = random.Random(seed)
    made: list[bytes | None] = []
    for value in hostile_values((count + 1) // 2, seed):
        made += [value, payload(rng)]
    return lambda n: made[n % len(made)]


class Load:
    """Publishes at ``rate_per_s`` on a thread, round-robin over the partitions. Without
    transactions, so that a partition's offsets are its record count."""

    def __init__(
        self, servers: str, topic: str, partitions: int, values: Values, rate_per_s: float
    ) -> None:
        self._topic = topic
        self._partitions = partitions
        self._values = values
        self._rate_per_s = rate_per_s
        self._published = [0] * partitions
        self._sent = 0
        self._errors: list[str] = []
        self._ended = threading.Event()
        self._least = 0
        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "message.timeout.ms": 0,  # takes as long as it takes: each record arrives once
                "retry.backoff.max.ms": 500,
                "linger.ms": 5,
                "log_level": 0,
                "error_cb": lambda _: None,  # an absent broker is the point
            }
        )
        self._thread = threading.Thread(target=self._run, name="load")

    @property
    def published(self) -> int:
        return sum(self._published)

    def ends(self, partitions: Iterable[int] | None = None) -> dict[int, int]:
        """The end of each partition, as acknowledged so far."""
        wanted = range(self._partitions) if partitions is None else partitions
        return {number: self._published[number] for number in wanted}

    def begin(self) -> None:
        self._thread.start()

    def finish(self, least: int) -> None:
        """Publish until there are ``least`` records, and wait for their acknowledgements."""
        self._least = least
        self._ended.set()
        self._thread.join()
        left = self._producer.flush(120)
        assert not left, f"{left} records without an answer of the broker"
        assert not self._errors, self._errors[:3]

    def abandon(self) -> None:
        self._least = 0
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        began = time.monotonic()
        while not self._ended.is_set() or self._sent < self._least:
            due = int((time.monotonic() - began) * self._rate_per_s)
            # What could not be sent while the queue was full is not caught up at once.
            for _ in range(min(due - self._sent, 200)):
                self._send()
            self._producer.poll(0.005)

    def _send(self) -> None:
        partition = self._sent % self._partitions
        while True:
            try:
                self._producer.produce(
                    self._topic,
                    value=self._values(self._sent),
                    key=str(self._sent),
                    partition=partition,
                    on_delivery=self._delivered,
                )
            except BufferError:
                self._producer.poll(0.1)
            else:
                self._sent += 1
                return

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._errors.append(str(error))
        else:
            self._published[message.partition()] += 1
