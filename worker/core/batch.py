"""From finished records to one batch, published in one step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worker.contract.records import Headers, shadow_headers
from worker.core.assignment import CompletedRecord, PartitionState
from worker.errors import StreamFailed
from worker.records.types import Batch, Classified, NextOffset, Outgoing, Rejected


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Decides which topic each finished record goes to; its adapter says in which form.

    ``carry`` gives the headers of an output record where they are not the input's own. Dead
    letters always keep theirs.
    """

    output_topic: str
    review_topic: str | None
    shadow_topic: str | None = None
    carry: Callable[[CompletedRecord], Headers] | None = None

    def route(self, finished: CompletedRecord, now: datetime) -> Outgoing:
        """Every record ends in one place: output, review or dead letters."""
        outcome = finished.outcome
        if isinstance(outcome, Rejected):
            if finished.bare:
                return finished.served.dead_letters.without_payload(finished.record, outcome)
            return finished.served.dead_letters.encode(finished.record, outcome)
        topic = self.output_topic
        if outcome.review and self.review_topic is not None:
            topic = self.review_topic
        record = finished.record
        if self.carry is not None:
            record = replace(record, headers=self.carry(finished))
        return finished.served.outputs.encode(record, outcome, topic, now)

    def shadow(self, finished: CompletedRecord, now: datetime) -> Outgoing | None:
        """What a shadow made of the record, with the real label and its adapter in headers."""
        work, outcome = finished.shadow, finished.outcome
        if work is None or self.shadow_topic is None:
            return None
        work.close()
        if isinstance(outcome, Rejected):
            work.drop("no_label")
            return None
        if work.result is None:
            return None
        real = shadow_headers(outcome.decision.label, finished.served.digest)
        record = replace(finished.record, headers=finished.record.headers + real)
        return work.served.outputs.encode(record, work.result, self.shadow_topic, now)


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """The part of a batch that one partition gives: its oldest finished records."""

    held: PartitionState
    finished: tuple[CompletedRecord, ...]


def take(partitions: Sequence[PartitionState], limit: int) -> list[PartitionBatch]:
    """Choose up to ``limit`` records, fairly: each partition gives its share of the finished."""
    taken: list[PartitionBatch] = []
    left = limit
    waiting = [held for held in partitions if held.watermark.ready]
    waiting.sort(key=lambda held: held.watermark.ready)
    for index, held in enumerate(waiting):
        share = -(-left // (len(waiting) - index))
        chosen = tuple(one for _, one in held.watermark.peek(share))
        if chosen:
            taken.append(PartitionBatch(held, chosen))
            left -= len(chosen)
    return taken


def build_batch(taken: Sequence[PartitionBatch], topic_router: TopicRouter, now: datetime) -> Batch:
    """Encode what was taken, with the offset after each partition's last record.

    What shadows made of it comes after all of it.
    """
    outputs = [topic_router.route(one, now) for part in taken for one in part.finished]
    shadows = (topic_router.shadow(one, now) for part in taken for one in part.finished)
    outputs += [one for one in shadows if one is not None]
    offsets = [NextOffset(part.held.source, part.finished[-1].record.offset + 1) for part in taken]
    return Batch(outputs, offsets)


def drop_shadows(taken: Sequence[PartitionBatch]) -> bool:
    """Leave what shadows made of these records out of the next try; tell if there was any."""
    found = False
    for part in taken:
        for one in part.finished:
            if one.shadow is not None and one.shadow.result is not None:
                one.shadow.drop("not_published")
                found = True
    return found


def replace_oversized(taken: Sequence[PartitionBatch], indexes: Sequence[int], detail: str) -> None:
    """Make the records at ``indexes`` of the batch end as something that fits their topic.

    A label becomes a dead letter, a dead letter one without its payload. Raises StreamFailed
    when that is too large as well.
    """
    flat = [(part.held, one) for part in taken for one in part.finished]
    for index in indexes:
        held, finished = flat[index]
        record, outcome = finished.record, finished.outcome
        if isinstance(outcome, Classified):
            rejected = Rejected("output_too_large", "encode", detail)
            smaller = replace(finished, outcome=rejected)
        elif not finished.bare:
            smaller = replace(finished, bare=True)
        else:
            raise StreamFailed(
                f"the dead letter of {record.id} cannot be written even without its payload: "
                "raise max.message.bytes of the dead-letter topic"
            )
        held.watermark.replace(record.offset, smaller)
