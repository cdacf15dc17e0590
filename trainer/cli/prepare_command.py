"""``clerk-trainer prepare``: from an export to an immutable dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from trainer.cli import prepare_options as options
from trainer.cli.prepare_output import tell_prepared
from trainer.cli.shared import AsJson, make_console, outcomes, show
from trainer.dataset.settings import (
    ConflictPolicy,
    NearDuplicates,
    OnBad,
    PrepareSettings,
    SplitBy,
)
from trainer.similarity import SIMILARITY


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
    split: options.Split = SplitBy.RANDOM,
    time_column: options.TimeColumn = None,
    group_column: options.GroupColumn = None,
    language_column: options.LanguageColumn = None,
    source_column: options.SourceColumn = None,
    encoding: options.Encoding = "utf-8",
    delimiter: options.Delimiter = None,
    sheet: options.Sheet = None,
    label_map: options.LabelMap = None,
    decisions: options.Decisions = None,
    strip_signatures: options.StripSignatures = False,
    strip_quotes: options.StripQuotes = False,
    redact: options.Redact = False,
    redact_names: options.RedactNames = None,
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
    earlier: options.Earlier = None,
    label_source: options.Labelled = options.LabelledBy.EXPORT,
    as_json: AsJson = False,
) -> None:
    """Turn an export into an immutable dataset: clean, without duplicates, split, and counted.

    Cleans messages as serving does, removes copies, finds near-duplicates and messages under
    several labels, and splits the rest into training, validation and a sealed hold-out, each
    cluster of near-duplicates in one of them. The hold-out is drawn at random, or is what came last
    (--split time), or whole threads or customers (--split group): take what serving will meet.
    Writes a folder with a manifest (dataset.json), report.md for people, and conflicts.csv, which a
    person can fill in and give back with --decisions; texts of the hold-out are not in it.

    Example: clerk-trainer prepare --input tickets.csv --taxonomy taxonomy.toml --out data/1

    Next: clerk-trainer check, which looks for wrong labels; clerk-trainer report draws a page of
    what both found.
    """
    given = dict(locals())
    with outcomes():
        _prepare(options.make_settings(given), as_json=as_json)


def _prepare(settings: PrepareSettings, *, as_json: bool) -> None:
    from trainer.dataset.build import build
    from trainer.dataset.folder import count_openings, read_manifest
    from trainer.dataset.write import refuse_existing, write_prepared

    console = make_console(as_json=as_json)
    out = settings.out
    refuse_existing(out)
    for folder in settings.earlier:
        read_manifest(folder)
    with _progress(console) as on_progress:
        prepared = build(settings, on_progress)
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
        "counts": dataset.record["counts"],
        "holdout_openings": count_openings(dataset),
        "report": str(out / "report.md"),
    }
    show(result, console, lambda where: tell_prepared(result, where), as_json=as_json)


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

        def on_progress(stage: str, size: int) -> Callable[[int], None]:
            task = progress.add_task(stage, total=size)
            return lambda done: progress.advance(task, done)

        yield on_progress
