"""Read exports as rows, whatever format they have (``worker.common.tables``).

Everything wrong with a file goes into ``Findings``, so that a user sees it at once. No finding
quotes a message: if the user named the wrong column, any cell may be one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from sys import intern
from typing import NamedTuple, cast, get_args

from trainer.dataset.findings import Findings
from trainer.dataset.folder import LabelOrigin, Row
from trainer.dataset.guess import NO_LABELS, Field, ambiguity, guess_columns
from trainer.dataset.saved import find_shards
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput
from worker.common.tables import Table, TableError, format_of, read_table
from worker.contract.digest import sha256_file, sha256_json
from worker.contract.exchange import LabelSource
from worker.contract.taxonomy import label_name


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read, ``found`` in a few words. ``name`` is without its folder, since the
    manifest is published."""

    name: str
    sha256: str
    rows: int
    columns: ChosenColumns
    found: str


def read_source(
    path: Path,
    wanted: ColumnNames,
    findings: Findings,
    *,
    encoding: str | None = None,
    sheet: str | None = None,
) -> tuple[list[Row], Source]:
    """Read one file, or the folder of a saved dataset. Rows that cannot be read are left out, and
    are in ``findings``. Raises BadInput if nothing of it can be read."""
    no_suffix = not path.suffix[1:].isalpha()  # FOLDER/SPLIT, or the name of a dataset on the hub
    try:
        if path.is_dir() or (format_of(path.name) is None and no_suffix and not path.exists()):
            return _read_saved(path, wanted, findings)
        table = read_table(path, path.name, encoding=encoding, sheet=sheet)
        chosen = choose_columns(wanted, table)
        rows = _read_rows(table, chosen, findings)
    except TableError as error:
        raise BadInput(str(error)) from error
    return rows, Source(path.name, sha256_file(path), len(rows), chosen, table.found.words())


def _read_saved(path: Path, wanted: ColumnNames, findings: Findings) -> tuple[list[Row], Source]:
    """Read all files of a saved dataset. Raises BadInput if their columns differ."""
    rows: list[Row] = []
    first: ChosenColumns | None = None
    digests = {}
    for shard in find_shards(path):
        table = read_table(shard, f"{shard.parent.name}/{shard.name}")
        chosen = choose_columns(wanted, table)
        if chosen != (first := first or chosen):
            raise BadInput(f"{table.name}: has other columns than the previous files: save again")
        rows += _read_rows(table, chosen, findings)
        digests[shard.name] = sha256_file(shard)
    if first is None:
        raise BadInput(f"{path}: has no rows")
    return rows, Source(path.name, sha256_json(digests), len(rows), first, "a saved dataset")


def _read_rows(table: Table, chosen: ChosenColumns, findings: Findings) -> list[Row]:
    fields, columns = zip(*chosen.of.items(), strict=True)
    bad: dict[str, _Bad] = {}
    rows = []
    for number, cells in table.rows(columns):
        record = dict(zip(fields, cells, strict=True))
        try:
            rows.append(_row(record, table.where(number)))
        except _BadCell as error:
            bad.setdefault(error.field, _Bad(error.remedy, [])).rows.append(number)
    for problem in table.problems:
        findings.add_problem(table, problem)
    for field, (remedy, numbers) in bad.items():
        findings.add_broken(table, numbers, f"whose {chosen.of[field]!r} is not {remedy}")
    if not rows and not findings.wrong:
        left_out = [each.sentence(table.unit) for each in table.problems if each.left_out]
        raise BadInput(*(f"{table.name}: {one}" for one in left_out or ["a header and no rows"]))
    return rows


class _Bad(NamedTuple):
    remedy: str
    rows: list[int]


class _BadCell(Exception):
    """A cell that its field cannot hold; ``remedy`` says what it should be."""

    def __init__(self, field: str, remedy: str) -> None:
        self.field, self.remedy = field, remedy
        super().__init__(field)


def _row(record: Mapping[str, str], where: str) -> Row:
    """Return a row from its cells by field. Raises _BadCell."""
    return Row(
        id=record.get("id", "").strip(),
        message=record["message"],
        # Interned: there are a million rows and twenty labels.
        label=intern(label_name(record["label"].strip())),
        sublabel=label_name(record.get("sublabel", "").strip()) or None,
        where=where,
        time=read_time(record["time"]) if "time" in record else None,
        group=record.get("group", "").strip(),
        language=read_language(record["language"]) if "language" in record else "",
        origin=_origin(record.get("source", "").strip()),
        chosen=_is_chosen(record.get(DRAWN, "").strip()),
        taught=label_name(record[TAUGHT].strip()) if TAUGHT in record else None,
    )


def _origin(source: str) -> LabelOrigin | None:
    """Return the origin of a row's label, None for an empty cell. Raises _BadCell."""
    if not source:
        return None
    if source not in get_args(LabelSource):
        raise _BadCell("source", f"one of {', '.join(get_args(LabelSource))}, or empty")
    return LabelOrigin(cast("LabelSource", source))


def _is_chosen(drawn: str) -> bool:
    """Return whether a message was chosen for the reviewer, by how it was drawn. Raises
    _BadCell."""
    if drawn not in {"", "random", "chosen"}:
        raise _BadCell(DRAWN, "random, chosen, or empty")
    return drawn == "chosen"


SOURCE, DRAWN, TAUGHT = "label_source", "drawn", "teacher_label"
"""Columns that ``label`` writes, the first of them the desk too. It is read wherever it is, since
nobody should have to ask that a teacher's labels are not taken for people's; the others next to
it."""

_GUESSED: tuple[Field, ...] = ("message", "label", "id", "sublabel")
_OPTIONAL = frozenset({"id", "sublabel"})


@dataclass(frozen=True, slots=True)
class ChosenColumns:
    """``of`` maps the fields of ``ColumnNames`` to columns, without the fields that have none;
    ``guessed`` lists the fields whose column was guessed."""

    of: Mapping[str, str]
    guessed: tuple[str, ...] = ()

    def describe(self) -> dict[str, str | None]:
        """Return field -> column, for the manifest."""
        usual = ("message", "label", "id", "sublabel")
        return {field: self.of.get(field) for field in usual} | dict(self.of)


def choose_columns(wanted: ColumnNames, table: Table) -> ChosenColumns:
    """Match fields with the columns of a table: those the user named, and guesses for the others.

    Raises BadInput that holds everything wrong with them: missing columns (listing the existing
    ones), guesses that are ambiguous, and rows that cannot be read.
    """
    named = {field: name for field, name in asdict(wanted).items() if name is not None}
    wrong = [_missing(field, name, table) for field, name in named.items()
             if name not in table.columns]  # fmt: skip
    twice = {name for name in named.values() if list(named.values()).count(name) > 1}
    wrong += [f"the column {name!r} is named for two fields" for name in sorted(twice)]
    guess = guess_columns(table, named.values())
    taken = dict(named)
    guessed = []
    for field in _GUESSED:
        if field in named:
            continue
        if (found := getattr(guess, field)) is not None:
            taken[field] = found.column
            if found.column != field:
                guessed.append(field)
        elif field in guess.candidates:
            wrong.append(ambiguity(field, guess.candidates[field]))
        elif field not in _OPTIONAL:
            hint = f" ({NO_LABELS.format(file=table.name)})" if field == "label" else ""
            wrong.append(
                f"no column looks like the {field}{hint}. There are: {', '.join(table.columns)}. "
                f"Name one by --{field}-column"
            )
    free = [name for name in table.columns if name not in taken.values()]
    if SOURCE in free:
        taken.setdefault("source", SOURCE)
    if "source" in taken:
        taken |= {name: name for name in (DRAWN, TAUGHT) if name in free}
    if wrong:
        findings = Findings(wrong=[f"{table.name}: {one}" for one in wrong])
        findings.add_rows_without_columns(table)
        findings.refuse()
    fields = (*asdict(wanted), DRAWN, TAUGHT)
    return ChosenColumns(
        {field: taken[field] for field in fields if field in taken}, tuple(guessed)
    )


def _missing(field: str, name: str, table: Table) -> str:
    near = difflib.get_close_matches(name, table.columns, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    columns = ", ".join(table.columns)
    return f"no column {name!r}{hint} There are: {columns}. Name one by --{field}-column"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")
# Seconds from 1973 to 5138, or milliseconds from 1973. Below that, 20240506 would be read as 1970.
_FIRST_SECONDS, _FIRST_MILLISECONDS, _END = 1e8, 1e11, 1e13

_LANGUAGE = re.compile(r"[^\W\d_]+(?:[-_ ][^\W_]+)*")
_LANGUAGE_CHARS = 35
"""The length that RFC 5646, section 4.4.1, demands of a field for language tags."""

UNKNOWN_LANGUAGE = "unknown"


_TIME = "a time: write it as 2024-05-06T07:08:09Z, or as seconds or milliseconds since 1970"
_TAG = "a language: write a code or a name, such as de, pt-BR or french"


def read_time(cell: str) -> datetime:
    """Return a time as it is written, aware or naive.

    Accepts ISO 8601 and RFC 3339 (``2024-05-06``, ``2024-05-06 07:08:09``,
    ``2024-05-06T07:08:09.123Z``), and seconds or milliseconds since 1970. Raises _BadCell, also for
    an empty cell, and for ``05/06/2024``, which is ambiguous.
    """
    try:
        if _DIGITS.fullmatch(cell.strip()):
            return _since_1970(float(cell))
        return datetime.fromisoformat(cell.strip())
    except (ValueError, OverflowError):
        raise _BadCell("time", _TIME) from None  # the exception's message would quote the cell


def read_language(cell: str) -> str:
    """Return a language's code or name, case folded, or ``UNKNOWN_LANGUAGE`` for an empty cell.
    Raises _BadCell."""
    name = cell.strip()
    if not name:
        return UNKNOWN_LANGUAGE
    if len(name) > _LANGUAGE_CHARS or not _LANGUAGE.fullmatch(name):
        raise _BadCell("language", _TAG)
    return name.casefold()


def _since_1970(number: float) -> datetime:
    if not _FIRST_SECONDS <= number < _END:
        raise ValueError("outside the range of seconds and of milliseconds")
    return _EPOCH + timedelta(seconds=number / 1000 if number >= _FIRST_MILLISECONDS else number)
