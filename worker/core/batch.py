"""From completed records to one batch, published in one step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worker.contract.records import Headers, shadow_headers, without_worker_headers
from worker.core.assignment import CompletedRecord, PartitionState
from worker.core.shadow import ShadowRequest
from worker.errors import StreamFailed
from worker.records.retry import RetryPolicy
from worker.records.types import (
    Batch,
    Classified,
    NextOffset,
    Outgoing,
    Postponed,
    Record,
    Rejected,
    Tombstone,
)


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Decides which topic each completed record goes to; its adapter says in which form.

    The input's headers go along, without those that a worker has put there; ``propagate_headers``
    may change them. ``retry`` writes what is tried again later; without it nothing is.
    """

    output_topic: str
    review_topic: str | None
    shadow_topic: str | None = None
    propagate_headers: Callable[[CompletedRecord], Headers] | None = None
    retry: RetryPolicy | None = None

    def route(self, completed: CompletedRecord, now: datetime) -> Outgoing | None:
        """Every record ends in one place: output, review or dead letters, unless it is skipped.

        Or it does not end yet, and goes to the retry topic.
        """
        outcome = completed.outcome
        if isinstance(outcome, Postponed):
            assert self.retry is not None
            return self.retry.encode(completed.record, outcome, now)
        if isinstance(outcome, Rejected):
            return _dead_letter(completed, outcome)
        record = self._with_headers(completed)
        if isinstance(outcome, Tombstone):
            if not outcome.forwarded:
                return None
            return Outgoing(self.output_topic, record.key, None, record.headers)
        topic = self.output_topic
        if outcome.review and self.review_topic is not None:
            topic = self.review_topic
        return completed.adapter.outputs.encode(record, outcome, topic, now)

    def _with_headers(self, completed: CompletedRecord) -> Record:
        """Return the record with the headers that go along."""
        record = completed.record
        kept = without_worker_headers(record.headers)
        if kept != record.headers:
            record = replace(record, headers=kept)
        if self.propagate_headers is not None:
            traced = self.propagate_headers(replace(completed, record=record))
            record = replace(record, headers=traced)
        return record

    def route_shadow(
        self, completed: CompletedRecord, shadow: ShadowRequest, now: datetime
    ) -> Outgoing | None:
        """What a shadow made of the record, with the real label and its adapter in headers."""
        if self.shadow_topic is None:
            return None
        shadow.close()
        outcome = completed.outcome
        if not isinstance(outcome, Classified):
            shadow.drop("no_label")
            return None
        if shadow.result is None:
            return None
        real = shadow_headers(outcome.decision.label, completed.adapter.digest)
        kept = without_worker_headers(completed.record.headers)
        record = replace(completed.record, headers=kept + real)
        return shadow.adapter.outputs.encode(record, shadow.result, self.shadow_topic, now)


def _dead_letter(completed: CompletedRecord, rejected: Rejected) -> Outgoing:
    dead_letters = completed.adapter.dead_letters
    if completed.without_payload:
        return dead_letters.without_payload(completed.record, rejected)
    return dead_letters.encode(completed.record, rejected)


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """The part of a batch that one partition gives: its oldest completed records."""

    partition: PartitionState
    completed: Sequence[CompletedRecord]


def take_oldest(partition: PartitionState, count: int) -> PartitionBatch:
    """Return up to ``count`` records of a partition's completed prefix."""
    completed = [completed for _, completed in partition.watermark.peek(count)]
    return PartitionBatch(partition, completed)


def take_ready(partitions: Sequence[PartitionState], limit: int) -> list[PartitionBatch]:
    """Choose up to ``limit`` records, fairly: each partition gives its share of what is ready."""
    batches: list[PartitionBatch] = []
    left = limit
    ready = [partition for partition in partitions if partition.watermark.ready]
    ready.sort(key=lambda partition: partition.watermark.ready)
    for index, partition in enumerate(ready):
        share = -(-left // (len(ready) - index))
        batch = take_oldest(partition, share)
        if batch.completed:
            batches.append(batch)
            left -= len(batch.completed)
    return batches


def records_of(batches: Sequence[PartitionBatch]) -> list[CompletedRecord]:
    """All completed records of these batches, in the order in which they are published."""
    return [completed for batch in batches for completed in batch.completed]


def build_batch(
    batches: Sequence[PartitionBatch], topic_router: TopicRouter, now: datetime
) -> Batch:
    """Encode these records, with the offset after each partition's last record.

    What shadows made of them comes after all of it.
    """
    completed_records = records_of(batches)
    routed = [topic_router.route(completed, now) for completed in completed_records]
    outputs = [outgoing for outgoing in routed if outgoing is not None]
    for completed in completed_records:
        for shadow in completed.shadows:
            outgoing = topic_router.route_shadow(completed, shadow, now)
            if outgoing is not None:
                outputs.append(outgoing)
    return Batch(outputs, [_next_offset(batch) for batch in batches])


def _next_offset(batch: PartitionBatch) -> NextOffset:
    offset, suspects = batch.completed[-1].record.offset + 1, batch.partition.suspects
    note = suspects.note(offset) if suspects is not None else ""
    return NextOffset(batch.partition.source, offset, note)


def drop_shadows(batches: Sequence[PartitionBatch]) -> bool:
    """Leave what shadows made of these records out of the next try; tell if there was any."""
    found = False
    for shadow in _shadows(batches):
        if shadow.result is not None:
            shadow.drop("not_published")
            found = True
    return found


def replace_refused(
    batches: Sequence[PartitionBatch], indexes: Sequence[int], rejected: Rejected
) -> None:
    """Make the records at ``indexes`` of the batch end as something that the broker may take.

    A label becomes a dead letter, as does what was to be tried again; a dead letter one without
    its payload. Raises StreamFailed when that is refused as well.
    """
    placed = [
        (batch.partition, completed)
        for batch in batches
        for completed in batch.completed
        if completed.outcome.kind != "skipped"  # it has no place in the batch's outputs
    ]
    for index in indexes:
        partition, completed = placed[index]
        record, outcome = completed.record, completed.outcome
        if isinstance(outcome, Postponed):
            smaller = replace(completed, outcome=outcome.rejected)
        elif not isinstance(outcome, Rejected):
            smaller = replace(completed, outcome=rejected)
        elif not completed.without_payload:
            smaller = replace(completed, without_payload=True)
        else:
            raise StreamFailed(
                f"the dead letter of {record.id} cannot be written even without its payload "
                f"({rejected.detail}): raise max.message.bytes of the dead-letter topic, and do "
                "not compact it"
            )
        partition.watermark.replace(record.offset, smaller)


def _shadows(batches: Sequence[PartitionBatch]) -> Iterator[ShadowRequest]:
    for batch in batches:
        for completed in batch.completed:
            yield from completed.shadows
