"""What is read from the database, as the desk passes it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from desk.core.opinions import DecisionKind, State
from desk.core.queue import Origin
from worker.contract.scoring import ReviewReason

Role = Literal["reviewer", "adjudicator", "owner"]
TextState = Literal["pending", "here", "expired", "unreadable", "purged"]


@dataclass(frozen=True, slots=True)
class Project:
    """What this database is about."""

    id: int
    installation: str
    taxonomy_digest: str


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who decides."""

    id: int
    subject: str
    name: str
    pseudonym: str
    role: Role
    active: bool


@dataclass(frozen=True, slots=True)
class Item:
    """A result that people look at. ``scores`` are calibrated probabilities by label.

    Of a task (``batch_id``) the machine's label is what was suggested, the adapter stands for
    where that comes from, and there is no place in Kafka.
    """

    id: int
    result_id: str
    source_topic: str
    source_partition: int
    source_offset: int
    source_ms: int | None
    record_key: bytes | None
    message_id: str | None
    label: str
    confidence: float
    scores: Mapping[str, float]
    off_label_mass: float | None
    out_of_scope_method: str | None
    out_of_scope_score: float | None
    reasons: tuple[ReviewReason, ...]
    truncated: bool
    adapter_name: str
    adapter_digest: str
    taxonomy_digest: str
    labelled_ms: int
    received_ms: int
    origin: Origin
    blind: bool
    sample_share: float | None
    opinions_wanted: int
    text_state: TextState
    message_sha256: str | None
    cluster_key: str | None
    state: State
    outcome: Literal["label", "none"] | None
    outcome_label: str | None
    outcome_ms: int | None
    batch_id: int | None


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision as it was made. ``undone_ms`` is None where it holds."""

    id: int
    item_id: int
    person_id: int
    kind: DecisionKind
    label: str | None
    note: str
    final: bool
    blind: bool
    taxonomy_digest: str
    guideline_version: int | None
    seconds: float
    decided_ms: int
    undone_ms: int | None
