"""The labels of an export's rows: mapped to the taxonomy, changed by reviewers, and counted.

The review queue of ``check`` and the conflicts of ``prepare`` are CSV files with the columns
``IDENTITY`` and ``BY_HAND`` and some of their own. ``prepare --decisions`` reads both.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from trainer.dataset.findings import listed, rows_of
from trainer.dataset.folder import HOLDOUT, Example, LabelOrigin, Row
from trainer.dataset.guess import fold_label
from trainer.errors import BadInput
from worker.common.csv_rows import read_records, sniff
from worker.common.encodings import EncodingError, decoded_file
from worker.common.review_files import ANSWERS_NEED, answer_of, read_review, unguard
from worker.contract import Taxonomy
from worker.contract.errors import RecordRefused
from worker.contract.exchange import ALLOWED, Answer
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256


def read_label_map(path: Path, known: Collection[str] | None) -> dict[str, str]:
    """Read raw label -> taxonomy label from TOML, JSON, or a CSV of two columns without a header,
    with any delimiter. The encoding is detected.

    Raises BadInput that lists all targets that are not ``known``; None: any may be.
    """
    try:
        parse = _PARSERS[path.suffix.casefold()]
    except KeyError as error:
        raise BadInput(f"{path}: a label map is a .toml, .json or .csv file") from error
    try:
        table: Any = parse("".join(decoded_file(path)))
    except (ValueError, EncodingError) as error:
        hint = " (in TOML, put labels in quotation marks)" if path.suffix == ".toml" else ""
        raise BadInput(f"{path.name}: cannot read the label map{hint}: {error}") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot read it: {error.strerror}") from error
    if not isinstance(table, dict) or not all(isinstance(target, str) for target in table.values()):
        raise BadInput(f'{path.name}: a label map is lines of "raw label" = "taxonomy label"')
    named = {label_name(raw): label_name(target) for raw, target in table.items()}
    known = named.values() if known is None else known
    wrong = [
        f"{path.name}: {raw!r} maps to the unknown label {target!r}{suggest_label(target, known)}"
        for raw, target in named.items()
        if target not in known
    ]
    if wrong:
        raise BadInput(*wrong)
    return named


def label_reader(table: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that reads a raw label by a map: as it is there, or in another spelling of
    it (``fold_label``). One that is not in the map, and one that the map leads to, stays."""
    stays = frozenset(table.values()) - table.keys()

    @cache
    def read(raw: str) -> str:
        return raw if raw in stays else table.get(fit_label(label_name(raw), table), raw)

    return read


def map_labels(rows: Iterable[Row], table: Mapping[str, str]) -> list[Row]:
    """Return the rows with the labels that ``label_reader`` reads."""
    read = label_reader(table)
    return [replace(row, label=read(row.label)) for row in rows]


def match_spelling(rows: list[Row], known: Sequence[str]) -> list[str]:
    """Give rows the taxonomy's label where theirs is another spelling of it (``fold_label``), in
    place; return a sentence for each change, the most frequent first.

    A spelling that fits two labels of the taxonomy is left alone.
    """
    counts = Counter(row.label for row in rows)
    match = {label: fit_label(label, known) for label in counts if label not in known}
    match = {written: label for written, label in match.items() if written != label}
    if match:
        rows[:] = [replace(row, label=match.get(row.label, row.label)) for row in rows]
    return [
        f"the label {written!r} was read as {match[written]!r} in {rows_of(count)}"
        for written, count in counts.most_common()
        if written in match
    ]


_SHOWN_LABELS, _LABEL_CHARS = 20, 60


def describe_unknown(rows: Iterable[Row], known: Collection[str]) -> list[str]:
    """Return a phrase for each label outside the taxonomy: its rows, the first places, and the
    nearest label of the taxonomy. The most frequent come first; beyond 20 they are counted. A long
    one is not quoted: the column may be that of the message."""
    places: dict[str, list[str]] = {}
    for row in rows:
        places.setdefault(row.label, []).append(row.where)
    ordered = sorted(places.items(), key=lambda each: -len(each[1]))
    phrases = []
    for label, wheres in ordered[:_SHOWN_LABELS]:
        if not label:
            named = "no label"
        elif len(label) > _LABEL_CHARS:
            named = f"an unknown label of {len(label):,} characters"
        else:
            named = f"the unknown label {label!r}"
        near = suggest_label(label, known) if 0 < len(label) <= _LABEL_CHARS else ""
        phrases.append(f"{rows_of(len(wheres))} with {named} ({listed(wheres)}){near}")
    if rest := ordered[_SHOWN_LABELS:]:
        count = sum(len(wheres) for _, wheres in rest)
        phrases.append(f"{rows_of(count)} with {len(rest):,} other unknown labels")
    return phrases


def find_small(counts: Mapping[str, int], taxonomy: Taxonomy, minimum: int) -> list[str]:
    """Return what is wrong with the numbers of different messages by label: fewer than two labels,
    or a label with too few."""
    if len(counts) < 2:
        held = f"only the label {next(iter(counts))!r}" if counts else "no usable rows"
        return [f"the input has {held}: two or more labels are needed"]
    small = [
        f"{label!r} has {counts.get(label, 0)}"
        for label in taxonomy.names
        if counts.get(label, 0) < minimum
    ]
    if not small:
        return []
    few = f"too few different messages: {', '.join(small)}; at least {minimum} a label"
    return [f"{few}: add examples, merge the label into another, or lower --minimum-per-label"]


def refuse_absent(
    splits: Mapping[str, Sequence[Example]],
    taxonomy: Taxonomy,
    *,
    own_holdout: bool,
    by_time: bool = False,
) -> None:
    """Raise BadInput if a split lacks a label."""
    for split, examples in splits.items():
        there = {example.label for example in examples}
        missing = [label for label in taxonomy.names if label not in there]
        if missing and split == HOLDOUT and own_holdout:
            raise BadInput(
                f"the hold-out file has no usable example of {', '.join(map(repr, missing))}: add "
                "some, since a label that is never evaluated should not be published"
            )
        if missing and by_time:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: none falls into that period, or all "
                "are near-duplicates of later messages or were dropped by decisions: change "
                "--holdout-share and --validation-share, or remove the label from the taxonomy"
            )
        if missing:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: its messages are near-duplicates of "
                "each other or were dropped by decisions: add different ones, or try another --seed"
            )


def fit_label(written: str, known: Collection[str]) -> str:
    """Return the only known label that ``fold_label`` folds alike, or what is written."""
    fits = [label for label in known if fold_label(label) == fold_label(written)]
    return written if written in known or len(fits) != 1 else fits[0]


def suggest_label(name: str, known: Collection[str]) -> str:
    """Return "; did you mean X?" for the nearest known name, or an empty string."""
    folded = {label.casefold().replace("_", " "): label for label in known}
    near = difflib.get_close_matches(
        name.casefold().replace("_", " "), list(folded), n=1, cutoff=0.5
    )
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _csv_table(text: str) -> dict[str, str]:
    lines = text.splitlines(keepends=True)
    table: dict[str, str] = {}
    for line, record in read_records(iter(lines), sniff(lines)):
        cells = [unguard(cell.strip()) for cell in record or ()]
        while len(cells) > 2 and not cells[-1]:
            cells.pop()  # a spreadsheet's empty columns
        if len(cells) != 2:
            raise ValueError(
                f"line {line} has {len(cells)} columns where two are needed: raw, taxonomy label"
            )
        table[cells[0]] = cells[1]
    return table


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".csv": _csv_table,
}


IDENTITY = ("id", "message_sha256")
"""The columns that identify a row. The digest is there because a decision is about this text: if
the message changes, the decision no longer applies."""

BY_HAND = ("decision", "new_label", "note", "decided_by")
"""The columns that a reviewer fills in."""


class Decision(NamedTuple):
    """A reviewer's decision about one row. ``where`` is the queue file and its line."""

    answer: Answer
    where: str


@dataclass(frozen=True, slots=True)
class Applied:
    """The rows after the decisions. ``decided`` holds the ids with a decided label; ``made`` are
    the decisions as the manifest records them (JSON)."""

    rows: tuple[Row, ...]
    decided: frozenset[str]
    made: tuple[dict[str, Any], ...]


def read_decisions(path: Path, known: Sequence[str]) -> tuple[list[Decision], int]:
    """Read a review queue; return the decisions and the number of undecided rows.

    A queue has the columns ``id``, ``message_sha256`` and ``decision``, and optionally the other
    columns of ``BY_HAND`` and of ``worker.contract.exchange``. Other columns are ignored, and so
    are single reviewers' opinions: only outcomes count. Raises BadInput that lists all problems
    with their lines.
    """
    decisions = []
    undecided = 0
    try:
        file = read_review(path, ANSWERS_NEED)
        for line, cells in file.rows:
            if not cells["decision"].strip():
                undecided += 1
            elif problem := _wrong(cells, known):
                file.note(line, problem)
            elif (answer := answer_of(file, line, cells)) is not None and answer.role == "outcome":
                answer = replace(answer, new_label=fit_label(answer.new_label, known))
                decisions.append(Decision(answer, file.where(line)))
    except RecordRefused as error:
        raise BadInput(str(error)) from None
    if problems := file.problems():
        raise BadInput(*problems)
    return decisions, undecided


def apply_decisions(
    rows: Sequence[Row], originals: Mapping[str, str], decisions: Sequence[Decision]
) -> Applied:
    """Apply each decision to its row, and to exact copies with the same label and no decision of
    their own.

    ``originals`` maps an id to its message before cleaning: a decision applies if its digest is
    that of the clean or of the original message. Raises BadInput that lists, with their lines, all
    unknown ids, changed texts, and contradicting decisions about one row.
    """
    # Copies follow, because a corrected row and its uncorrected copy would be a label conflict,
    # which drops both.
    by_id = {row.id: row for row in rows}
    chosen: dict[str, Decision] = {}
    wrong = []
    for decision in decisions:
        answer, where = decision
        first, earlier = chosen.setdefault(answer.id, decision)
        if problem := _misfit(answer, by_id, originals):
            wrong.append(f"{where}: {problem}")
        elif (first.decision, first.new_label) != (answer.decision, answer.new_label):
            wrong.append(f"{where}: contradicts {earlier} about {answer.id!r}: keep one")
        elif answer.purpose == "audit":  # also asked for another reason, and still drawn at random
            chosen[answer.id] = decision
    if wrong:
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        raise BadInput(*wrong[:_SHOWN], *more)
    of_id = {id_: decision.answer for id_, decision in sorted(chosen.items())}
    of_text = {(by_id[id_].key, by_id[id_].label): answer for id_, answer in of_id.items()}
    after: list[Row] = []
    decided: set[str] = set()
    copies: Counter[str] = Counter()
    for row in rows:
        made = of_id.get(row.id) or of_text.get((row.key, row.label))
        if made is None:
            after.append(row)
            continue
        copies[made.id] += row.id != made.id
        if (label := _outcome(made, row)) is not None:
            decided.add(row.id)
            origin = LabelOrigin(made.label_source, made.guideline)
            done = replace(row, label=label, origin=origin)
            if row.by_teacher:  # only an audit's messages are drawn at random
                done = replace(done, chosen=made.purpose != "audit", taught=row.label)
            after.append(done)
    recorded = tuple(
        {
            "id": id_,
            "decision": answer.decision,
            "from": by_id[id_].label,
            "to": _outcome(answer, by_id[id_]),
            "by": answer.decided_by,
            "note": answer.note,
            "copies": copies[id_],
        }
        for id_, answer in of_id.items()
    )
    return Applied(tuple(after), frozenset(decided), recorded)


def _outcome(answer: Answer, row: Row) -> str | None:
    """Return the row's label after the decision, None if it is dropped."""
    if answer.decision == "drop":
        return None
    return answer.new_label if answer.decision == "relabel" else row.label


def _wrong(cells: Mapping[str, str], known: Sequence[str]) -> str | None:
    """Return what is wrong with a decision's word or label."""
    word = cells["decision"].strip().casefold()
    new_label = label_name(cells.get("new_label", ""))
    if word not in ALLOWED["decision"]:
        return f"unknown decision {word!r}: use {', '.join(ALLOWED['decision'])}, or leave it empty"
    if word == "relabel" and not new_label:
        return "relabel needs a 'new_label'"
    if word == "relabel" and fit_label(new_label, known) not in known:
        return f"unknown label {new_label!r}{suggest_label(new_label, known)}"
    return None


_SHOWN = 20  # decisions that fit no row: after that many, it is the wrong file


def _misfit(answer: Answer, rows: Mapping[str, Row], originals: Mapping[str, str]) -> str | None:
    """Return why a decision is not about a row of this export."""
    row = rows.get(answer.id)
    if row is None:
        return f"no row has the id {answer.id!r}: is this the queue of another export?"
    if answer.message_sha256 not in map(message_sha256, (row.message, originals[answer.id])):
        return f"the text of {answer.id!r} has changed since the decision: decide again"
    return None
