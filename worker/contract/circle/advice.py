"""Advice: what the decisions say about the labels themselves, in figures and in plain words.

With ``texts`` the file holds messages; it is for its owner and group (0640) in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from worker.contract.circle.files import read_text, write_json
from worker.contract.marks import Doc, Probability
from worker.contract.records.wire import read_json

AdviceKind = Literal[
    "confused", "few", "contradictory", "missing", "merge", "split", "outdated", "unsure"
]
"""People confuse two labels; a label has few examples, or contradictory ones; messages that fit no
label look like a new one; two labels look like one, or one like two; decisions are older than the
guideline; too little is known to say anything."""


@dataclass(frozen=True, slots=True)
class AdviceMessage:
    """A message that a finding rests on. ``text`` is None where texts were left out, and ``part``
    numbers the part of the finding that it belongs to (of a split: one or the other)."""

    id: str
    message_sha256: str
    label: str | None = None
    text: str | None = None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the data owner may want to change."""

    kind: AdviceKind
    labels: tuple[str, ...]
    title: Annotated[str, Doc("One sentence.")]
    evidence: Annotated[str, Doc("What it rests on, in a sentence with its figures.")]
    advice: Annotated[str, Doc("What to do.")]
    gain: Annotated[str, Doc("What it would save or improve.")]
    cost: Annotated[str, Doc("What it would cost.")]
    figures: Mapping[str, float]
    messages: tuple[AdviceMessage, ...]
    p_value: Annotated[
        Probability | None, Doc("How often as much would be found where nothing is wrong.")
    ] = None


@dataclass(frozen=True, slots=True)
class Advice:
    """All findings about a dataset and the decisions since, the weightiest first. ``decisions``
    counts the messages decided on, ``doubly`` those that two people or more decided on."""

    schema: Literal["advice/1"]
    created_at: str
    dataset_name: str
    dataset: Annotated[str, Doc("The dataset's digest.")]
    taxonomy: Annotated[str, Doc("The taxonomy's digest.")]
    guideline: str | None
    decisions: int
    doubly: int
    texts: bool
    findings: tuple[Finding, ...]


def write_advice(path: Path, advice: Advice) -> None:
    """Write a file of advice, for its owner and group. Raises OSError."""
    write_json(path, advice)


def read_advice(path: Path) -> Advice:
    """Read a file of advice. Raises RecordRefused; the error holds no text of a message."""
    return read_json(Advice, read_text(path), path.name)
