"""A correction: the label that a person decided on for a message, and what the machine had said.

It has the id of the output record it answers. A person who agrees with the machine makes one too:
what was confirmed measures accuracy as much as what was changed. A field is never renamed, retyped
or dropped within one ``schema_version``; new ones may be added. docs/correction.schema.json is
made of these classes, by ``make schema``.
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

_PSEUDONYM = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


@dataclass(frozen=True, slots=True)
class MachineLabel:
    """What the machine had said of this message."""

    label: Annotated[str, Doc("The label of the output record.")]
    confidence: Annotated[Probability, Doc("Calibrated probability of that label.")]
    adapter: AdapterRef


@dataclass(frozen=True, slots=True)
class Correction:
    """One support message, given exactly one label by a person."""

    schema_version: Literal[1]
    id: Annotated[
        str,
        Doc(
            "topic-partition-offset of the input record: the id of the output record. Of two "
            "corrections with one id, the later one holds."
        ),
    ]
    source: Source
    message_id: Annotated[str | None, Doc("The sender's own id, as in the output record.")]
    label: Annotated[str, Doc("The label that the person decided on: one of the taxonomy's names.")]
    taxonomy: TaxonomyRef
    decided_at: Annotated[str, Doc("RFC 3339 in UTC.")]
    decided_by: Annotated[
        str,
        Pattern(_PSEUDONYM),
        Doc(
            "Who decided, as a pseudonym: 1 to 64 letters, digits, dots, dashes and underscores. "
            "Never a name or a mail address."
        ),
    ]
    guideline_version: Annotated[
        str | None, Doc("Version of the labelling guideline that was followed, where there is one.")
    ]
    machine: MachineLabel

    def __post_init__(self) -> None:  # raises ValueError: no way of making one avoids the checks
        if re.fullmatch(_PSEUDONYM, self.decided_by) is None:
            raise ValueError(
                "decided_by must be a pseudonym: 1 to 64 letters, digits, dots, dashes and "
                "underscores, not a name or a mail address"
            )
        check_identity(self.id, self.source)
        check_time("decided_at", self.decided_at)

    @property
    def agrees(self) -> bool:
        """Whether the person decided as the machine had."""
        return self.label == self.machine.label


def correct(
    output: OutputRecord,
    *,
    label: str,
    decided_by: str,
    decided_at: str,
    guideline_version: str | None = None,
) -> Correction:
    """Return a person's decision on what ``output`` is about. Raises ValueError.

    ``label`` is a name of the taxonomy that the output record refers to; the caller has the
    taxonomy and checks it.
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
    """Read a correction's JSON. Keys that are not known are passed over. Raises RecordRefused."""
    return read_json(Correction, value, "the correction")
