"""Streams that break a guarantee on purpose, so that it can be seen whether the suite notices."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from worker.contract.records import record_id
from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig
from worker.stream.port import AssignmentListener

_BETWEEN_S = 0.3
"""Longer than the honest way takes, so that a kill is likely to fall in between."""


def _commit_first(stream: KafkaStream, batch: Batch) -> None:
    """Offsets, and results later: what is killed in between is lost."""
    stream.publish(replace(batch, outputs=()))
    time.sleep(_BETWEEN_S)
    stream.publish(replace(batch, next_offsets=()))


def _two_transactions(stream: KafkaStream, batch: Batch) -> None:
    """Results, and offsets later: what is killed in between comes twice."""
    stream.publish(replace(batch, next_offsets=()))
    time.sleep(_BETWEEN_S)
    stream.publish(replace(batch, outputs=()))


def _out_of_order(stream: KafkaStream, batch: Batch) -> None:
    """Everything, the last first."""
    stream.publish(replace(batch, outputs=tuple(reversed(batch.outputs))))


def _lose_some(stream: KafkaStream, batch: Batch) -> None:
    """Commit past what is not written: the first result of each batch is left out."""
    stream.publish(replace(batch, outputs=tuple(batch.outputs[1:])))


def _double_some(stream: KafkaStream, batch: Batch) -> None:
    """The first result of each batch comes again."""
    stream.publish(replace(batch, outputs=(*batch.outputs, *batch.outputs[:1])))


def _invent_some(stream: KafkaStream, batch: Batch) -> None:
    """A label for a record that does not exist, beside each batch."""
    made_up = []
    for output in batch.outputs[:1]:
        record = json.loads(output.value or b"{}")
        source = record["source"]
        source["offset"] = 10**9
        record["id"] = record_id(source["topic"], source["partition"], source["offset"])
        made_up.append(replace(output, value=json.dumps(record).encode()))
    stream.publish(replace(batch, outputs=(*batch.outputs, *made_up)))


def _all_in_turn(stream: KafkaStream, batch: Batch) -> None:
    """Each of those that need no kill to be seen, batch after batch."""
    turn = next(_TURNS)
    turn(stream, batch)


_TURNS = itertools.cycle((_out_of_order, _lose_some, _double_some, _invent_some))

BROKEN: Mapping[str, Callable[[KafkaStream, Batch], None]] = {
    "commit_first": _commit_first,
    "two_transactions": _two_transactions,
    "out_of_order": _out_of_order,
    "lose_some": _lose_some,
    "double_some": _double_some,
    "invent_some": _invent_some,
    "all_in_turn": _all_in_turn,
}


class BrokenStream:
    """A stream whose ``publish`` is replaced. See ``worker.stream.port.Stream``."""

    def __init__(self, how: str, config: KafkaConfig) -> None:
        self._publish = BROKEN[how]
        self._stream = KafkaStream(config)

    def subscribe(self, listener: AssignmentListener) -> None:
        self._stream.subscribe(listener)

    def poll(
        self,
        max_records: int,
        timeout_s: float,
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        return self._stream.poll(max_records, timeout_s, max_bytes=max_bytes, stop_after=stop_after)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._stream.pause(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._stream.resume(partitions)

    def publish(self, batch: Batch) -> None:
        if batch.outputs:
            self._publish(self._stream, batch)
        else:  # offsets and their notes alone
            self._stream.publish(batch)

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        return self._stream.read_committed(partitions)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        return self._stream.resolve_unknown_commit(partitions)

    def lag(self) -> Mapping[TopicPartition, int]:
        return self._stream.lag()

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """See the stream that is broken."""
        return self._stream.oldest_ms()

    def close(self) -> None:
        self._stream.close()
