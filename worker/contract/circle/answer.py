"""An answer: what a person decided about a message, a line of the file of decisions (CSV).

It is the file that ``clerk-trainer check`` writes for people to fill in, and the desk exports. In
its first version it has the columns ``id, message_sha256, decision, new_label, note, decided_by``.
The second adds what the rest of the circle wants to know; every line names its version, and a line
that names none is of the first.

Of a message that several people decided on there is one line that counts (``outcome``) and may be
one for each of them (``opinion``): ``prepare`` takes the first, ``advise`` looks at both.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from worker.contract.circle.files import PRIVATE, read_text
from worker.contract.circle.task import LabelSource, Purpose
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.taxonomy import label_name
from worker.contract.timestamps import parse_rfc3339

DecisionWord = Literal["accept", "relabel", "drop"]
"""The label is right; it is ``new_label``; no label fits."""

AnswerRole = Literal["outcome", "opinion"]

ANSWERS_SCHEMA = "decisions/2"
_FIRST = "decisions/1"
# What a spreadsheet takes for a formula at the start of a cell (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Answer:
    """One decision. What a file of the first version cannot say is None or empty.

    ``id`` is the message's in its dataset or export, ``task_id`` that of the task that was
    answered. ``decided_by`` is a pseudonym. ``decided_at`` is RFC 3339 in UTC, ``guideline`` the
    version of the guideline that was followed, ``batch`` the task's.
    """

    id: str
    message_sha256: str
    decision: DecisionWord
    new_label: str = ""
    note: str = ""
    decided_by: str = ""
    task_id: str | None = None
    purpose: Purpose | None = None
    batch: str | None = None
    guideline: str | None = None
    label_source: LabelSource = "person"
    decided_at: str | None = None
    role: AnswerRole = "outcome"

    def __post_init__(self) -> None:  # raises ValueError
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")
        if (self.decision == "relabel") != bool(self.new_label):
            raise ValueError("new_label belongs to relabel, and to nothing else")
        if self.decided_at is not None:
            parse_rfc3339(self.decided_at)


ALLOWED: dict[str, tuple[str, ...]] = {
    "decision": get_args(DecisionWord),
    "purpose": get_args(Purpose),
    "label_source": get_args(LabelSource),
    "role": get_args(AnswerRole),
}
"""What may stand in a cell, by its column; of an optional one also nothing."""

_NAMES = tuple(field.name for field in fields(Answer))
ANSWER_COLUMNS = (*_NAMES, "schema")
"""The file's columns."""

_DEFAULTS: dict[str, Any] = {"label_source": "person", "role": "outcome"}
_TEXTS = ("new_label", "note", "decided_by")


def write_answers(answers: Iterable[Answer]) -> str:
    """Return a file of decisions: CSV with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(ANSWER_COLUMNS)
    for answer in answers:
        cells = {name: getattr(answer, name) or "" for name in _NAMES}
        cells["note"] = _guard(cells["note"])  # the only cell that is free text
        writer.writerow([*cells.values(), ANSWERS_SCHEMA])
    return text.getvalue()


def save_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a file of decisions, for its owner and group: notes are people's words."""
    write_atomically(path, write_answers(answers).encode("utf-8"), mode=PRIVATE)


def read_answers(path: Path) -> tuple[Answer, ...]:
    """Read a file of decisions of either version; lines without a decision are left out.

    Raises RecordRefused with the line at fault; what stands in it is not repeated.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise RecordRefused(path.name, f"is no CSV: {error}") from None
    return tuple(
        parse_answer(cells, f"{path.name}:{number}")
        for number, cells in enumerate(lines, start=2)
        if (cells.get("decision") or "").strip()
    )


def parse_answer(cells: dict[str, Any], where: str) -> Answer:
    """Return the answer that a line's cells hold. Raises RecordRefused."""
    schema = (cells.get("schema") or _FIRST).strip()
    if schema not in {_FIRST, ANSWERS_SCHEMA}:
        raise RecordRefused(where, f"a decision of a version that is not known: use a newer program"
                            f" or export it again as {ANSWERS_SCHEMA}")  # fmt: skip
    if not all(isinstance(cells.get(name), str) for name in ("id", "message_sha256")):
        raise RecordRefused(where, "has no id or no message_sha256")
    values: dict[str, Any] = {}
    for name in _NAMES:
        cell = (cells.get(name) or "").strip()
        if name == "decision":
            cell = cell.casefold()
        values[name] = cell if cell or name in {*_TEXTS, "id"} else _DEFAULTS.get(name)
    relabelled = values["decision"] == "relabel"
    values["new_label"] = label_name(values["new_label"]) if relabelled else ""
    values["message_sha256"] = (values["message_sha256"] or "").casefold()
    try:
        return Answer(**values)
    except ValueError as error:
        raise RecordRefused(where, str(error)) from None


def _guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
