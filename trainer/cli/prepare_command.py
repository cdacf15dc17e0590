"""``clerk-trainer prepare``: from an export to an immutable dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

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
    inputs: Annotated[
        list[Path],
        typer.Option(
            "--input",
            metavar="PATH",
            help="An export: .csv, .tsv, .jsonl, .parquet or .xlsx, or the folder of a saved "
            "Hugging Face dataset (FOLDER/SPLIT where it has several splits). Repeatable.",
        ),
    ],
    taxonomy: Annotated[Path, typer.Option(help="The fixed set of labels, a TOML file.")],
    out: Annotated[Path, typer.Option(help="Folder to make; must not exist, or be empty.")],
    name: Annotated[
        str | None, typer.Option(help="Name of the dataset [default: the taxonomy's].")
    ] = None,
    message_column: Annotated[
        str | None, typer.Option(help="Column of the message [default: message, else a guess].")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option(help="Column of the label [default: label, else a guess].")
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of the id [default: id, else made from the text].")
    ] = None,
    sublabel_column: Annotated[
        str | None, typer.Option(help="Column of a finer label [default: sublabel, else none].")
    ] = None,
    encoding: Annotated[
        str, typer.Option(help="Encoding of text files; a byte that does not fit is an error.")
    ] = "utf-8",
    delimiter: Annotated[
        str | None, typer.Option(help="Delimiter of CSV files [default: found in the header].")
    ] = None,
    sheet: Annotated[
        str | None, typer.Option(help="Sheet of .xlsx workbooks [default: the only one].")
    ] = None,
    label_map: Annotated[
        Path | None,
        typer.Option(help="Raw label to taxonomy label: .toml, .json, or .csv of two columns."),
    ] = None,
    decisions: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A review queue that a person filled in. Repeatable.",
        ),
    ] = None,
    strip_signatures: Annotated[
        bool, typer.Option(help="Remove mail signatures. Serving does not.")
    ] = False,
    strip_quotes: Annotated[
        bool, typer.Option(help="Remove quoted earlier mails. Serving does not.")
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(help="Redact mail addresses, phone numbers, cards, IBANs; serving will too."),
    ] = False,
    empty: Annotated[OnBad, typer.Option(help="What to do with an empty message.")] = OnBad.ERROR,
    too_long: Annotated[
        OnBad, typer.Option(help="What to do with a message over --max-message-bytes.")
    ] = OnBad.ERROR,
    max_message_bytes: Annotated[int, typer.Option(min=1, help="Limit, bytes of UTF-8.")] = 1 << 20,
    conflicts: Annotated[
        ConflictPolicy,
        typer.Option(help="What to do with a message that occurs under several labels."),
    ] = ConflictPolicy.DROP,
    near_duplicates: Annotated[
        NearDuplicates, typer.Option(help="What to do with near-duplicates in the training set.")
    ] = NearDuplicates.KEEP,
    similarity: Annotated[
        float,
        typer.Option(
            min=0.3,
            max=1.0,
            help="Similarity from which two messages are near-duplicates: the Jaccard index of "
            "their four-letter shingles.",
        ),
    ] = SIMILARITY,
    holdout: Annotated[
        Path | None,
        typer.Option(help="A hold-out of your own, instead of one taken from the input."),
    ] = None,
    validation_share: Annotated[
        float, typer.Option(help="Share of each label for validation, 0 to 1.")
    ] = 0.08,
    holdout_share: Annotated[
        float, typer.Option(help="Share of each label for the hold-out, 0 to 1.")
    ] = 0.15,
    per_label: Annotated[
        int | None,
        typer.Option(
            min=1, help="Most training examples of each label; the rest go to surplus.jsonl."
        ),
    ] = None,
    minimum_per_label: Annotated[
        int, typer.Option(min=3, help="Fewest different messages that each label needs.")
    ] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
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
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.dataset.build import build
        from trainer.dataset.write import refuse_existing, write_prepared

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
