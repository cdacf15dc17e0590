"""A person's decisions about labels, read from the review queue and applied to the source rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.dataset.csv_file import parse_csv
from trainer.dataset.labels import nearest
from trainer.dataset.row import Row
from trainer.dataset.text_file import read_text
from trainer.errors import BadInput
from worker.contract.text import message_sha256

NEEDED = ("id", "message_sha256", "decision")
COLUMNS = (*NEEDED, "new_label", "note", "decided_by")
WORDS = ("accept", "relabel", "drop")


@dataclass(frozen=True, slots=True)
class Decision:
    """What a person decided about one row. ``where`` is the queue file and its line."""

    id: str
    message_sha256: str
    word: str
    new_label: str
    note: str
    by: str
    where: str


@dataclass(frozen=True, slots=True)
class Made:
    """A decision as the manifest records it. ``to`` is None for a row that was dropped."""

    id: str
    decision: str
    label: str
    to: str | None
    by: str
    note: str
    copies: int

    def describe(self) -> dict[str, str | int | None]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "decision": self.decision,
            "from": self.label,
            "to": self.to,
            "by": self.by,
            "note": self.note,
            "copies": self.copies,
        }


@dataclass(frozen=True, slots=True)
class Applied:
    """The rows after the decisions. ``decided`` holds the ids whose label a person vouches for."""

    rows: tuple[Row, ...]
    decided: frozenset[str]
    made: tuple[Made, ...]


def read_decisions(path: Path, known: Sequence[str]) -> tuple[list[Decision], int]:
    """Read a queue: a CSV file with the columns ``id, message_sha256, decision`` and, where
    somebody filled them, ``new_label, note, decided_by``; other columns are passed over.

    Return the decisions and how many rows are undecided. Raises BadInput with the line of an
    unknown word or label.
    """
    _, header, records = parse_csv(read_text(path), path.name, columns=COLUMNS)
    missing = [name for name in NEEDED if name not in header]
    if missing:
        raise BadInput(f"{path.name}: no column {missing[0]!r}: a queue has {', '.join(COLUMNS)}")
    decisions = []
    undecided = 0
    for line, record in records:
        cells = dict(zip(header, record, strict=True))
        if cells["decision"].strip():
            decisions.append(_decision(cells, f"{path.name}:{line}", known))
        else:
            undecided += 1
    return decisions, undecided


def apply_decisions(
    rows: Sequence[Row], originals: Mapping[str, str], decisions: Sequence[Decision]
) -> Applied:
    """Apply each decision to its row, and to the exact copies of it that had the same label and
    no decision of their own: else a corrected row would stand against its own copy.

    ``originals`` maps an id to its message before cleaning: a decision holds for the text as it
    stands in the dataset or in the export. Raises BadInput with the queue's line for an unknown
    id, a changed text, or two unlike decisions about one row.
    """
    by_id = {row.id: row for row in rows}
    chosen: dict[str, Decision] = {}
    for one in decisions:
        _check(one, by_id, originals)
        first = chosen.setdefault(one.id, one)
        if (first.word, first.new_label) != (one.word, one.new_label):
            raise BadInput(
                f"{one.where}: {one.id!r} is decided otherwise in {first.where}: keep one"
            )
    of_text = {(by_id[id_].key, by_id[id_].label): one for id_, one in chosen.items()}
    after: list[Row] = []
    decided: set[str] = set()
    copies: Counter[str] = Counter()
    for row in rows:
        decision = chosen.get(row.id) or of_text.get((row.key, row.label))
        if decision is None:
            after.append(row)
            continue
        copies[decision.id] += row.id != decision.id
        if decision.word != "drop":
            decided.add(row.id)
            to = decision.new_label if decision.word == "relabel" else row.label
            after.append(replace(row, label=to))
    made = tuple(
        Made(
            id_,
            one.word,
            by_id[id_].label,
            _outcome(one, by_id[id_]),
            one.by,
            one.note,
            copies[id_],
        )
        for id_, one in chosen.items()
    )
    return Applied(tuple(after), frozenset(decided), made)


def _outcome(decision: Decision, row: Row) -> str | None:
    if decision.word == "drop":
        return None
    return decision.new_label if decision.word == "relabel" else row.label


def _decision(cells: Mapping[str, str], where: str, known: Collection[str]) -> Decision:
    word = cells["decision"].strip().casefold()
    new_label = cells.get("new_label", "").strip()
    if word not in WORDS:
        raise BadInput(
            f"{where}: unknown decision {word!r}: use {', '.join(WORDS)}, or leave it empty"
        )
    if word == "relabel" and not new_label:
        raise BadInput(f"{where}: relabel needs a 'new_label'")
    if word == "relabel" and new_label not in known:
        raise BadInput(f"{where}: unknown label {new_label!r}{nearest(new_label, known)}")
    return Decision(
        id=cells["id"].strip(),
        message_sha256=cells["message_sha256"].strip().casefold(),
        word=word,
        new_label=new_label if word == "relabel" else "",
        note=cells.get("note", "").strip(),
        by=cells.get("decided_by", "").strip(),
        where=where,
    )


def _check(one: Decision, rows: Mapping[str, Row], originals: Mapping[str, str]) -> None:
    row = rows.get(one.id)
    if row is None:
        raise BadInput(f"{one.where}: no row has the id {one.id!r}: is it another export's queue?")
    texts = (row.message, originals[one.id])
    if one.message_sha256 not in {message_sha256(text) for text in texts}:
        raise BadInput(
            f"{one.where}: the text of {one.id!r} has changed since it was decided on: decide again"
        )
