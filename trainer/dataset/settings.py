"""The options of ``clerk-trainer prepare``, each declared once.

A field is an option: its name is the flag, its type the values, its ``Option`` the help. The
command line (``trainer.cli.prepare_command``) is generated from them, and so are the manifest's
``settings`` and ``options``, the command line that makes the dataset again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

from worker.contract.exchange import LabelSource


class ConflictPolicy(StrEnum):
    """How to treat a message that occurs under several labels."""

    DROP = "drop"
    KEEP_MAJORITY = "keep-majority"


class OnBroken(StrEnum):
    """How to treat a row that cannot be read."""

    ERROR = "error"
    DROP = "drop"


class OnUnknown(StrEnum):
    """How to treat a label that is not in the taxonomy, or is missing."""

    ERROR = "error"
    DROP = "drop"
    REVIEW = "review"


class SplitBy(StrEnum):
    """What decides which messages are held out."""

    RANDOM = "random"
    TIME = "time"
    GROUP = "group"


class Option(NamedTuple):
    """``help`` and smallest value of an option, and whether it is part of the dataset's digest
    (``shapes``). Input files are in the digest by their content."""

    help: str
    least: int | None = None
    shapes: bool = False
    metavar: str | None = None
    flag: str | None = None


class Declared(NamedTuple):
    """A field as an option: ``name`` of the argument, ``default`` (MISSING if required), and
    ``flag`` with its two dashes."""

    name: str
    flag: str
    type: Any
    default: Any
    option: Option


@dataclass(frozen=True, slots=True)
class ColumnNames:
    """Column names as given. None stands for the usual name or a guess; for ``time``, ``group``,
    and ``language`` it stands for no column."""

    message: Annotated[
        str | None, Option("Column of the message [default: a guess by name and content].")
    ] = None
    label: Annotated[
        str | None, Option("Column of the label [default: a guess by name and content].")
    ] = None
    id: Annotated[
        str | None, Option("Column of the id [default: a guess, else made from the text].")
    ] = None
    sublabel: Annotated[
        str | None, Option("Column of a finer label [default: sublabel, else none].")
    ] = None
    time: Annotated[
        str | None,
        Option(
            "Column of the message's time, for --split time: ISO 8601, or seconds or milliseconds "
            "since 1970."
        ),
    ] = None
    group: Annotated[
        str | None,
        Option(
            "Column of the thread or customer, for --split group; with --split time earlier "
            "messages of a held-out group are left out."
        ),
    ] = None
    language: Annotated[
        str | None,
        Option("Column of the language: each split gets messages of each, if possible."),
    ] = None
    source: Annotated[
        str | None,
        Option(
            "Column of the label's source: export, person or teacher [default: label_source, else "
            "none]. Empty cells: see --label-source."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """All options of ``prepare``."""

    inputs: Annotated[
        tuple[Path, ...],
        Option(
            "An export: .csv, .tsv, .jsonl (also chats of a fine-tune), .parquet or .xlsx, or the "
            "folder of a saved Hugging Face dataset (FOLDER/SPLIT where it has several splits). "
            "Repeatable.",
            metavar="PATH",
            flag="--input",
        ),
    ]
    taxonomy: Annotated[Path, Option("The fixed set of labels, a TOML file.")]
    out: Annotated[Path, Option("Folder to make; must not exist, or be empty.")]
    columns: ColumnNames = field(default_factory=ColumnNames)
    encoding: Annotated[
        str | None,
        Option("Encoding of all files [default: detected for each file]."),
    ] = None
    sheet: Annotated[
        str | None, Option("Sheet of .xlsx workbooks [default: the only one with a table].")
    ] = None
    label_map: Annotated[
        Path | None,
        Option("Raw label to taxonomy label: .toml, .json, or .csv of two columns."),
    ] = None
    label_source: Annotated[
        LabelSource, Option("Where the labels of --input come from.", shapes=True)
    ] = "export"
    decisions: Annotated[
        tuple[Path, ...],
        Option("A review queue that a reviewer filled in. Repeatable.", metavar="FILE"),
    ] = ()
    strip_quotes: Annotated[
        bool, Option("Remove quoted earlier mails. Serving does not.", shapes=True)
    ] = False
    strip_signatures: Annotated[
        bool, Option("Remove mail signatures. Serving does not.", shapes=True)
    ] = False
    redact: Annotated[
        bool,
        Option("Redact mail addresses, phone numbers, cards, IBANs, in serving too.", shapes=True),
    ] = False
    redact_names: Annotated[
        str | None,
        Option(
            "Redact people's names as [name], by Presidio (the extra 'presidio') with a spaCy "
            "model, by name or folder, or a Presidio analyzer configuration (.yaml). Serving does "
            "not.",
            metavar="MODEL",
        ),
    ] = None
    broken_rows: Annotated[
        OnBroken,
        Option(
            "What to do with a row that cannot be read: wrong quotes or number of cells, a line "
            "that is not JSON, a value that its column cannot hold.",
            shapes=True,
        ),
    ] = OnBroken.ERROR
    unknown_label: Annotated[
        OnUnknown,
        Option(
            "What to do with a label that is missing or not in the taxonomy; review writes these "
            "messages to unlabelled.csv, to fill in for --decisions.",
            shapes=True,
        ),
    ] = OnUnknown.ERROR
    conflicts: Annotated[
        ConflictPolicy,
        Option("What to do with a message that occurs under several labels.", shapes=True),
    ] = ConflictPolicy.DROP
    split: Annotated[
        SplitBy,
        Option(
            "What is held out: random, a share of each label; time, the latest messages (with "
            "those before them for validation); group, whole threads or customers.",
            shapes=True,
        ),
    ] = SplitBy.RANDOM
    holdout: Annotated[
        Path | None, Option("A file with the hold-out, instead of a share of the input.")
    ] = None
    after: Annotated[
        Path | None,
        Option(
            "The dataset of an earlier month, or the folder of its clerk-trainer start: its "
            "hold-out stays held out, and grows by that share of the messages that it had not.",
            metavar="LAST",
        ),
    ] = None
    holdout_share: Annotated[
        float, Option("Share of each label for the hold-out, 0 to 1.", shapes=True)
    ] = 0.15
    validation_share: Annotated[
        float, Option("Share of each label for validation, 0 to 1.", shapes=True)
    ] = 0.08
    per_label: Annotated[
        int | None,
        Option(
            "Most training examples of each label; the rest go to surplus.jsonl.",
            least=1,
            shapes=True,
        ),
    ] = None
    minimum_per_label: Annotated[
        int, Option("Fewest different messages that each label needs.", least=3, shapes=True)
    ] = 10
    seed: Annotated[int, Option("Seed of the split.", shapes=True)] = 0
    earlier: Annotated[
        tuple[Path, ...],
        Option(
            "An earlier dataset that is not next to --out: if it has the same hold-out, its "
            "openings are counted too. Repeatable.",
            metavar="DATASET",
        ),
    ] = ()

    @property
    def after_dataset(self) -> Path | None:
        """The folder of the dataset of ``after``."""
        if self.after is None or (self.after / "dataset.json").is_file():
            return self.after
        return self.after / "data"

    @property
    def given_holdout(self) -> Path | None:
        """The file with messages that are held out in any case."""
        return self.after_dataset / "holdout.jsonl" if self.after_dataset else self.holdout

    def options(self) -> list[list[str]]:
        """Return the options that differ from their defaults, each with its value, if any: the
        command line that makes the dataset again, without ``--out``."""
        words: list[list[str]] = []
        for declared in declared_options():
            value = self._value(declared)
            if declared.name == "out" or value == declared.default:
                continue
            each = value if isinstance(value, tuple) else [value]
            words += [[declared.flag] if one is True else [declared.flag, str(one)] for one in each]
        return words

    def describe(self) -> dict[str, Any]:
        """Return the options that shape the dataset, for its manifest (JSON)."""
        values = {
            declared.name: self._value(declared)
            for declared in declared_options()
            if declared.option.shapes
        }
        described = {
            name: value.value if isinstance(value, Enum) else value
            for name, value in values.items()
        }
        return described | ({"holdout_share": None} if self.holdout else {})

    def _value(self, declared: Declared) -> Any:
        column = declared.name.removesuffix("_column")
        return getattr(self.columns if column != declared.name else self, column)


def declared_options(settings: type = PrepareSettings, suffix: str = "") -> Iterator[Declared]:
    """Yield the options in the order of their fields; those of ``ColumnNames`` end in
    ``_column``."""
    types = get_type_hints(settings, include_extras=True)
    for each in fields(settings):
        kind = types[each.name]
        if kind is ColumnNames:
            yield from declared_options(ColumnNames, "_column")
            continue
        option = next(one for one in kind.__metadata__ if isinstance(one, Option))
        name = each.name + suffix
        flag = option.flag or f"--{name.replace('_', '-')}"
        yield Declared(name, flag, kind.__origin__, each.default, option)


def settings_of(given: dict[str, Any]) -> PrepareSettings:
    """Return the settings from arguments by name; lists become tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }
    columns = {each.name: values.pop(f"{each.name}_column") for each in fields(ColumnNames)}
    return PrepareSettings(columns=ColumnNames(**columns), **values)
