"""Input and result topics written by hand, so that one thing in them can be wrong."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.rig import NOW
from tests.support.topics import create_topics, topic_settings
from tests.support.toy_adapter import small_manifest
from worker.contract.records import Replay
from worker.contract.scoring import Decision, ReviewReason
from worker.records.encode import DeadLetterEncoder, OutputEncoder
from worker.records.types import Classified, Outgoing, Record, Rejected, Timing, TopicPartition

_QUIET: dict[str, str | int | float | bool] = {"log_level": 0}
_DECISION = Decision("billing", 0.75, {"billing": 0.75, "delivery": 0.25, "other": 0.0}, 0.125)


@dataclass
class KafkaWorld:
    """Fresh topics, written by one transactional producer."""

    servers: str
    partitions: int = 2
    create_topic: Callable[[str, int], object] | None = None
    """Creates a topic with this many partitions; by default by a request to the cluster."""
    run: str = field(default_factory=lambda: f"world.{uuid.uuid4().hex[:8]}")

    def __post_init__(self) -> None:
        self.topics = {name: f"{self.run}.{name}" for name in ("in", "out", "review", "dead")}
        self._create_topics()
        self.producer = Producer(
            {"bootstrap.servers": self.servers, "transactional.id": self.run, **_QUIET}
        )
        self.producer.init_transactions(30)
        self.manifest = small_manifest()
        self._outputs = OutputEncoder(self.manifest, "9.9", ("fp32",))
        self._dead = DeadLetterEncoder(self.topics["dead"], "9.9", self.manifest.digest)

    def _create_topics(self) -> None:
        if self.create_topic is not None:
            for topic in self.topics.values():
                self.create_topic(topic, self.partitions)
            return
        create_topics(self.servers, self.topics.values(), self.partitions)

    @property
    def settings(self) -> dict[str, str]:
        return topic_settings(self.servers, self.run, self.topics)

    def publish_inputs(
        self, values: Sequence[bytes], *, batch: int = 5, aborted: bool = False
    ) -> list[Record]:
        """Publish these over the partitions in transactions of ``batch``; each leaves a marker in
        the log. Return the records."""
        records: list[Record] = []
        for begin in range(0, len(values), batch):
            self.producer.begin_transaction()
            for number, value in enumerate(values[begin : begin + batch], begin):
                partition = number % self.partitions

                def note(error: object, message: object, value: bytes = value) -> None:
                    assert error is None
                    source = TopicPartition(self.topics["in"], message.partition())  # type: ignore[attr-defined]
                    records.append(
                        Record(source, message.offset(), str(len(records)).encode(), value)  # type: ignore[attr-defined]
                    )

                self.producer.produce(
                    self.topics["in"], value, str(number), partition=partition, on_delivery=note
                )
            assert self.producer.flush(30) == 0
            if aborted:
                self.producer.abort_transaction(30)
            else:
                self.producer.commit_transaction(30)
        return sorted(records, key=lambda record: (record.offset, record.source.partition))

    def label(self, record: Record, replay: Replay | None = None) -> Outgoing:
        """A label for a record; some need review."""
        topic = self.topics["review" if record.offset % 5 == 0 else "out"]
        review: tuple[ReviewReason, ...] = ("low_confidence",) if record.offset % 5 == 0 else ()
        result = Classified(_DECISION, None, False, review, Timing(0.0, 0.0))
        return self._outputs.encode(record, result, topic, NOW, replay)

    def reject(self, record: Record, reason: str = "deadline_exceeded") -> Outgoing:
        return self._dead.encode(record, Rejected(reason, "engine", "no answer", 1))  # type: ignore[arg-type]

    def result(self, record: Record) -> Outgoing:
        """A dead letter for some records, a label for the others."""
        return self.reject(record) if record.offset % 7 == 3 else self.label(record)

    def publish(self, outputs: Sequence[Outgoing], batch: int = 8) -> None:
        """Publish results, those of one input partition to one partition."""
        for begin in range(0, len(outputs), batch):
            self.producer.begin_transaction()
            for outgoing in outputs[begin : begin + batch]:
                self.producer.produce(
                    outgoing.topic, outgoing.value, outgoing.key,
                    partition=0, headers=list(outgoing.headers),
                )  # fmt: skip
            self.producer.commit_transaction(30)

    def commit(self, next_offsets: dict[int, int]) -> None:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": self.run, **_QUIET})
        consumer.commit(
            offsets=[
                KafkaPartition(self.topics["in"], number, offset)
                for number, offset in next_offsets.items()
            ],
            asynchronous=False,
        )
        consumer.close()

    def ends(self) -> dict[int, int]:
        consumer = Consumer({"bootstrap.servers": self.servers, "group.id": "ends", **_QUIET})
        found = {
            number: consumer.get_watermark_offsets(
                KafkaPartition(self.topics["in"], number), timeout=30
            )[1]
            for number in range(self.partitions)
        }
        consumer.close()
        return found


def results_by_adapter(found: dict[str, Any]) -> dict[str, int]:
    """Results for each adapter in the output of ``verify --json``, over all precisions."""
    counts: Counter[str] = Counter()
    for each in found["adapters"]:
        counts[each["digest"]] += each["results"]
    return dict(counts)
