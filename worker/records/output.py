"""The output record: the contract with everybody who consumes labels.

Generated from these classes: ``docs/output.schema.json``, by ``make schema``. A field is never
renamed, retyped or dropped within one ``schema_version``; new ones may be added.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from worker.contract.manifest import Manifest
from worker.contract.review import ReviewReason
from worker.contract.timestamps import rfc3339, rfc3339_from_ms
from worker.records.types import Classified, Outgoing, Record

Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class Source:
    """Where the message was read from."""

    topic: str
    partition: int
    offset: int
    timestamp: Annotated[
        str | None, Field(description="Timestamp of the input record, RFC 3339 in UTC.")
    ]


@dataclass(frozen=True, slots=True)
class Review:
    """Whether a human should look at this label, and why."""

    needed: bool
    reasons: tuple[ReviewReason, ...]


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """The adapter that made this label."""

    name: str
    digest: Annotated[str, Field(description="SHA-256 of the adapter's manifest.")]


@dataclass(frozen=True, slots=True)
class TaxonomyRef:
    """The label set this label comes from."""

    name: str
    version: str
    digest: Annotated[str, Field(description="SHA-256 over every label and its description.")]


@dataclass(frozen=True, slots=True)
class BaseModelRef:
    """The base model under the adapter."""

    name: str
    revision: str


@dataclass(frozen=True, slots=True)
class Latency:
    """Where the time went, in seconds."""

    queue_s: float
    engine_s: float


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One support message, filed under exactly one label."""

    schema_version: Literal[1]
    id: Annotated[
        str,
        Field(
            description="topic-partition-offset of the input record: the same for every delivery "
            "of the same message, so that a consumer can deduplicate."
        ),
    ]
    source: Source
    message_id: Annotated[
        str | None, Field(description="The sender's own id, from the configured field.")
    ]
    label: Annotated[str, Field(description="One of the taxonomy's label names.")]
    confidence: Annotated[Probability, Field(description="Calibrated probability of the label.")]
    scores: Annotated[
        dict[str, Probability],
        Field(
            description="Calibrated probability by label. Every label with single-token decoding; "
            "the chosen one alone with choice decoding."
        ),
    ]
    off_label_mass: Annotated[
        Probability | None,
        Field(
            description="Raw probability the model gave to anything that is no label: high for "
            "messages no label fits. Null with choice decoding."
        ),
    ]
    review: Review
    truncated: Annotated[
        bool, Field(description="The message was shortened in the middle to be read.")
    ]
    adapter: AdapterRef
    taxonomy: TaxonomyRef
    base_model: BaseModelRef
    labelled_at: Annotated[str, Field(description="RFC 3339 in UTC.")]
    latency: Latency
    worker_version: str


_ADAPTER: TypeAdapter[OutputRecord] = TypeAdapter(OutputRecord)


class OutputEncoder:
    """Builds output records for one adapter. Holds no state but what never changes."""

    def __init__(self, manifest: Manifest, worker_version: str) -> None:
        self._adapter = AdapterRef(manifest.name, manifest.digest)
        taxonomy = manifest.taxonomy
        self._taxonomy = TaxonomyRef(taxonomy.name, taxonomy.version, taxonomy.digest)
        self._base = BaseModelRef(manifest.base.name, manifest.base.revision)
        self._version = worker_version

    @property
    def digest(self) -> str:
        """The adapter that every record is stamped with."""
        return self._adapter.digest

    def build(self, record: Record, result: Classified, now: datetime) -> OutputRecord:
        """Return the output record; ``now`` is an aware time."""
        decision = result.decision
        return OutputRecord(
            schema_version=1,
            id=record.id,
            source=Source(
                record.source.topic,
                record.source.partition,
                record.offset,
                None if record.timestamp_ms is None else rfc3339_from_ms(record.timestamp_ms),
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
            adapter=self._adapter,
            taxonomy=self._taxonomy,
            base_model=self._base,
            labelled_at=rfc3339(now),
            latency=Latency(round(result.timing.queue_s, 6), round(result.timing.engine_s, 6)),
            worker_version=self._version,
        )

    def encode(self, record: Record, result: Classified, topic: str, now: datetime) -> Outgoing:
        """Return the record to produce: the input's key and headers, the label as JSON."""
        value = _ADAPTER.dump_json(self.build(record, result, now))
        return Outgoing(topic, record.key, value, record.headers)


def output_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the output record."""
    schema = _ADAPTER.json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:filing-clerk:output:1",
        **schema,
    }


def output_schema_text() -> str:
    """Return the schema as it stands in the repository."""
    return json.dumps(output_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(output_schema_text(), end="")
