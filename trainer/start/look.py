"""What ``start`` finds in files of labelled messages, before anything is made of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

from trainer.dataset.findings import FIRST, Findings
from trainer.dataset.guess import NO_LABELS, ColumnGuess, fold_label, guess_columns
from trainer.dataset.labels import label_reader
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput
from worker.common.tables import Table, TableError, read_table
from worker.contract.text import normalize

_FOR_TERMS = 2000
"""Messages of a label that its typical terms are taken from."""

_SHOWN_ROWS = 3
_MOST_LABELS = 200

FIELDS = ("message", "label", "id", "sublabel", "time")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of all files, and the reason for each that was guessed. A field is None if the
    files differ or have none: then ``prepare`` finds it in each file."""

    names: ColumnNames
    why: Mapping[str, str]


@dataclass
class Contents:
    """What the rows of all files hold.

    ``labels`` counts rows by label, in the spelling that is most frequent; ``different`` counts
    different messages, up to the limit of ``count``. ``spellings`` are other spellings of a label,
    ``places`` its first rows. ``rows`` are some (message, label) for typical terms, ``first`` a few
    to show.
    """

    rows_read: int = 0
    empty: int = 0
    unlabelled: int = 0
    copies: int = 0
    labels: Counter[str] = field(default_factory=Counter)
    different: dict[str, int] = field(default_factory=dict)
    spellings: dict[str, list[str]] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)
    rows: list[tuple[str, str]] = field(default_factory=list)
    first: list[tuple[str, str]] = field(default_factory=list)

    @property
    def usable(self) -> int:
        """The number of different labelled messages."""
        return self.rows_read - self.empty - self.unlabelled - self.copies


def open_tables(
    files: Sequence[Path],
    *,
    encoding: str | None,
    delimiter: str | None,
    sheet: str | None,
) -> list[Table]:
    """Open every file. Raises BadInput with one line for each that cannot be read."""
    tables, problems = [], []
    for path in files:
        try:
            tables.append(
                read_table(path, path.name, encoding=encoding, delimiter=delimiter, sheet=sheet)
            )
        except TableError as error:
            problems.append(str(error))
    if problems:
        raise BadInput(*problems)
    return tables


Choose = Callable[[str, Sequence[str], str], str]
"""Asks which of several columns it is: the question, the columns, and the flag that answers it.
Raises Ambiguous if nobody can be asked."""


class Ambiguous(Exception):
    """Only a person can decide; the message names the flag."""


def find_columns(tables: Sequence[Table], given: ColumnNames, choose: Choose) -> Columns:
    """Find the columns of message, label, id, finer label and time.

    Raises BadInput that names the flag of everything that is ambiguous or missing, and the rows
    that cannot be read.
    """
    taken = [name for each in fields(given) if (name := getattr(given, each.name))]
    guesses = [guess_columns(table, taken) for table in tables]
    names: dict[str, str] = {}
    why: dict[str, str] = {}
    problems: list[str] = []
    for what in FIELDS:
        if getattr(given, what):
            continue
        try:
            found = _find(what, tables, guesses, choose)
        except Ambiguous as error:
            problems.append(str(error))
            continue
        if found is not None:
            names[what], why[what] = found
    if problems:
        findings = Findings(wrong=problems)
        for table in tables:
            findings.add_rows_without_columns(table)
        findings.refuse()
    return Columns(replace(given, **names), why)


def _find(
    what: str, tables: Sequence[Table], guesses: Sequence[ColumnGuess], choose: Choose
) -> tuple[str, str] | None:
    """Return a field's column and the reason, None if there is none or the files differ."""
    flag = f"--{what}-column"
    candidates = dict.fromkeys(
        name
        for guess in guesses
        for name in guess.candidates.get(what, ())  # type: ignore[call-overload]
    )
    if candidates:
        return choose(f"Which column holds the {what}?", list(candidates), flag), "you chose it"
    made = [getattr(guess, what) for guess in guesses]
    if all(made):
        columns = {each.column for each in made}
        return (made[0].column, made[0].why) if len(columns) == 1 else None
    if what not in {"message", "label"}:
        return None
    at = made.index(None)
    table = tables[at]
    hint = f" ({NO_LABELS.format(file=table.name)})" if what == "label" else ""
    question = f"{table.name}: no column looks like the {what}{hint}. Which one is it?"
    return choose(question, table.columns, flag), "you chose it"


def count(
    tables: Sequence[Table],
    columns: ColumnNames,
    limit: int,
    mapped: Mapping[str, str] | None = None,
) -> Contents:
    """Read all rows. ``limit`` is the number of different messages that a label needs; they are
    counted up to it. ``mapped`` has labels to read as others. Raises BadInput for a damaged file,
    or a column that is not there."""
    found = Contents()
    read_label = label_reader(mapped or {})
    spelt: dict[str, Counter[str]] = {}
    texts: dict[str, set[str]] = {}
    copies: set[int] = set()
    kept: Counter[str] = Counter()
    places: dict[str, list[str]] = {}
    for message, written, where in _rows(tables, columns):
        label = read_label(written)
        found.rows_read += 1
        text = normalize(message)
        if not text or not label:
            found.empty += not text
            found.unlabelled += bool(text)
            continue
        key = label_key(label)
        spelt.setdefault(key, Counter())[label] += 1
        if len(first := places.setdefault(key, [])) < FIRST:
            first.append(where)
        different = texts.setdefault(key, set())
        if len(different) < limit:
            different.add(text)
        # The hash alone, because an export may have a million rows. Two messages with one hash
        # would count as a copy, and change a figure by one.
        row = hash((text, key))
        found.copies += row in copies
        copies.add(row)
        if kept[key] < _FOR_TERMS:
            kept[key] += 1
            found.rows.append((text, key))
        if len(found.first) < _SHOWN_ROWS:
            found.first.append((text, label))
    _settle_spellings(found, spelt, texts)
    found.places = {label: places[label_key(label)] for label in found.labels}
    return found


def label_key(label: str) -> str:
    """Return what spellings of one label have in common."""
    return fold_label(label) or label


_PLURALS = ("s", "es", "n", "en", "e", "er")


def find_plurals(labels: Collection[str]) -> dict[str, str]:
    """Return label -> another that is its plural or singular, by the endings of English, German and
    the Romance languages. They may be two labels, so nothing is joined."""
    folded = {label_key(label): label for label in labels}
    found: dict[str, str] = {}
    for key, label in folded.items():
        for ending in _PLURALS:
            if (other := folded.get(key + ending)) is not None:
                found |= {label: other, other: label}
    return found


def _settle_spellings(
    found: Contents, spelt: Mapping[str, Counter[str]], texts: Mapping[str, set[str]]
) -> None:
    names = {}
    for key, counts in sorted(spelt.items(), key=lambda each: -sum(each[1].values())):
        (name, _), *others = counts.most_common()
        names[key] = name
        found.labels[name] = sum(counts.values())
        found.different[name] = len(texts[key])
        if others:
            found.spellings[name] = [other for other, _ in others]
    found.rows = [(text, names[key]) for text, key in found.rows]


def _rows(tables: Sequence[Table], columns: ColumnNames) -> Iterator[tuple[str, str, str]]:
    for table in tables:
        guess = guess_columns(table) if not (columns.message and columns.label) else None
        wanted = [_column(table, columns, guess, what) for what in ("message", "label")]
        try:
            for number, (message, label) in table.rows(wanted):
                yield message, " ".join(label.split()), table.where(number)
        except TableError as error:
            raise BadInput(str(error)) from error


def _column(table: Table, columns: ColumnNames, guess: ColumnGuess | None, what: str) -> str:
    name = getattr(columns, what) or getattr(guess, what).column
    if name not in table.columns:
        listed = ", ".join(table.columns)
        raise BadInput(f"{table.name}: no column {name!r} for --{what}-column: there are {listed}")
    return str(name)


def rare_labels(found: Contents, minimum: int, *, answers: bool) -> list[str]:
    """Return the labels with fewer different messages than ``minimum``. ``answers``: they are a
    model's, of which any number may be no label. Raises BadInput if fewer than two labels remain,
    or the column does not look like labels."""
    rare = [label for label, different in found.different.items() if different < minimum]
    if len(found.labels) - len(rare) * answers > _MOST_LABELS:
        raise BadInput(
            f"the label column has {len(found.labels):,} different values in {found.rows_read:,} "
            "rows, more than a label set has: name the right one by --label-column"
        )
    if len(found.labels) - len(rare) < 2:
        shown = [] if answers else [label for label, _ in found.labels.most_common(5)]
        most = ", ".join(f"{label!r} {found.different[label]}" for label in shown)
        most = most or f"{len(found.labels)} labels"
        raise BadInput(
            f"two or more labels need {minimum} different messages each; found are {most}: name "
            "another --message-column or --label-column, add messages, or lower --minimum-per-label"
        )
    return rare
