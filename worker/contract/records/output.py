"""The output record: the contract with everybody who consumes labels.

A field is never renamed, retyped or dropped within one ``schema_version``; new ones may be added,
so a reader passes over keys that it does not know. docs/output.schema.json is made of these
classes, by ``make schema``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

from worker.contract.codec import LEAVE_OUT_EMPTY, Doc, Probability
from worker.contract.errors import RecordRefused
from worker.contract.head import OutOfScopeMethod
from worker.contract.records.identity import (
    Replay,
    ServedAdapter,
    Source,
    TaxonomyRef,
    check_identity,
    check_replay,
    check_time,
    read_json,
)
from worker.contract.scoring import ReviewReason


@dataclass(frozen=True, slots=True)
class Review:
    """Whether a human should look at this label, and why."""

    needed: bool
    reasons: tuple[ReviewReason, ...]


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
class OutOfScope:
    """How unlike all that it knows a model with a head found the message."""

    method: Annotated[
        OutOfScopeMethod,
        Doc("energy: minus the logsumexp of the raw logits; max-logit: minus the largest of them."),
    ]
    score: Annotated[
        float, Doc("Higher for a message that no label fits; its scale is the adapter's own.")
    ]


@dataclass(frozen=True, slots=True)
class EarlierStage:
    """What a stage thought that was asked before and was not sure."""

    adapter: ServedAdapter
    label: str
    confidence: Annotated[Probability, Doc("By that stage's own calibration.")]


@dataclass(frozen=True, slots=True)
class Cascade:
    """Which stage of a cascade answered, and what those before it thought."""

    stage: Annotated[int, Doc("The stage that answered, from 1.")]
    stages: Annotated[int, Doc("How many the cascade has.")]
    answered: Annotated[ServedAdapter, Doc("The adapter of that stage.")]
    earlier: Annotated[
        tuple[EarlierStage, ...], Doc("The stages before it, in their order; none was sure.")
    ]


@dataclass(frozen=True, slots=True)
class OutputRecord:
    """One support message with exactly one label."""

    schema_version: Literal[1]
    id: Annotated[
        str,
        Doc(
            "topic-partition-offset of the input record, after source.cluster and a slash where "
            "that is there: the same for every delivery of the same message, so that a consumer "
            "can deduplicate."
        ),
    ]
    source: Source
    message_id: Annotated[str | None, Doc("The sender's own id, from the configured field.")]
    label: Annotated[str, Doc("One of the taxonomy's label names.")]
    confidence: Annotated[Probability, Doc("Calibrated probability of the label.")]
    scores: Annotated[
        dict[str, Probability],
        Doc(
            "Calibrated probability by label. Every label with single-token decoding; "
            "the chosen one alone with choice decoding."
        ),
    ]
    off_label_mass: Annotated[
        Probability | None,
        Doc(
            "Raw probability the model gave to anything that is not a label: high for "
            "messages no label fits. Null with choice decoding, and with a model that has a head "
            "(see out_of_scope)."
        ),
    ]
    review: Review
    truncated: Annotated[bool, Doc("The message was shortened in the middle to be read.")]
    adapter: ServedAdapter
    taxonomy: TaxonomyRef
    base_model: BaseModelRef
    labelled_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    latency: Latency
    worker_version: str
    replay: Annotated[
        Replay | None,
        Doc("The replay that made this result; absent where it is of the first run."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)
    out_of_scope: Annotated[
        OutOfScope | None,
        Doc("In the place of off_label_mass where a model with a head answered; else absent."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)
    cascade: Annotated[
        Cascade | None,
        Doc(
            "Of a cascade, which adapter names: the stage that answered; else absent. base_model "
            "is that stage's."
        ),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)


def read_output(value: bytes | str | None) -> OutputRecord:
    """Read an output record's JSON, from the output, review or shadow topic.

    Keys that are not known are passed over. Raises RecordRefused, naming the field at fault.
    """
    return read_json(OutputRecord, value, "the output record", _check)


def _check(record: OutputRecord) -> None:
    check_identity(record.id, record.source)
    check_time("labelled_at", record.labelled_at)
    if record.label not in record.scores:
        raise ValueError("scores lacks the label that was chosen")
    if record.replay is not None:
        check_replay(record.replay)
    if record.cascade is not None and record.cascade.stage != len(record.cascade.earlier) + 1:
        raise ValueError("cascade.stage and cascade.earlier contradict each other")
    if record.review.needed != bool(record.review.reasons):
        raise ValueError("review.needed and review.reasons contradict each other")


# What a shadow made of a record: an output record, with what the main adapter said in
# headers.
#
# Nobody acts on it. It is on a topic of its own, in the same transaction as the real result.


MAIN_LABEL = "clerk.main.label"
MAIN_ADAPTER_DIGEST = "clerk.main.adapter.digest"


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """The shadow's ``output``, and the label that the main adapter gave to the same message."""

    output: OutputRecord
    main_label: str
    main_adapter_digest: str


def shadow_headers(main_label: str, main_adapter_digest: str) -> tuple[tuple[str, bytes], ...]:
    """Return the headers that are added to those of the input record."""
    return (
        (MAIN_LABEL, main_label.encode()),
        (MAIN_ADAPTER_DIGEST, main_adapter_digest.encode()),
    )


def read_shadow(
    value: bytes | str | None, headers: Sequence[tuple[str, bytes | None]]
) -> ShadowRecord:
    """Read a record of the shadow topic. Raises RecordRefused."""
    output = read_output(value)
    found = dict(headers)  # of two headers of one name the later one is the worker's
    label, digest = found.get(MAIN_LABEL), found.get(MAIN_ADAPTER_DIGEST)
    if label is None or digest is None:
        raise RecordRefused(
            "the shadow record", f"lacks the header {MAIN_LABEL} or {MAIN_ADAPTER_DIGEST}"
        )
    return ShadowRecord(output, label.decode("utf-8", "replace"), digest.decode("utf-8", "replace"))
