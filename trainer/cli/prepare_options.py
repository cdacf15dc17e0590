"""The options of ``clerk-trainer prepare``, with their help, and the settings they make."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.dataset.columns import ColumnNames
from trainer.dataset.settings import (
    ConflictPolicy,
    NearDuplicates,
    OnBad,
    PrepareSettings,
    SplitBy,
)


class LabelledBy(StrEnum):
    """Where labels come from."""

    EXPORT = "export"
    PERSON = "person"
    TEACHER = "teacher"


Inputs = Annotated[
    list[Path],
    typer.Option(
        "--input",
        metavar="PATH",
        help="An export: .csv, .tsv, .jsonl, .parquet or .xlsx, or the folder of a saved Hugging "
        "Face dataset (FOLDER/SPLIT where it has several splits). Repeatable.",
    ),
]
TaxonomyFile = Annotated[Path, typer.Option(help="The fixed set of labels, a TOML file.")]
Out = Annotated[Path, typer.Option(help="Folder to make; must not exist, or be empty.")]
Name = Annotated[str | None, typer.Option(help="Name of the dataset [default: the taxonomy's].")]
Seed = Annotated[int, typer.Option(help="Seed of the split.")]

# How an export is read.
MessageColumn = Annotated[
    str | None, typer.Option(help="Column of the message [default: message, else a guess].")
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column of the label [default: label, else a guess].")
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column of the id [default: id, else made from the text].")
]
SublabelColumn = Annotated[
    str | None, typer.Option(help="Column of a finer label [default: sublabel, else none].")
]
Split = Annotated[
    SplitBy,
    typer.Option(
        help="Who is held out: random, each label by its share; time, what came last (validation "
        "is what came before it); group, whole threads or customers."
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the time at which a message came, for --split time: ISO 8601, or seconds "
        "or milliseconds since 1970."
    ),
]
GroupColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of the thread or customer, for --split group; with --split time earlier "
        "messages of a held-out group are left out."
    ),
]
LanguageColumn = Annotated[
    str | None,
    typer.Option(help="Column of the language: each is kept in every part, as far as it can."),
]
SourceColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of where a row's label comes from: export, person or teacher; label_source in "
        "the desk's export. Empty: as --label-source says."
    ),
]
Encoding = Annotated[
    str,
    typer.Option(
        help="Encoding of exports, and of decisions and label maps that are not UTF-8; a byte that "
        "does not fit is an error."
    ),
]
Delimiter = Annotated[
    str | None, typer.Option(help="Delimiter of CSV files [default: found in the header].")
]
Sheet = Annotated[
    str | None, typer.Option(help="Sheet of .xlsx workbooks [default: the only one].")
]
LabelMap = Annotated[
    Path | None,
    typer.Option(help="Raw label to taxonomy label: .toml, .json, or .csv of two columns."),
]
Labelled = Annotated[
    LabelledBy,
    typer.Option("--label-source", help="Where the labels of --input come from."),
]
Decisions = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="A review queue that a person filled in. Repeatable."),
]

# What becomes of messages.
StripSignatures = Annotated[bool, typer.Option(help="Remove mail signatures. Serving does not.")]
StripQuotes = Annotated[bool, typer.Option(help="Remove quoted earlier mails. Serving does not.")]
Redact = Annotated[
    bool,
    typer.Option(help="Redact mail addresses, phone numbers, cards, IBANs; serving will too."),
]
RedactNames = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL",
        help="Redact names of people as [name], by Presidio (the extra 'presidio') with a spaCy "
        "model of yours, its name or its folder, or a Presidio analyzer configuration (.yaml). "
        "Serving does not.",
    ),
]
Empty = Annotated[OnBad, typer.Option(help="What to do with an empty message.")]
TooLong = Annotated[OnBad, typer.Option(help="What to do with a message over --max-message-bytes.")]
MaxMessageBytes = Annotated[int, typer.Option(min=1, help="Limit, bytes of UTF-8.")]
Conflicts = Annotated[
    ConflictPolicy,
    typer.Option(help="What to do with a message that occurs under several labels."),
]
NearDuplicatePolicy = Annotated[
    NearDuplicates, typer.Option(help="What to do with near-duplicates in the training set.")
]
Similarity = Annotated[
    float,
    typer.Option(
        min=0.3,
        max=1.0,
        help="Similarity from which two messages are near-duplicates: the Jaccard index of "
        "their four-letter shingles.",
    ),
]

# How they are split.
HoldoutFile = Annotated[
    Path | None,
    typer.Option(help="A hold-out of your own, instead of one taken from the input."),
]
ValidationShare = Annotated[float, typer.Option(help="Share of each label for validation, 0 to 1.")]
HoldoutShare = Annotated[float, typer.Option(help="Share of each label for the hold-out, 0 to 1.")]
PerLabel = Annotated[
    int | None,
    typer.Option(min=1, help="Most training examples of each label; the rest go to surplus.jsonl."),
]
Earlier = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DATASET",
        help="An earlier dataset that is not beside --out: if its hold-out is the same, its "
        "openings count on. Repeatable.",
    ),
]
MinimumPerLabel = Annotated[
    int, typer.Option(min=3, help="Fewest different messages that each label needs.")
]


def make_settings(given: Mapping[str, Any]) -> PrepareSettings:
    """Return the settings that the command's arguments make: ``given`` maps their names to values.

    A column's option is called ``message_column`` where the field of ``ColumnNames`` is
    ``message``; all others have the name of their field in ``PrepareSettings``.
    """
    columns = {field.name: given[f"{field.name}_column"] for field in fields(ColumnNames)}
    plain = {
        field.name: given[field.name]
        for field in fields(PrepareSettings)
        if field.name != "columns"
    }
    plain["label_source"] = str(given["label_source"].value)
    several = {name: tuple(plain[name] or ()) for name in ("inputs", "decisions", "earlier")}
    tab = {"delimiter": "\t"} if given["delimiter"] in {"\\t", "tab"} else {}
    return PrepareSettings(columns=ColumnNames(**columns), **(plain | several | tab))
