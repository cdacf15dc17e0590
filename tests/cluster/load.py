"""Messages at a steady rate, and an independent check that each has exactly one result.

with Traffic(servers, topics, partitions=4) as traffic:
    traffic.per_second = 20
    ...
    traffic.finish()
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, Producer, TopicPartition

from worker.demo.models import demo_samples

_QUIET: dict[str, str | int | float | bool] = {"log_level": 0}
_TICK_S = 0.1
_AFTER_S = 3.0  # how long to wait for a second result of a message


@dataclass(frozen=True, slots=True)
class Names:
    """The topics and the group of one release."""

    inputs: str
    outputs: str
    review: str
    dead: str
    group: str

    @classmethod
    def fresh(cls, run: str) -> Names:
        run = f"{run}-{uuid.uuid4().hex[:6]}"
        inputs, outputs, review, dead = (
            f"{run}.{name}" for name in ("in", "out", "review", "dead")
        )
        return cls(inputs, outputs, review, dead, group=run)

    @property
    def sinks(self) -> tuple[str, str, str]:
        return (self.outputs, self.review, self.dead)


@dataclass(frozen=True, slots=True)
class Result:
    """One committed record. ``source`` is its input's partition and offset, ``at`` Unix seconds,
    ``adapter`` the digest of its adapter."""

    source: str
    topic: str
    label: str | None
    at: float
    adapter: str


class Traffic:
    """Publishes on one thread and reads on another, inside the context."""

    def __init__(self, servers: str, names: Names, partitions: int) -> None:
        self.per_second = 0.0
        self.results: list[Result] = []
        self.sent: dict[str, float] = {}  # by source: when it was acknowledged
        self._names = names
        self._texts = [sample.message for sample in demo_samples(200)]
        self._partitions = partitions
        self._made = 0
        self._producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, **_QUIET})
        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": "cluster-tests-reader",  # the client requires one; it is not joined
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
                **_QUIET,
            }
        )
        self._ended = threading.Event()
        self._broken: list[Exception] = []
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), daemon=True)
            for work in (self._publish, self._read)
        ]

    def __enter__(self) -> Self:
        """Start to read all result topics, and to publish at the rate."""
        sinks = self._names.sinks
        self._consumer.assign(
            [TopicPartition(topic, n, 0) for topic in sinks for n in range(self._partitions)]
        )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)
        self._consumer.close()
        self._producer.flush(10)

    def publish(self, count: int) -> None:
        """Publish ``count`` at once, spread over the partitions."""
        for _ in range(count):
            number, self._made = self._made, self._made + 1
            value = {"id": f"m-{number}", "message": self._texts[number % len(self._texts)]}
            self._producer.produce(
                self._names.inputs,
                value=json.dumps(value),
                partition=number % self._partitions,
                on_delivery=self._acknowledged,
            )
            self._producer.poll(0)

    @property
    def waiting(self) -> int:
        """Messages without a result yet."""
        return self._made - len({result.source for result in self.results})

    def done_since(self, moment: float) -> int:
        """Results after a moment (Unix seconds)."""
        return sum(result.at > moment for result in self.results)

    def finish(self, timeout_s: float = 120) -> int:
        """Stop publishing, wait for the last result and return the number of results. Fails if a
        message has no result or two."""
        self.per_second = 0.0
        time.sleep(2 * _TICK_S)
        assert self._producer.flush(30) == 0
        until = time.monotonic() + timeout_s
        while self.waiting > 0 and time.monotonic() < until and not self._broken:
            time.sleep(0.2)
        time.sleep(_AFTER_S)
        assert not self._broken, self._broken
        assert len(self.sent) == self._made
        counts = Counter(result.source for result in self.results)
        lost = sorted(self.sent.keys() - counts.keys())
        twice = [source for source, count in counts.items() if count > 1]
        assert not lost, f"{len(lost)} of {self._made} have no result: {lost[:5]}"
        assert not twice, f"{len(twice)} of {self._made} have several results: {twice[:5]}"
        assert counts.keys() == self.sent.keys()
        return self._made

    def _guard(self, work: Any) -> None:
        try:
            while not self._ended.is_set():
                work()
        except Exception as error:  # noqa: BLE001 - finish tells it
            self._broken.append(error)

    def _publish(self) -> None:
        began, owed = time.monotonic(), 0.0
        while not self._ended.is_set():
            time.sleep(_TICK_S)
            now = time.monotonic()
            owed += self.per_second * (now - began)
            began = now
            self.publish(int(owed))
            owed -= int(owed)
            self._producer.poll(0)

    def _acknowledged(self, error: Any, message: Any) -> None:
        assert error is None, error
        self.sent[f"{message.partition()}-{message.offset()}"] = time.time()

    def _read(self) -> None:
        message = self._consumer.poll(0.2)
        if message is None or message.error() is not None:
            return
        headers: dict[str, Any] = dict(message.headers() or [])
        topic = str(message.topic())
        if topic == self._names.dead:
            where = [headers[f"clerk.source.{part}"].decode() for part in ("partition", "offset")]
            adapter = headers["clerk.adapter.digest"].decode()
            self.results.append(Result("-".join(where), topic, None, time.time(), adapter))
            return
        value = json.loads(message.value() or b"")
        source = f"{value['source']['partition']}-{value['source']['offset']}"
        adapter = value["adapter"]["digest"]
        self.results.append(Result(source, topic, value["label"], time.time(), adapter))


class Lag:
    """The lag of a group by its committed offsets, as an autoscaler sees it."""

    def __init__(self, servers: str, names: Names, partitions: int) -> None:
        self._client = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": names.group,
                "enable.auto.commit": False,
                **_QUIET,
            }
        )
        self._parts = [TopicPartition(names.inputs, number) for number in range(partitions)]

    def now(self) -> int:
        behind = 0
        for partition in self._client.committed(self._parts, timeout=10):
            first, end = self._client.get_watermark_offsets(partition, timeout=10)
            behind += end - max(partition.offset, first)
        return behind

    def close(self) -> None:
        self._client.close()
