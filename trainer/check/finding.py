"""What checks found, in figures and in words for the owner of the data, and the file of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from trainer.artifacts.files import Record, RecordFile

Verdict = Literal["ok", "warn", "fail", "skipped"]

COUNTS = "examples per label"
BALANCE = "balance"
HOLDOUT_SIZE = "hold-out size"
NAMES = "label names"
LENGTHS = "message lengths"
CODES = "label codes"
CONFLICTS = "label conflicts"
LEAKAGE = "leakage between splits"
SUSPECTS = "suspected wrong labels"
SUBLABELS = "sublabels"
"""The findings' names."""

_ORDER: tuple[Verdict, ...] = ("skipped", "ok", "warn", "fail")


@dataclass(frozen=True, slots=True)
class Finding:
    """``found`` says what is so, ``advice`` what to do about it (empty where there is nothing to
    do). ``figures`` is JSON; it names messages by their ids and holds no text of theirs."""

    name: str
    verdict: Verdict
    found: str
    advice: str = ""
    figures: Mapping[str, Any] = field(default_factory=dict)


class CheckedDataset(Record):
    """Which dataset was checked."""

    name: str
    digest: str


class CheckRecord(Record):
    """``check.json``: figures and ids, no message texts. ``suspects`` counts the doubted labels,
    ``queue`` names the review queue, and ``decisions_kept`` counts those it held before."""

    schema_id: Literal["check/2"] = Field("check/2", alias="schema")
    dataset: CheckedDataset
    verdict: Verdict
    verdicts: dict[str, Verdict]
    suspects: int
    findings: tuple[Finding, ...]
    settings: dict[str, Any]
    queue: str
    decisions_kept: int


CHECK = RecordFile("check.json", CheckRecord, "clerk-trainer check")


def worst(findings: Sequence[Finding]) -> Verdict:
    """Return the worst verdict; checks that were skipped count as ok."""
    return max(("ok", *(finding.verdict for finding in findings)), key=_ORDER.index)


def grade(value: float, *, warn: float, fail: float) -> Verdict:
    """Return the verdict on a value of which less is better."""
    return "fail" if value > fail else "warn" if value > warn else "ok"
