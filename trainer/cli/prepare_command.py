"""``clerk-trainer prepare``: from an export to an immutable dataset."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, outcomes, show
from trainer.commands import command
from trainer.dataset.settings import Declared, PrepareSettings, declared_options, settings_of


def option_parameter(declared: Declared, panel: str | None = None) -> inspect.Parameter:
    """Return an option of ``prepare`` for a command's signature, under a heading of its help."""
    kind, default, option = declared.type, declared.default, declared.option
    if get_origin(kind) is tuple:
        kind = list[get_args(kind)[0]]  # type: ignore[misc]
        default = list(default) if default is not MISSING else default
    flag = typer.Option(
        declared.flag,
        help=option.help,
        min=option.least,
        metavar=option.metavar,
        rich_help_panel=panel,
    )
    return inspect.Parameter(
        declared.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if default is MISSING else default,
        annotation=Annotated[kind, flag],
    )


_AS_JSON = inspect.Parameter(
    "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AsJson
)


def prepare(*, as_json: bool = False, **given: Any) -> None:
    """Turn an export into an immutable dataset: cleaned, deduplicated, and split.

    Cleans messages as serving does, removes copies, finds near-duplicates and messages with several
    labels, and splits the rest into training, validation and a sealed hold-out. Each cluster of
    near-duplicates is in one of them. The hold-out is random, or the latest messages (--split
    time), or whole threads or customers (--split group): choose what serving will meet.

    Writes a folder with a manifest (dataset.json) and conflicts.csv, which you can fill in and pass
    to --decisions. It has no texts of the hold-out.

    Example: clerk-trainer prepare --input tickets.csv --taxonomy taxonomy.toml --out data/1

    Next: clerk-trainer check finds wrong labels; clerk-trainer report writes a page about both.
    """
    with outcomes():
        _prepare(settings_of(given), as_json=as_json)


def _prepare(settings: PrepareSettings, *, as_json: bool) -> None:
    from trainer.dataset.folder import count_openings, read_manifest
    from trainer.dataset.prepare import build, refuse_existing, write_prepared
    from trainer.report.dataset_facts import what_dataset_can_show

    out = settings.out
    refuse_existing(out)
    for folder in settings.earlier:
        read_manifest(folder)
    prepared = build(settings)
    dataset = write_prepared(prepared, settings)
    result = {
        "dataset": str(out),
        "name": dataset.name,
        "digest": dataset.digest,
        "sources": dataset.record["sources"],
        "splits": {
            name.removesuffix(".jsonl"): file["per_label"]
            for name, file in dataset.record["files"].items()
        },
        "split": dataset.record.get("split", {"by": "random"}),
        "names_redaction": dataset.record.get("names_redaction"),
        "languages": dataset.record["languages"],
        "counts": dataset.record["counts"],
        "notes": dataset.record["notes"],
        "examples": dataset.record["examples"],
        "holdout_openings": count_openings(dataset),
        "can_show": what_dataset_can_show(dataset.record),
    }
    show(result, lambda where: print_prepared(result, where), as_json=as_json)


# typer reads options from a signature; this one is built from the settings, which declare each
# option once.
prepare.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [*map(option_parameter, declared_options()), _AS_JSON]
)


def print_prepared(result: Mapping[str, Any], console: Console) -> None:
    """Print the result of ``prepare``."""
    from trainer.dataset.report import (
        cleaning_sentences,
        count_removed,
        language_sentence,
        split_sentences,
    )

    counts = result["counts"]
    for source in result["sources"]:
        guessed = [
            f"{field} from {source['columns'][field]!r}" for field in source["guessed_columns"]
        ]
        taken = f" (took {', '.join(guessed)})" if guessed else ""
        console.print(
            f"Read {source['rows']:,} rows of {source['name']} ({source['found']}){taken}.",
            markup=False,
        )
    for note in result["notes"]:
        console.print(f"  {note}", markup=False)
    table = Table("label", box=None, pad_edge=False)
    columns = result["splits"] | {"surplus": counts["surplus"]}
    for name in columns:
        table.add_column(name, justify="right")
    for label in result["splits"]["train"]:
        table.add_row(escape(label), *(f"{column.get(label, 0):,}" for column in columns.values()))
    totals = (f"{sum(column.values()):,}" for column in columns.values())
    table.add_row("all", *totals, style="bold")
    console.print()
    console.print(table)
    console.print()
    left_out = [f"{why}: {count:,}" for why, count in count_removed(counts).items() if count]
    console.print("; ".join([f"Rows read: {counts['rows_read']:,}", *left_out]) + ".", markup=False)
    if counts["conflicts"]["messages"] or counts["near_clusters"]["with_several_labels"]:
        console.print("Messages with several labels are in conflicts.csv: decide on them there.")
    if counts["unlabelled"].get("review"):
        console.print("Messages to label are in unlabelled.csv: fill it in for --decisions.")
    told = (*split_sentences(result), language_sentence(result), *cleaning_sentences(result))
    for sentence in told:
        console.print(sentence, markup=False)
    if opened := result["holdout_openings"]:
        console.print(
            f"This hold-out was opened {opened:,} times in earlier versions; these still count.",
            markup=False,
        )
    for sentence in result["can_show"]:
        console.print(sentence, markup=False, soft_wrap=True)
    console.print(
        f"Dataset {result['dataset']}, digest {result['digest'][:16]}.\n"
        f"As a page: {command('report', result['dataset'])}\n"
        f"Next: {command('check', result['dataset'])}",
        markup=False,
        soft_wrap=True,
    )
