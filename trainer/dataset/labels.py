"""The labels of an export's rows: mapped to the taxonomy, decided on by reviewers, and counted.

``check`` writes its review queue and ``prepare`` its conflicts as files of decisions: CSV with the
columns of ``IDENTITY`` and ``BY_HAND`` next to their own. ``prepare --decisions`` reads either.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.dataset.folder import HOLDOUT, Example, Row
from trainer.dataset.text_files import parse_csv, read_edited
from trainer.errors import BadInput
from worker.contract import Taxonomy
from worker.contract.exchange import Answer, LabelSource, parse_answer
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256


def read_label_map(path: Path, known: Sequence[str], encoding: str | None = None) -> dict[str, str]:
    """Read raw label -> taxonomy label from TOML, JSON, or a CSV of two columns without a header,
    both in the form of ``label_name``. ``encoding`` is the export's, for a file that is not UTF-8.

    Raises BadInput when a target is not in the taxonomy.
    """
    text = read_edited(path, encoding)
    try:
        table: Any = _PARSERS[path.suffix.casefold()](text)
    except KeyError as error:
        raise BadInput(f"{path}: a label map is a .toml, .json or .csv file") from error
    except (ValueError, csv.Error) as error:
        raise BadInput(f"{path.name}: cannot read the label map: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(target, str) for target in table.values()):
        raise BadInput(f'{path.name}: a label map is lines of "raw label" = "taxonomy label"')
    named = {label_name(raw): label_name(target) for raw, target in table.items()}
    for raw, target in named.items():
        if target not in known:
            raise BadInput(
                f"{path.name}: {raw!r} maps to the unknown label {target!r}"
                f"{suggest_label(target, known)}"
            )
    return named


def map_labels(rows: Iterable[Row], table: Mapping[str, str]) -> list[Row]:
    """Return the rows with mapped labels; a label that the map does not name stays."""
    return [replace(row, label=table.get(row.label, row.label)) for row in rows]


def refuse_unknown(rows: Iterable[Row], known: Sequence[str]) -> None:
    """Raise BadInput that counts each label which is not in the taxonomy and names the nearest
    one that is."""
    unknown = Counter(row.label for row in rows if row.label not in known)
    if not unknown:
        return
    listed = [
        f"{label!r} ({count} rows{suggest_label(label, known)})"
        if label
        else f"no label ({count} rows)"
        for label, count in unknown.most_common(10)
    ]
    more = f", and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    raise BadInput(
        f"labels that are not in the taxonomy: {', '.join(listed)}{more}: "
        "translate them with --label-map, or add them to the taxonomy"
    )


def refuse_small(rows: Sequence[Row], taxonomy: Taxonomy, minimum: int) -> None:
    """Raise BadInput when there is one label only, or one with too few different messages."""
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        held = f"only the label {next(iter(counts))!r}" if counts else "no usable rows"
        raise BadInput(f"the input holds {held}: a clerk needs two labels or more to choose from")
    small = [
        f"{label!r} has {counts[label]}" for label in taxonomy.names if counts[label] < minimum
    ]
    if small:
        raise BadInput(
            f"too few different messages: {', '.join(small)}; at least {minimum} a label: add "
            "examples, merge the label into another, or lower --minimum-per-label"
        )


def refuse_absent(
    splits: Mapping[str, Sequence[Example]],
    taxonomy: Taxonomy,
    *,
    own_holdout: bool,
    by_time: bool = False,
) -> None:
    """Raise BadInput when a split lacks a label: nothing could be learned, chosen or judged about
    it."""
    for split, examples in splits.items():
        there = {example.label for example in examples}
        missing = [label for label in taxonomy.names if label not in there]
        if missing and split == HOLDOUT and own_holdout:
            raise BadInput(
                f"the hold-out file has no usable example of {', '.join(map(repr, missing))}: a "
                "label that is never judged should not be published: add some"
            )
        if missing and by_time:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: none came in that part of the time, "
                "or near-duplicates of later messages and decisions took them away: change "
                "--holdout-share and --validation-share, or take the label out of the taxonomy"
            )
        if missing:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: its messages are near-duplicates of "
                "each other, or decisions took them away: add different ones, or try another --seed"
            )


def suggest_label(name: str, known: Collection[str]) -> str:
    """Return "; did you mean X?" for the nearest known name, or nothing."""
    folded = {label.casefold().replace("_", " "): label for label in known}
    near = difflib.get_close_matches(
        name.casefold().replace("_", " "), list(folded), n=1, cutoff=0.5
    )
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _csv_table(text: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for record in csv.reader(io.StringIO(text, newline=""), strict=True):
        if record and len(record) != 2:
            raise ValueError(f"{len(record)} columns where two are needed: raw, taxonomy label")
        if record:
            table[record[0].strip()] = record[1].strip()
    return table


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".csv": _csv_table,
}


IDENTITY = ("id", "message_sha256")
"""What names a row: a decision holds for this text alone."""

BY_HAND = ("decision", "new_label", "note", "decided_by")
"""What a person fills in."""

WORDS = ("accept", "relabel", "drop")
_NEEDED = (*IDENTITY, "decision")
_COLUMNS = (*IDENTITY, *BY_HAND)
_OPINION = "opinion"
# What a spreadsheet takes for a formula at the start of a cell (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


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
    source: LabelSource = "person"
    guideline: str | None = None


@dataclass(frozen=True, slots=True)
class AppliedDecision:
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
    made: tuple[AppliedDecision, ...]


def write_review_csv(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> str:
    """Return a file for people to decide in: ``columns``, of which ``BY_HAND`` are empty where a
    row does not have them."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def read_decisions(
    path: Path, known: Sequence[str], encoding: str | None = None
) -> tuple[list[Decision], int]:
    """Read a queue: a CSV file with the columns ``id, message_sha256, decision`` and, where
    somebody filled them, ``new_label, note, decided_by``, and those of
    ``worker.contract.exchange``. Other columns are skipped, and so are lines that are one
    reviewer's opinion and not the outcome. ``encoding`` is the export's, for a file that is not
    UTF-8.

    Return the decisions and how many rows are undecided. Raises BadInput with the line of an
    unknown word or label.
    """
    _, header, records = parse_csv(read_edited(path, encoding), path.name, columns=_COLUMNS)
    missing = [name for name in _NEEDED if name not in header]
    if missing:
        raise BadInput(f"{path.name}: no column {missing[0]!r}: a queue has {', '.join(_COLUMNS)}")
    decisions = []
    undecided = 0
    for line, record in records:
        cells = dict(zip(header, record, strict=True))
        where = f"{path.name}:{line}"
        if cells["decision"].strip():
            decision = _decision(cells, where, known)
            answer = parse_answer(cells, where)
            if answer.role != _OPINION:
                decisions.append(_with_origin(decision, answer))
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
    for decision in decisions:
        _check(decision, by_id, originals)
        first = chosen.setdefault(decision.id, decision)
        if (first.word, first.new_label) != (decision.word, decision.new_label):
            raise BadInput(
                f"{decision.where}: {decision.id!r} is decided otherwise in {first.where}: keep one"
            )
    of_text = {(by_id[id_].key, by_id[id_].label): decision for id_, decision in chosen.items()}
    after: list[Row] = []
    decided: set[str] = set()
    copies: Counter[str] = Counter()
    for row in rows:
        made = chosen.get(row.id) or of_text.get((row.key, row.label))
        if made is None:
            after.append(row)
            continue
        copies[made.id] += row.id != made.id
        if (label := _outcome(made, row)) is not None:
            decided.add(row.id)
            after.append(replace(row, label=label, origin=(made.source, made.guideline)))
    recorded = tuple(
        AppliedDecision(
            id=id_,
            decision=decision.word,
            label=by_id[id_].label,
            to=_outcome(decision, by_id[id_]),
            by=decision.by,
            note=decision.note,
            copies=copies[id_],
        )
        for id_, decision in sorted(chosen.items())
    )
    return Applied(tuple(after), frozenset(decided), recorded)


def _outcome(decision: Decision, row: Row) -> str | None:
    if decision.word == "drop":
        return None
    return decision.new_label if decision.word == "relabel" else row.label


def _decision(cells: Mapping[str, str], where: str, known: Collection[str]) -> Decision:
    word = cells["decision"].strip().casefold()
    new_label = label_name(cells.get("new_label", ""))
    if word not in WORDS:
        raise BadInput(
            f"{where}: unknown decision {word!r}: use {', '.join(WORDS)}, or leave it empty"
        )
    if word == "relabel" and not new_label:
        raise BadInput(f"{where}: relabel needs a 'new_label'")
    if word == "relabel" and new_label not in known:
        raise BadInput(f"{where}: unknown label {new_label!r}{suggest_label(new_label, known)}")
    return Decision(
        id=cells["id"].strip(),
        message_sha256=cells["message_sha256"].strip().casefold(),
        word=word,
        new_label=new_label if word == "relabel" else "",
        note=cells.get("note", "").strip(),
        by=cells.get("decided_by", "").strip(),
        where=where,
    )


def _with_origin(decision: Decision, answer: Answer) -> Decision:
    return replace(decision, source=answer.label_source, guideline=answer.guideline)


def _check(decision: Decision, rows: Mapping[str, Row], originals: Mapping[str, str]) -> None:
    where, id_ = decision.where, decision.id
    row = rows.get(id_)
    if row is None:
        raise BadInput(f"{where}: no row has the id {id_!r}: is it another export's queue?")
    if decision.message_sha256 not in map(message_sha256, (row.message, originals[id_])):
        raise BadInput(
            f"{where}: the text of {id_!r} has changed since it was decided on: decide again"
        )
