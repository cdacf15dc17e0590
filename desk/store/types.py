"""The database's rows as types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar, cast

import sqlalchemy as sa

from desk.core.items import DecisionKind, Origin, State
from desk.store.tables import decisions, items
from worker.contract.scoring import ReviewReason

Role = Literal["reviewer", "adjudicator", "owner"]
TextState = Literal["pending", "here", "expired", "unreadable", "purged"]


@dataclass(frozen=True, slots=True)
class Project:
    """The project of a database."""

    id: int
    installation: str
    taxonomy_digest: str


@dataclass(frozen=True, slots=True)
class Person:
    """A user of the desk. ``assigned`` is their queue, the query of its address, "" for none."""

    id: int
    subject: str
    name: str
    pseudonym: str
    role: Role
    active: bool
    assigned: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """A message for reviewers, and the model's result. ``scores`` are calibrated probabilities.

    Of a task (``batch_id``), the label is the suggested one, the adapter names its source, and the
    place in Kafka is empty.
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
    """A decision. ``undone_ms`` is None unless it was taken back."""

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


_T = TypeVar("_T")

ITEM = tuple(items.c[field.name] for field in fields(Item))
"""The columns that make up an ``Item``."""

DECIDED = tuple(decisions.c[field.name] for field in fields(Decided))
"""The columns that make up a ``Decided``."""


def read_row(kind: type[_T], row: sa.Row[Any]) -> _T:
    """Return a row as ``kind``, a dataclass with the columns' names. Lists become tuples."""
    named = row._mapping
    values = {
        field.name: tuple(value) if isinstance(value := named[field.name], list) else value
        for field in fields(cast("Any", kind))
    }
    return kind(**values)
