"""The output record: the contract with every consumer of labels.

Within one ``schema_version`` fields may be added, but are never renamed, retyped or dropped, so
readers ignore unknown keys. ``make schema`` generates docs/output.schema.json from these classes.
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


@dataclass(slots=True)
class Review:
    """Whether a reviewer should check this label, and why."""

    needed: Annotated[bool, Doc("Whether a reviewer should check the label.")]
    reasons: Annotated[
        tuple[ReviewReason, ...], Doc("Why, the first reason first; empty if no review is needed.")
    ]


@dataclass(frozen=True, slots=True)
class BaseModelRef:
    """The base model under the adapter."""

    name: Annotated[str, Doc("Name of the base model, as in the adapter.")]
    revision: Annotated[str, Doc("Its revision, as in the adapter.")]


@dataclass(slots=True)
class Latency:
    """Seconds from fetch to the engine, and in the engine."""

    queue_s: Annotated[float, Doc("Seconds from fetching the message to the engine.")]
    engine_s: Annotated[float, Doc("Seconds in the engine.")]


@dataclass(frozen=True, slots=True)
class OutOfScope:
    """A head's score for messages that fit no label."""

    method: Annotated[
        OutOfScopeMethod,
        Doc("energy: minus the logsumexp of the raw logits; max-logit: minus the largest of them."),
    ]
    score: Annotated[
        float, Doc("Higher for a message that fits no label; each adapter has its own scale.")
    ]


@dataclass(frozen=True, slots=True)
class EarlierStage:
    """The answer of an earlier stage, which was not sure enough."""

    adapter: Annotated[ServedAdapter, Doc("The adapter of that stage.")]
    label: Annotated[str, Doc("The label that it gave.")]
    confidence: Annotated[Probability, Doc("By that stage's calibration.")]


@dataclass(frozen=True, slots=True)
class Cascade:
    """The stage of a cascade that answered, and the answers of those before it."""

    stage: Annotated[int, Doc("The stage that answered, from 1.")]
    stages: Annotated[int, Doc("The number of stages.")]
    answered: Annotated[ServedAdapter, Doc("The adapter of that stage.")]
    earlier: Annotated[
        tuple[EarlierStage, ...], Doc("The stages before it, in order; none was sure enough.")
    ]


# Not frozen: one is made for each record, and a frozen dataclass takes four times as long to make.
@dataclass(slots=True)
class OutputRecord:
    """One support message with exactly one label."""

    schema_version: Annotated[Literal[1], Doc("The version of this format.")]
    id: Annotated[
        str,
        Doc(
            "topic-partition-offset of the input record, after source.cluster and a slash if that "
            "is set: the same for every delivery of the same message, so that consumers can "
            "deduplicate."
        ),
    ]
    source: Annotated[Source, Doc("The place of the input record in Kafka.")]
    message_id: Annotated[str | None, Doc("The sender's own id, from the configured field.")]
    label: Annotated[str, Doc("One of the taxonomy's label names.")]
    confidence: Annotated[Probability, Doc("Calibrated probability of the label.")]
    scores: Annotated[
        dict[str, Probability],
        Doc("Calibrated probability by label."),
    ]
    off_label_mass: Annotated[
        Probability | None,
        Doc(
            "Raw probability that the model gave to answers that are not a label: high for "
            "messages that fit no label. Null for a model with a head (see "
            "out_of_scope)."
        ),
    ]
    review: Annotated[Review, Doc("Whether, and why, a reviewer should check this label.")]
    truncated: Annotated[bool, Doc("The middle of the message was cut to fit the model.")]
    adapter: Annotated[ServedAdapter, Doc("The adapter that gave the label.")]
    taxonomy: Annotated[TaxonomyRef, Doc("The label set that the label comes from.")]
    base_model: Annotated[BaseModelRef, Doc("The base model that the adapter was trained on.")]
    labelled_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    latency: Annotated[Latency, Doc("How long labelling took.")]
    worker_version: Annotated[str, Doc("Version of the worker that wrote this.")]
    replay: Annotated[
        Replay | None,
        Doc("The replay that made this result; absent for the first run."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)
    out_of_scope: Annotated[
        OutOfScope | None,
        Doc("Instead of off_label_mass if a model with a head answered; otherwise absent."),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)
    cascade: Annotated[
        Cascade | None,
        Doc(
            "The stage that answered, if adapter is a cascade; otherwise absent. base_model is "
            "that stage's."
        ),
    ] = field(default=None, metadata=LEAVE_OUT_EMPTY)


def read_output(value: bytes | str | None) -> OutputRecord:
    """Parse a record of the output, review or shadow topic; unknown keys are ignored. Raises
    RecordRefused, naming the field at fault."""
    return read_json(OutputRecord, value, "the output record", _check)


def _check(record: OutputRecord) -> None:
    check_identity(record.id, record.source)
    check_time("labelled_at", record.labelled_at)
    # Consistency that the JSON Schema cannot express.
    if record.label not in record.scores:
        raise ValueError("scores lacks the chosen label")
    if record.replay is not None:
        check_replay(record.replay)
    if record.cascade is not None and record.cascade.stage != len(record.cascade.earlier) + 1:
        raise ValueError("cascade.stage and cascade.earlier contradict each other")
    if record.review.needed != bool(record.review.reasons):
        raise ValueError("review.needed and review.reasons contradict each other")


# --- The shadow topic: the shadow's output record, with the main adapter's answer in headers ---
#
# It is written in the same transaction as the real result; routers do not consume it.


MAIN_LABEL = "clerk.main.label"
MAIN_ADAPTER_DIGEST = "clerk.main.adapter.digest"


@dataclass(frozen=True, slots=True)
class ShadowRecord:
    """The shadow's ``output``, and the main adapter's label for the same message."""

    output: OutputRecord
    main_label: str
    main_adapter_digest: str


def shadow_headers(main_label: str, main_adapter_digest: str) -> tuple[tuple[str, bytes], ...]:
    """Return the headers to add to the input record's."""
    return (
        (MAIN_LABEL, main_label.encode()),
        (MAIN_ADAPTER_DIGEST, main_adapter_digest.encode()),
    )


def read_shadow(
    value: bytes | str | None, headers: Sequence[tuple[str, bytes | None]]
) -> ShadowRecord:
    """Read a record of the shadow topic. Raises RecordRefused."""
    output = read_output(value)
    found = dict(headers)  # of two headers with the same name the worker's is the later one
    label, digest = found.get(MAIN_LABEL), found.get(MAIN_ADAPTER_DIGEST)
    if label is None or digest is None:
        raise RecordRefused(
            "the shadow record", f"lacks the header {MAIN_LABEL} or {MAIN_ADAPTER_DIGEST}"
        )
    return ShadowRecord(output, label.decode("utf-8", "replace"), digest.decode("utf-8", "replace"))
