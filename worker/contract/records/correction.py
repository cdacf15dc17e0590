"""Corrections, the labels that reviewers decided on, and retractions, which take them back.

Both are on the corrections topic, with the id of the output record that they are about; ``kind``
tells them apart. A reviewer who agrees with the model makes a correction too: confirmed labels
measure accuracy as much as changed ones. A field is never renamed, retyped or dropped within one
``schema_version``; new ones may be added. docs/correction.schema.json and
docs/retraction.schema.json are made of these classes, by ``make schema``.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from worker.contract.codec import Doc, Pattern, Probability
from worker.contract.records.identity import (
    AdapterRef,
    Source,
    TaxonomyRef,
    check_identity,
    check_time,
    read_json,
)
from worker.contract.records.output import OutputRecord

PSEUDONYM = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


RetractionReason = Literal["undone", "reopened", "no_label_fits", "taxonomy_changed"]

_ID_DOC = "topic-partition-offset of the input record: the id of the output record. "
_BY_DOC = (
    "as a pseudonym: 1 to 64 letters, digits, dots, dashes and underscores. Never a name or a mail "
    "address."
)


@dataclass(frozen=True, slots=True)
class MachineLabel:
    """The model's answer for this message."""

    label: Annotated[str, Doc("The label of the output record.")]
    confidence: Annotated[Probability, Doc("Calibrated probability of that label.")]
    adapter: AdapterRef


@dataclass(frozen=True, slots=True)
class Correction:
    """One support message with exactly one label, given by a reviewer."""

    schema_version: Literal[1]
    kind: Literal["correction"]
    id: Annotated[
        str,
        Doc(f"{_ID_DOC}Of several corrections and retractions with one id, the latest holds."),
    ]
    source: Source
    message_id: Annotated[str | None, Doc("The sender's own id, as in the output record.")]
    label: Annotated[str, Doc("The reviewer's label: one of the taxonomy's names.")]
    taxonomy: TaxonomyRef
    decided_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    decided_by: Annotated[str, Pattern(PSEUDONYM), Doc(f"Who decided, {_BY_DOC}")]
    guideline_version: Annotated[
        str | None, Doc("Version of the labelling guideline that was followed, if any.")
    ]
    machine: MachineLabel

    def __post_init__(self) -> None:  # raises ValueError: no way of making one avoids the checks
        _check_pseudonym("decided_by", self.decided_by)
        check_identity(self.id, self.source)
        check_time("decided_at", self.decided_at)

    @property
    def agrees(self) -> bool:
        """Whether the reviewer confirmed the model's label."""
        return self.label == self.machine.label


@dataclass(frozen=True, slots=True)
class Retraction:
    """One support message that has no reviewer's label any more: the model's label holds again."""

    schema_version: Literal[1]
    kind: Literal["retraction"]
    id: Annotated[str, Doc(f"{_ID_DOC}Every earlier correction with this id is void.")]
    source: Source
    message_id: Annotated[str | None, Doc("The sender's own id, as in the output record.")]
    reason: Annotated[
        RetractionReason,
        Doc(
            "The reviewer took the decision back; the item was opened again; a reviewer decided "
            "that no label fits; the label is not in the new taxonomy."
        ),
    ]
    retracted_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    retracted_by: Annotated[
        Annotated[str, Pattern(PSEUDONYM)] | None,
        Doc(f"Who retracted it, {_BY_DOC} Null for a change of the taxonomy."),
    ]

    def __post_init__(self) -> None:  # raises ValueError
        if self.retracted_by is not None:
            _check_pseudonym("retracted_by", self.retracted_by)
        check_identity(self.id, self.source)
        check_time("retracted_at", self.retracted_at)


def _check_pseudonym(field: str, name: str) -> None:
    if re.fullmatch(PSEUDONYM, name) is None:
        raise ValueError(
            f"{field} must be a pseudonym: 1 to 64 letters, digits, dots, dashes and "
            "underscores, not a name or a mail address"
        )


def correct(
    output: OutputRecord,
    *,
    label: str,
    decided_by: str,
    decided_at: str,
    guideline_version: str | None = None,
) -> Correction:
    """Build the correction of an output record. Raises ValueError.

    The caller, who has the taxonomy, checks that ``label`` is one of its names.
    """
    return Correction(
        schema_version=1,
        kind="correction",
        id=output.id,
        source=output.source,
        message_id=output.message_id,
        label=label,
        taxonomy=output.taxonomy,
        decided_at=decided_at,
        decided_by=decided_by,
        guideline_version=guideline_version,
        machine=MachineLabel(
            output.label,
            output.confidence,
            AdapterRef(output.adapter.name, output.adapter.digest),
        ),
    )


def read_correction(value: bytes | str | None) -> Correction | Retraction:
    """Read the JSON of a record of the corrections topic. Unknown keys are ignored. Raises
    RecordRefused."""
    if _is_retraction(value):
        return read_json(Retraction, value, "the retraction")
    return read_json(Correction, value, "the correction")


def _is_retraction(value: bytes | str | None) -> bool:
    try:
        data = json.loads(value or b"")
    except (ValueError, RecursionError):
        return False  # read_json says what is wrong
    return isinstance(data, dict) and data.get("kind") == "retraction"
