"""Keep the corrections topic in agreement with an item: corrections, and retractions of them.

Every change to or from a decision goes through ``follow``, in the transaction of the change.
"""

from __future__ import annotations

from desk.store import outbox, people
from desk.store.database import Tx
from desk.store.types import Decided, Item, Person
from worker.contract.records import Correction, MachineLabel, Retraction, to_json
from worker.contract.records.correction import RetractionReason
from worker.contract.records.identity import AdapterRef, Source, TaxonomyRef
from worker.contract.taxonomy import Taxonomy
from worker.contract.timestamps import rfc3339_from_ms


def follow(
    tx: Tx,
    item: Item,
    holds: Decided | None,
    *,
    taxonomy: Taxonomy,
    by: Person | None,
    reason: RetractionReason,
    now_ms: int,
    delay_ms: int,
) -> None:
    """Have the topic say of a locked item what its reviewers say now.

    ``holds`` is the decision that holds, None if the item is not decided. A label becomes a
    correction. Without one, a correction that is in the topic, or on its way there, is retracted by
    ``by`` for this ``reason``; a correction that has not left the desk is deleted. Tasks of a batch
    are not in the topic.
    """
    if item.batch_id is not None:
        return
    # Before anything is added: an item has at most one record that was not given its place yet.
    outbox.withdraw(tx, item.id)
    record: Correction | Retraction
    if holds is not None and holds.kind == "label":
        record = _correction(tx, item, holds, taxonomy)
    elif outbox.is_corrected(tx, item.id):
        record = _retraction(item, reason, by, now_ms)
    else:
        return
    outbox.add(
        tx,
        item_id=item.id,
        kind=record.kind,
        # The input's key, as results have it, so that topics can be joined by it.
        key=item.record_key if item.record_key is not None else item.result_id.encode(),
        value=to_json(record),
        due_ms=now_ms + delay_ms,
    )


def _correction(tx: Tx, item: Item, holds: Decided, taxonomy: Taxonomy) -> Correction:
    assert holds.label is not None
    version = holds.guideline_version
    return Correction(
        schema_version=1,
        kind="correction",
        id=item.result_id,
        source=_source(item),
        message_id=item.message_id,
        label=holds.label,
        taxonomy=TaxonomyRef(taxonomy.name, taxonomy.version, taxonomy.digest),
        decided_at=_time(holds.decided_ms),
        decided_by=people.get(tx, holds.person_id).pseudonym,
        guideline_version=str(version) if version is not None else None,
        machine=MachineLabel(
            item.label, item.confidence, AdapterRef(item.adapter_name, item.adapter_digest)
        ),
    )


def _retraction(item: Item, reason: RetractionReason, by: Person | None, now_ms: int) -> Retraction:
    return Retraction(
        schema_version=1,
        kind="retraction",
        id=item.result_id,
        source=_source(item),
        message_id=item.message_id,
        reason=reason,
        retracted_at=_time(now_ms),
        retracted_by=by.pseudonym if by is not None else None,
    )


def _source(item: Item) -> Source:
    time = rfc3339_from_ms(item.source_ms) if item.source_ms is not None else None
    return Source(item.source_topic, item.source_partition, item.source_offset, time)


def _time(clock_ms: int) -> str:
    time = rfc3339_from_ms(clock_ms)
    assert time is not None  # it is the desk's own clock
    return time
