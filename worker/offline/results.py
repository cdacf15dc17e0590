"""Reading a record of a result topic: for which input record it is, and who made it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.contract.records import (
    DeadLetter,
    OutputRecord,
    Replay,
    read_dead_letter,
    read_output,
    read_replay,
)
from worker.core.labeller import TombstonePolicy
from worker.offline.input_range import Offsets
from worker.records.types import Record, TopicPartition
from worker.stream.kafka_scan import TopicScanner


@dataclass(frozen=True, slots=True)
class ReadResult:
    """One result: its input record's place, its adapter's digest, its replay (None: first run), the
    label and whether it is for review, or the reason that it has instead; the input's cluster, and
    the precision of what answered (None: a dead letter)."""

    source: TopicPartition
    offset: int
    adapter_digest: str
    replay: Replay | None
    label: str | None
    in_review: bool
    reason: str | None
    cluster: str | None = None
    precision: str | None = None


def whole_logs(scanner: TopicScanner, topics: Iterable[str]) -> dict[str, Offsets]:
    """Return by topic what its partitions hold now."""
    return {
        topic: {source: (log.start, log.end) for source, log in scanner.spans(topic).items()}
        for topic in topics
    }


def is_of_another_cluster(result: ReadResult, cluster: str | None) -> bool:
    """Tell whether a result is of a message in a cluster of another name than ours.

    One without a name is taken for ours: its worker had no kafka.source_cluster.
    """
    return result.cluster is not None and result.cluster != cluster


def read_result(record: Record, dead_letter_topic: str) -> ReadResult:
    """Read a record of any result topic. Raises RecordRefused."""
    if record.source.topic == dead_letter_topic:
        return _of_dead_letter(read_dead_letter(record.headers), read_replay(record.headers))
    return _of_output(read_output(record.value))


def has_no_result(record: Record, tombstones: TombstonePolicy) -> bool:
    """Tell whether a record is a tombstone that the settings skip or forward."""
    if record.value is not None:
        return False
    return tombstones == "skip" or (tombstones == "forward" and record.key is not None)


def _of_output(output: OutputRecord) -> ReadResult:
    source = output.source
    return ReadResult(
        TopicPartition(source.topic, source.partition),
        source.offset,
        output.adapter.digest,
        output.replay,
        output.label,
        output.review.needed,
        None,
        source.cluster,
        output.adapter.precision,
    )


def _of_dead_letter(letter: DeadLetter, replay: Replay | None) -> ReadResult:
    return ReadResult(
        TopicPartition(letter.topic, letter.partition),
        letter.offset,
        letter.adapter_digest,
        replay,
        None,
        False,
        letter.reason,
        letter.cluster,
    )
