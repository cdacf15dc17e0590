"""The correction record: a reviewer's label for a message, and the model's.

It has the id of the output record that it answers. A reviewer who agrees with the model makes one
too: accuracy is measured from confirmed labels as much as from changed ones. Within one
``schema_version`` fields may be added, but are never renamed, retyped or dropped. ``make schema``
generates docs/correction.schema.json from these classes.
"""

from __future__ import annotations

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
    id: Annotated[
        str,
        Doc(
            "topic-partition-offset of the input record: the id of the output record. Of several "
            "corrections with the same id, the last one counts."
        ),
    ]
    source: Source
    message_id: Annotated[str | None, Doc("The sender's own id, as in the output record.")]
    label: Annotated[str, Doc("The reviewer's label: one of the taxonomy's names.")]
    taxonomy: TaxonomyRef
    decided_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    decided_by: Annotated[
        str,
        Pattern(PSEUDONYM),
        Doc(
            "Pseudonym of the reviewer: 1 to 64 letters, digits, dots, dashes and underscores. "
            "Never a name or a mail address."
        ),
    ]
    guideline_version: Annotated[
        str | None, Doc("Version of the labelling guideline that was followed, if any.")
    ]
    machine: MachineLabel

    def __post_init__(self) -> None:  # raises ValueError, also for records built in code
        if re.fullmatch(PSEUDONYM, self.decided_by) is None:
            raise ValueError(
                "decided_by must be a pseudonym: 1 to 64 letters, digits, dots, dashes and "
                "underscores, not a name or a mail address"
            )
        check_identity(self.id, self.source)
        check_time("decided_at", self.decided_at)

    @property
    def agrees(self) -> bool:
        """Whether the reviewer confirmed the model's label."""
        return self.label == self.machine.label


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


def read_correction(value: bytes | str | None) -> Correction:
    """Parse a correction; unknown keys are ignored. Raises RecordRefused."""
    return read_json(Correction, value, "the correction")
