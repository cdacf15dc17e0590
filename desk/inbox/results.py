"""From a result on Kafka to an item: what is kept of it, and whether it is looked at at all."""

from __future__ import annotations

from dataclasses import dataclass

from desk.core.sampling import is_drawn
from desk.store.items import NewItem
from desk.stream.port import Record
from worker.contract.records import OutputRecord, read_output
from worker.contract.timestamps import parse_rfc3339

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Sampling:
    """What is drawn: shares in [0, 1], and the installation's name as the seed."""

    seed: str
    audit_share: float
    double_share: float
    audit_double_share: float


@dataclass(frozen=True, slots=True)
class Seen:
    """A result that was read, and the item it becomes; None where nobody looks at it."""

    day: int
    label: str
    adapter_digest: str
    doubtful: bool
    first_run: bool
    item: NewItem | None


def see(record: Record, sampling: Sampling) -> Seen:
    """Read a result. Raises RecordRefused for a record that is none.

    Drawn for the audit or not is decided by the id alone, before anything else is looked at.
    """
    output = read_output(record.value)
    labelled_ms = _ms(output.labelled_at)
    audit = is_drawn("audit", sampling.seed, output.id, sampling.audit_share)
    item = None
    if audit or output.review.needed:
        item = _item(record, output, sampling, audit=audit, labelled_ms=labelled_ms)
    return Seen(
        day=labelled_ms // DAY_MS,
        label=output.label,
        adapter_digest=output.adapter.digest,
        doubtful=output.review.needed,
        first_run=output.replay is None,
        item=item,
    )


def _item(
    record: Record, output: OutputRecord, sampling: Sampling, *, audit: bool, labelled_ms: int
) -> NewItem:
    share = sampling.audit_double_share if audit else sampling.double_share
    source, scope = output.source, output.out_of_scope
    return NewItem(
        result_id=output.id,
        source_topic=source.topic,
        source_partition=source.partition,
        source_offset=source.offset,
        source_ms=_ms(source.timestamp) if source.timestamp is not None else None,
        record_key=record.key,
        message_id=output.message_id,
        label=output.label,
        confidence=output.confidence,
        scores=output.scores,
        off_label_mass=output.off_label_mass,
        reasons=output.review.reasons,
        truncated=output.truncated,
        adapter_name=output.adapter.name,
        adapter_digest=output.adapter.digest,
        taxonomy_digest=output.taxonomy.digest,
        labelled_ms=labelled_ms,
        origin="audit" if audit else "review",
        sample_share=sampling.audit_share if audit else None,
        opinions_wanted=2 if is_drawn("double", sampling.seed, output.id, share) else 1,
        out_of_scope_method=scope.method if scope is not None else None,
        out_of_scope_score=scope.score if scope is not None else None,
        replay=output.replay,
    )


def _ms(time: str) -> int:
    return int(parse_rfc3339(time).timestamp() * 1000)
