"""Encode results: output records, dead letters, and records of the retry topic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from pydantic import TypeAdapter

from worker.contract.errors import MessageRejected, RecordRefused
from worker.contract.head import OutOfScopeMethod
from worker.contract.manifest import Manifest
from worker.contract.records import DeadLetter, Headers, Retry, read_retry, without_worker_headers
from worker.contract.records.headers import (
    LONGEST_DELAY_S,
    OMITTED_BYTES,
    RETRY_HEADERS,
    RETRY_REASONS,
)
from worker.contract.records.identity import Replay, ServedAdapter, Source, TaxonomyRef, record_id
from worker.contract.records.output import (
    BaseModelRef,
    Cascade,
    EarlierStage,
    Latency,
    OutOfScope,
    OutputRecord,
    Review,
)
from worker.contract.scoring import Decision
from worker.contract.timestamps import rfc3339, rfc3339_from_ms
from worker.records.types import Classified, Outgoing, Postponed, Record, Rejected

# The same JSON as the contract's ``to_json``, but in 3 microseconds instead of 38.
_ADAPTER: TypeAdapter[OutputRecord] = TypeAdapter(OutputRecord)
_ABSENT_IF_NONE = ("replay", "out_of_scope", "cascade")

_labelled_at = lru_cache(maxsize=1)(rfc3339)  # all records of a batch have the same time

_NO_CLUSTER = {"cluster"}


class OutputEncoder:
    """Builds output records for one adapter. Immutable.

    ``precisions``: the numeric precision of the adapter, or of each stage of a cascade.
    """

    def __init__(self, manifest: Manifest, worker_version: str, precisions: Sequence[str]) -> None:
        self.digest = manifest.digest
        """The adapter's digest, which is in every record."""
        self._adapters = [
            ServedAdapter(manifest.name, manifest.digest, precision) for precision in precisions
        ]
        taxonomy = manifest.taxonomy
        self._taxonomy = TaxonomyRef(taxonomy.name, taxonomy.version, taxonomy.digest)
        self._version = worker_version
        self._stages = tuple(
            ServedAdapter(stage.name, stage.digest, precision)
            for stage, precision in zip(manifest.stages, precisions, strict=bool(manifest.stages))
        )
        # By stage: base and out-of-scope method of a cascade's stages, or of the adapter itself.
        self._answering = [
            (BaseModelRef(stage.base, stage.base_revision), stage.out_of_scope)
            for stage in manifest.stages
        ] or [
            (
                BaseModelRef(manifest.base.name, manifest.base.revision),
                manifest.head.out_of_scope if manifest.head else None,
            )
        ]

    def build(
        self, record: Record, result: Classified, now: datetime, replay: Replay | None = None
    ) -> OutputRecord:
        """Return the output record. ``now`` is a time with a zone."""
        decision = result.decision
        stage = len(decision.earlier)
        base, method = self._answering[stage]
        topic, partition, offset = record.origin
        cluster = record.origin_cluster
        at_ms = record.timestamp_ms
        return OutputRecord(
            schema_version=1,
            id=record_id(topic, partition, offset, cluster),
            source=Source(
                topic,
                partition,
                offset,
                None if at_ms is None else rfc3339_from_ms(at_ms),
                cluster,
            ),
            message_id=result.message_id,
            label=decision.label,
            confidence=round(decision.confidence, 6),
            scores={label: round(score, 6) for label, score in decision.scores.items()},
            off_label_mass=(
                None if decision.off_label_mass is None else round(decision.off_label_mass, 6)
            ),
            review=Review(bool(result.review), result.review),
            truncated=result.truncated,
            adapter=self._adapters[stage],
            taxonomy=self._taxonomy,
            base_model=base,
            labelled_at=_labelled_at(now),
            latency=Latency(round(result.timing.queue_s, 6), round(result.timing.engine_s, 6)),
            worker_version=self._version,
            replay=replay,
            out_of_scope=_out_of_scope(method, decision),
            cascade=self._cascade(decision),
        )

    def _cascade(self, decision: Decision) -> Cascade | None:
        if not self._stages:
            return None
        earlier = tuple(
            EarlierStage(stage, other.label, round(other.confidence, 6))
            for stage, other in zip(self._stages, decision.earlier, strict=False)
        )
        at = len(earlier)
        return Cascade(at + 1, len(self._stages), self._stages[at], earlier)

    def encode(
        self,
        record: Record,
        result: Classified,
        topic: str,
        now: datetime,
        replay: Replay | None = None,
    ) -> Outgoing:
        """Return the record to produce: the input's key and headers, and the label as JSON."""
        built = self.build(record, result, now, replay)
        absent: dict[str, bool | set[str]] = {
            name: True for name in _ABSENT_IF_NONE if getattr(built, name) is None
        }
        if built.source.cluster is None:
            absent["source"] = _NO_CLUSTER
        value = _ADAPTER.dump_json(built, exclude=absent)
        return Outgoing(topic, record.key, value, record.headers)


def _out_of_scope(method: OutOfScopeMethod | None, decision: Decision) -> OutOfScope | None:
    if method is None or decision.out_of_scope is None:
        return None
    return OutOfScope(method, round(decision.out_of_scope, 6))


@dataclass(frozen=True, slots=True)
class DeadLetterEncoder:
    """Encodes rejected records for the dead-letter topic."""

    topic: str
    worker_version: str
    adapter_digest: str

    def encode(self, record: Record, rejected: Rejected) -> Outgoing:
        """Keep the raw key, value, and headers, and add the reason as headers.

        They replace the headers of an earlier dead letter. After delayed retries they contain the
        number of attempts. Damaged retry headers are kept, to help find the original message.
        """
        topic, partition, offset = record.origin
        letter = DeadLetter(
            reason=rejected.reason,
            stage=rejected.stage,
            error=rejected.detail,
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp_ms=record.timestamp_ms,
            attempts=rejected.attempts,
            worker_version=self.worker_version,
            adapter_digest=self.adapter_digest,
            cluster=record.origin_cluster,
        )
        # A dead letter may be sent again and fail again: only the latest headers must remain.
        headers: Headers = without_worker_headers(record.headers) + letter.headers()
        if record.retry is not None:
            headers += record.retry.history()
        elif rejected.reason == "retry_damaged":
            headers += tuple(header for header in record.headers if header[0] in RETRY_HEADERS)
        return Outgoing(self.topic, record.key, record.value, headers)

    def without_payload(self, record: Record, rejected: Rejected) -> Outgoing:
        """Return the dead letter of a record that is too large for the dead-letter topic.

        It has no value, no key, and none of the record's headers. The record itself stays in the
        source topic, at the offset that the dead letter's headers name.
        """
        emptied = replace(record, key=None, value=None, headers=())
        letter = self.encode(emptied, rejected)
        omitted: Headers = ((OMITTED_BYTES, str(record.size_bytes).encode()),)
        return replace(letter, headers=letter.headers + omitted)


# How far another worker's clock may be ahead of ours.
_CLOCKS_S = 60 * 60


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delayed retry: ``max_attempts`` further attempts, each after ``delay_s`` on ``topic``."""

    topic: str
    delay_s: float
    max_attempts: int

    def judge(self, record: Record, rejected: Rejected) -> Rejected | Postponed:
        """Decide whether a rejected record is tried again later.

        Adds the engine's attempts of earlier retries to ``attempts``.
        """
        before = record.retry
        if before is not None and rejected.stage == "engine":
            asked = rejected.attempts + before.engine_attempts
            rejected = replace(rejected, attempts=asked)
        attempt = 1 if before is None else before.attempt + 1
        if rejected.reason not in RETRY_REASONS or attempt > self.max_attempts:
            return rejected
        return Postponed(rejected, attempt)

    def encode(self, record: Record, postponed: Postponed, now: datetime) -> Outgoing:
        """Return the record to produce: the input's key, value, and headers, and the retry headers.

        The delay starts at ``now``, when the record is written, so that the records of a partition
        are due in the order of its log. The record's timestamp is ``now`` too, and the input's is
        in a header: retention counts from the timestamp, and an old message must not expire while
        it waits.
        """
        rejected, before = postponed.rejected, record.retry
        reason = next(known for known in RETRY_REASONS if known == rejected.reason)
        now_ms = now.timestamp() * 1000
        retry = Retry(
            *record.origin,
            timestamp_ms=record.timestamp_ms,
            attempt=postponed.attempt,
            not_before_ms=math.ceil(now_ms + self.delay_s * 1000),  # rounded up: never early
            reason=reason,
            first_failed_ms=int(now_ms) if before is None else before.first_failed_ms,
            engine_attempts=rejected.attempts,
            cluster=record.origin_cluster,
        )
        headers = _without_retry(record.headers) + retry.headers()
        return Outgoing(self.topic, record.key, record.value, headers)


def restore(record: Record, now: datetime) -> Record:
    """Return a record of the retry topic as it was in the input topic, with ``retry`` set.

    If its headers cannot be read, or it is due later than any setting allows, ``damage`` is set.
    """
    try:
        retry = read_retry(record.headers)
    except RecordRefused as error:
        return replace(record, damage=MessageRejected("retry_damaged", str(error)))
    # Held until then, it would hold up every record behind it in its partition.
    if retry.not_before_ms > (now.timestamp() + LONGEST_DELAY_S + _CLOCKS_S) * 1000:
        late = "it is due later than the longest delay allows"
        return replace(record, damage=MessageRejected("retry_damaged", late))
    headers = _without_retry(record.headers)
    return replace(record, headers=headers, timestamp_ms=retry.timestamp_ms, retry=retry)


def _without_retry(headers: Headers) -> Headers:
    return tuple(header for header in headers if header[0] not in RETRY_HEADERS)
