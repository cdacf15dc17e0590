"""Everything that ``prepare`` finds in its input files: what is wrong and stops it, all at once,
and what it dealt with, for the manifest. A finding names files, rows, columns and labels, never a
message's text."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from trainer.errors import BadInput
from worker.common.tables import Problem, Table, TableError

FIRST = 5
"""Rows that a finding names; the count is of all."""

_DROP = "or leave such rows out by --broken-rows drop"


@dataclass(slots=True)
class Findings:
    """``wrong`` holds what stops ``prepare``, ``notes`` the rest, a sentence each. ``broken_rows``
    counts rows that cannot be read or used; with ``drop_broken`` those that cannot be read are left
    out, which is a note."""

    drop_broken: bool = False
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    broken_rows: int = 0

    def add_problem(self, table: Table, problem: Problem) -> None:
        """Add what the reader found in a table."""
        if problem.left_out:
            self.broken_rows += problem.count
        if not problem.broken:
            self.notes.append(f"{table.name}: {problem.sentence(table.unit)}")
            return
        self.broken_rows += problem.count
        if self.drop_broken:
            left_out = replace(problem, remedy="left out")
            self.notes.append(f"{table.name}: {left_out.sentence(table.unit)}")
        else:
            self.wrong.append(f"{table.name}: {problem.sentence(table.unit)}, {_DROP}")

    def add_broken(self, table: Table, rows: Sequence[int], what: str) -> None:
        """Add rows of a table that cannot be used; ``what`` ends the sentence "3 rows ..."."""
        what, _, remedy = what.partition(": ")
        self.add_problem(
            table, Problem("cell", what, len(rows), tuple(rows[:FIRST]), remedy, broken=True)
        )

    def add_places(self, what: str, places: Sequence[str]) -> None:
        """Add a note about rows, with their places in any files."""
        self.notes.append(f"{what} ({listed(places)})")

    def add_rows_without_columns(self, table: Table) -> None:
        """Add what is wrong with rows whatever the columns, for a table whose columns are not
        known: otherwise it would be found only after they are named."""
        try:
            for _ in table.rows(()):
                pass
        except TableError as error:
            self.wrong.append(str(error))
        for problem in table.problems:
            if problem.broken:
                self.add_problem(table, problem)

    def refuse(self) -> None:
        """Raise BadInput with everything that is wrong, if anything is."""
        if self.wrong:
            raise BadInput(*self.wrong)


def listed(places: Sequence[str]) -> str:
    """Return the first places, and dots for the others."""
    # By their numbers: rows are in the order of their ids when they are looked at.
    first = nsmallest(FIRST, places, key=_by_number)
    return ", ".join(first) + (", ..." if len(places) > FIRST else "")


def describe_shared_ids(several: Mapping[str, Sequence[str]]) -> list[str]:
    """Return what to say of ids that different rows have."""
    if not several:
        return []
    id_, places = next(iter(several.items()))
    ids = "1 id" if len(several) == 1 else f"{len(several):,} ids"
    note = (
        f"{ids} of different rows, such as {id_!r} ({listed(places)}): all are kept, the others as "
        f"{id_}-2 and so on"
    )
    return [note]


def _by_number(place: str) -> list[int | str]:
    # Every second part is a number.
    parts = re.split(r"([0-9]+)", place)
    return [int(part) if at % 2 else part for at, part in enumerate(parts)]


def rows_of(count: int) -> str:
    """Return "1 row" or "1,234 rows"."""
    return f"{count:,} row{'' if count == 1 else 's'}"
