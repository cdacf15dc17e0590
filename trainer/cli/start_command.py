"""``clerk-trainer start``: from files of labelled messages to a judged model, in one folder."""

from __future__ import annotations

import inspect
import os
import shlex
import sys
import webbrowser
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.prepare_command import option_parameter
from trainer.cli.shared import make_console, outcomes
from trainer.dataset.settings import ColumnNames, PrepareSettings, declared_options, settings_of
from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.start.chain import Folder, Planned, Step
    from trainer.start.look import Contents
    from trainer.start.plan import Places

_ROW_CHARS = 60


def start(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Labelled messages: .csv, .tsv, .jsonl, .parquet or .xlsx."
        ),
    ],
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for everything that is made.")
    ],
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe",
            metavar="FILE",
            help="A recipe [default: a small encoder, for the number of messages].",
        ),
    ] = None,
    base: Annotated[
        Path | None,
        typer.Option("--base", metavar="DIR", help="The base model [default: the installed one]."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting, over the recipe's. Repeatable."
        ),
    ] = None,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="If inputs or options changed, replace the results made with others."
        ),
    ] = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Open the report in the browser at the end.")
    ] = False,
    **given: Any,
) -> None:
    """Make a model from files of labelled messages, and say whether it is good enough.

    Finds format, encoding, delimiter and columns, and shows what it found. On a terminal it asks
    what only you can decide; elsewhere that is an error which names the option. Writes
    taxonomy.toml from the labels, for you to edit. Then runs prepare, check, train, evaluate, duel
    and report, and prints each as the command that does the same by hand.

    Interrupted or killed, run it again: it continues. If you change an input, taxonomy.toml,
    recipe.toml, or fill in data-review.csv, run it again too: it names what changed and repeats
    what depends on it.

    Example: clerk-trainer start tickets.csv --out first

    Exit codes: 0 done, whether or not the model passes the gate; 2 bad input or something to
    decide; 130 interrupted; otherwise that of the step that failed.
    """
    with outcomes():
        from trainer.start.chain import locked
        from trainer.start.plan import Places

        with locked(out):
            session = _Session(Places(out), again=again)
            settings = session.settings(files, given)
            steps = session.steps(settings, recipe=recipe, base=base, sets=sets or ())
            session.run(steps)
            session.finish(open_page=open_page)


def _signature() -> inspect.Signature:
    """Return the command's own options, then those of ``prepare`` that it does not choose."""
    own = inspect.signature(start, eval_str=True).parameters.values()
    chosen = {"inputs", "taxonomy", "out"}
    passed = [
        option_parameter(each, panel="Options of prepare")
        for each in declared_options()
        if each.name not in chosen
    ]
    return inspect.Signature([*(each for each in own if each.name != "given"), *passed])


class _Session:
    """One call of the command: what it prints and asks."""

    def __init__(self, places: Places, *, again: bool) -> None:
        from trainer.start.chain import Folder

        self._places = places
        self._again = again
        # The files of now: the steps' output is redirected, and progress is not.
        self._console = make_console(as_json=False)
        self._console.file = sys.stdout
        self._asks = sys.stdin.isatty() and self._console.is_terminal
        self._folder: Folder = Folder(places.out)
        self._messages = 0

    def print(self, text: str = "") -> None:
        """Print lines as they are."""
        self._console.print(text, markup=False, soft_wrap=True)

    def settings(self, files: Sequence[Path], given: dict[str, Any]) -> PrepareSettings:
        """Look at the files, show and settle what was found, write the taxonomy; return the
        options of ``prepare``. Raises BadInput with everything that has to be decided."""
        from trainer.start.look import count, find_columns, open_tables, rare_labels

        settings = settings_of(
            {
                **given,
                "inputs": list(files),
                "taxonomy": self._places.taxonomy,
                "out": self._places.data,
            }
        )
        tables = open_tables(files, encoding=None, delimiter=None, sheet=settings.sheet)
        columns = find_columns(tables, settings.columns, self._choose)
        found = count(tables, columns.names, settings.minimum_per_label)
        self._messages = found.rows_read
        self._show_files(tables, columns.names, columns.why)
        rare = rare_labels(found, settings.minimum_per_label)
        self._show_contents(found, rare, settings.minimum_per_label)
        self._write_taxonomy(files, found, rare)
        time = columns.names.time if settings.split == "time" else None
        decisions = (*settings.decisions, *self._decided())
        return replace(settings, columns=replace(columns.names, time=time), decisions=decisions)

    def _choose(self, question: str, columns: Sequence[str], flag: str) -> str:
        from trainer.start.look import Ambiguous

        listed = ", ".join(map(repr, columns))
        if not self._asks:
            raise Ambiguous(f"{question} Give {flag} NAME, one of {listed}")
        self.print(f"\n{question}")
        for number, column in enumerate(columns, start=1):
            self.print(f"  {number}  {column}")
        number = typer.prompt("Number", type=typer.IntRange(1, len(columns)))
        return columns[number - 1]

    def _show_files(
        self, tables: Sequence[Any], columns: ColumnNames, why: dict[str, str]
    ) -> None:
        for table in tables:
            self.print(f"{table.name}: {table.found.words()}")
            for problem in table.problems:
                self.print(f"  {problem.sentence(table.unit)}")
        for what in ("message", "label", "sublabel", "id", "time"):
            if name := getattr(columns, what):
                self.print(f"  {what:<9} {name}" + (f"  ({why[what]})" if what in why else ""))

    def _show_contents(self, found: Contents, rare: Sequence[str], minimum: int) -> None:
        if self._console.is_terminal:  # elsewhere it may be kept as a log
            for text, label in found.first:
                short = " ".join(text.split())
                short = short if len(short) <= _ROW_CHARS else f"{short[: _ROW_CHARS - 1]}…"
                self.print(f"    {label}: {short}")
        table = Table(box=None, pad_edge=False)
        for name in ("label", "rows", ""):
            table.add_column(name, justify="right" if name == "rows" else "left")
        for label, rows in found.labels.items():
            notes = []
            if label in found.spellings:
                notes.append(f"also written {', '.join(found.spellings[label])}")
            if label in rare:
                notes.append(
                    f"left out: {found.different[label]} different messages, and a label needs "
                    f"{minimum} (--minimum-per-label)"
                )
            table.add_row(escape(label), f"{rows:,}", escape("; ".join(notes)))
        self._console.print(table)
        dropped = {
            "without a message": found.empty,
            "without a label": found.unlabelled,
            "exact copies of another": found.copies,
        }
        listed = [f"{number:,} {what}" for what, number in dropped.items() if number]
        self.print(
            f"{found.rows_read:,} rows" + (f"; left out: {', '.join(listed)}" if listed else "")
        )
