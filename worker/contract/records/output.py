"""The output record: the contract with everybody who consumes labels.

A field is never renamed, retyped or dropped within one ``schema_version``; new ones may be added,
so a reader passes over keys that it does not know. docs/output.schema.json is made of these
classes, by ``make schema``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from worker.contract.codec import LEAVE_OUT_EMPTY
from worker.contract.head import OutOfScopeMethod
from worker.contract.marks import Doc, Probability
from worker.contract.records.identity import (
    ServedAdapter,
    Source,
    TaxonomyRef,
    check_identity,
    check_time,
)
from worker.contract.records.replay import Replay, check_replay
from worker.contract.records.wire import read_json
from worker.contract.review import ReviewReason


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
            "Raw probability the model gave to anything that is no label: high for "
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
