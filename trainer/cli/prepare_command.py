"""``clerk-trainer prepare``: from an export to an immutable dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trainer.cli import prepare_options as options
from trainer.cli.shared import AsJson, make_console, outcomes, show
from trainer.dataset.readers import ColumnNames
from trainer.dataset.settings import (
    SIMILARITY,
    ConflictPolicy,
    NearDuplicates,
    OnBad,
    PrepareSettings,
)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("prepare")(prepare)


def prepare(
    *,
    inputs: options.Inputs,
    taxonomy: options.TaxonomyFile,
    out: options.Out,
    name: options.Name = None,
    message_column: options.MessageColumn = None,
    label_column: options.LabelColumn = None,
    id_column: options.IdColumn = None,
    sublabel_column: options.SublabelColumn = None,
    encoding: options.Encoding = "utf-8",
    delimiter: options.Delimiter = None,
    sheet: options.Sheet = None,
    label_map: options.LabelMap = None,
    decisions: options.Decisions = None,
    strip_signatures: options.StripSignatures = False,
    strip_quotes: options.StripQuotes = False,
    redact: options.Redact = False,
    empty: options.Empty = OnBad.ERROR,
    too_long: options.TooLong = OnBad.ERROR,
    max_message_bytes: options.MaxMessageBytes = 1 << 20,
    conflicts: options.Conflicts = ConflictPolicy.DROP,
    near_duplicates: options.NearDuplicatePolicy = NearDuplicates.KEEP,
    similarity: options.Similarity = SIMILARITY,
    holdout: options.HoldoutFile = None,
    validation_share: options.ValidationShare = 0.08,
    holdout_share: options.HoldoutShare = 0.15,
    per_label: options.PerLabel = None,
    minimum_per_label: options.MinimumPerLabel = 10,
    seed: options.Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Turn an export into an immutable dataset: clean, without duplicates, split, and counted.

    Reads messages with their labels, cleans them as serving does, removes copies, finds
    near-duplicates and messages under several labels, and splits the rest into training,
    validation and a sealed hold-out, each cluster of near-duplicates in one of them. Writes a
    folder with a manifest (dataset.json), report.md for people, surplus.jsonl for what --per-label
    left out, and conflicts.csv, which a person can fill in and give back with --decisions.

    Example: clerk-trainer prepare --input tickets.csv --label-column category
    --taxonomy taxonomy.toml --per-label 364 --out data/tickets-1

    Next: clerk-trainer check, which looks for wrong labels.
    """
    with outcomes():
        settings = PrepareSettings(
            inputs=tuple(inputs),
            taxonomy=taxonomy,
            out=out,
            name=name,
            columns=ColumnNames(message_column, label_column, id_column, sublabel_column),
            encoding=encoding,
            delimiter="\t" if delimiter in {"\\t", "tab"} else delimiter,
            sheet=sheet,
            label_map=label_map,
            decisions=tuple(decisions or ()),
            holdout=holdout,
            strip_quotes=strip_quotes,
            strip_signatures=strip_signatures,
            redact=redact,
            empty=empty,
            too_long=too_long,
            max_message_bytes=max_message_bytes,
            conflicts=conflicts,
            near_duplicates=near_duplicates,
            similarity=similarity,
            validation_share=validation_share,
            holdout_share=holdout_share,
            per_label=per_label,
            minimum_per_label=minimum_per_label,
            seed=seed,
        )
        _prepare(settings, as_json=as_json)


def _prepare(settings: PrepareSettings, *, as_json: bool) -> None:
    from trainer.dataset.build import build
    from trainer.dataset.write import refuse_existing, write_prepared

    console = make_console(as_json=as_json)
    out = settings.out
    refuse_existing(out)
    with _progress(console) as watch:
        prepared = build(settings, watch)
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
        "counts": dataset.record["counts"],
        "report": str(out / "report.md"),
    }
    show(result, console, lambda where: _tell(result, where), as_json=as_json)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Show one bar a stage, on standard error: standard output is for the result."""
    with Progress(
        TextColumn("{task.description:8}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not console.is_terminal,
    ) as progress:

        def watch(stage: str, size: int) -> Callable[[int], None]:
            task = progress.add_task(stage, total=size)
            return lambda done: progress.advance(task, done)

        yield watch


def _tell(result: Mapping[str, Any], console: Console) -> None:
    counts = result["counts"]
    for source in result["sources"]:
        guessed = [
            f"{field} from {source['columns'][field]!r}" for field in source["guessed_columns"]
        ]
        taken = f" (took {', '.join(guessed)})" if guessed else ""
        console.print(f"Read {source['rows']:,} rows of {source['name']}{taken}.", markup=False)
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
    for sentence in _sentences(counts):
        console.print(sentence, markup=False)
    console.print(
        f"Dataset {result['dataset']}, digest {result['digest'][:16]}.\n"
        f"Read {result['report']}, then: clerk-trainer check.",
        markup=False,
        soft_wrap=True,
    )


def _sentences(counts: Mapping[str, Any]) -> Iterator[str]:
    """Say what became of the rows, and nothing about what did not happen."""
    near, conflicts = counts["near_clusters"], counts["conflicts"]
    held, decisions = counts["holdout_copies_removed"], counts["decisions"]
    made = {word: decisions[word] for word in ("accept", "relabel", "drop") if word in decisions}
    if made or decisions["undecided"]:
        listed = ", ".join(f"{count:,} {word}" for word, count in made.items())
        yield f"Decisions: {listed or 'none'}; {decisions['undecided']:,} undecided."
    if dropped := counts["empty_dropped"] + counts["too_long_dropped"]:
        yield f"Dropped {dropped:,} rows whose message is empty or too long."
    if redacted := counts["redacted"]:
        yield f"Redacted {', '.join(f'{count:,} {kind}' for kind, count in redacted.items())}."
    yield (
        f"Removed {counts['exact_duplicates_removed']:,} exact duplicates, and "
        f"{conflicts['rows_left_out']:,} rows because their message has several labels."
    )
    if held["exact"] or held["near"]:
        yield (
            f"Removed {held['exact']:,} copies and {held['near']:,} near-copies of hold-out "
            f"messages; {held['exact_with_another_label']:,} copies had another label there."
        )
    yield (
        f"{near['messages']:,} messages are near-duplicates, in {near['clusters']:,} clusters, "
        f"each whole in one split; {near['with_several_labels']:,} clusters hold several labels."
    )
    if conflicts["messages"] or near["with_several_labels"]:
        yield "What has several labels is in conflicts.csv, for a person to decide."
