"""What the user asked of ``prepare``."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

from trainer.dataset.columns import ColumnNames
from trainer.similarity import SIMILARITY
from worker.contract.circle import LabelSource


class ConflictPolicy(StrEnum):
    """What becomes of a message that occurs under several labels."""

    DROP = "drop"
    KEEP_MAJORITY = "keep-majority"
    ERROR = "error"


class OnBad(StrEnum):
    """What becomes of a message that cannot be used."""

    ERROR = "error"
    DROP = "drop"


class NearDuplicates(StrEnum):
    """What becomes of near-duplicates within the training set."""

    KEEP = "keep"
    DROP = "drop"


class SplitBy(StrEnum):
    """What decides who is held out."""

    RANDOM = "random"
    TIME = "time"
    GROUP = "group"


@dataclass(frozen=True, slots=True)
class PrepareSettings:
    """Every setting of a dataset. Sizes are in bytes of UTF-8, shares and similarity are 0 to 1.

    ``redact_names`` is a spaCy model or a Presidio configuration (see ``names``). ``earlier`` are
    datasets whose openings count on where the hold-out is the same; they have no part in what the
    dataset holds. ``label_source`` is where the labels of ``inputs`` come from.
    """

    inputs: tuple[Path, ...]
    taxonomy: Path
    out: Path
    name: str | None = None
    columns: ColumnNames = field(default_factory=ColumnNames)
    encoding: str = "utf-8"
    delimiter: str | None = None
    sheet: str | None = None
    label_map: Path | None = None
    decisions: tuple[Path, ...] = ()
    holdout: Path | None = None
    split: SplitBy = SplitBy.RANDOM
    strip_quotes: bool = False
    strip_signatures: bool = False
    redact: bool = False
    redact_names: str | None = None
    empty: OnBad = OnBad.ERROR
    too_long: OnBad = OnBad.ERROR
    max_message_bytes: int = 1 << 20
    conflicts: ConflictPolicy = ConflictPolicy.DROP
    near_duplicates: NearDuplicates = NearDuplicates.KEEP
    similarity: float = SIMILARITY
    validation_share: float = 0.08
    holdout_share: float = 0.15
    per_label: int | None = None
    minimum_per_label: int = 10
    seed: int = 0
    earlier: tuple[Path, ...] = ()
    label_source: LabelSource = "export"

    def options(self) -> list[list[str]]:
        """Return the command's options that differ from their defaults, each with its value if it
        takes one, for ``clerk-trainer prepare`` to be given again; without ``--out``."""
        given: list[tuple[str, Any]] = [("input", path) for path in self.inputs]
        given.append(("taxonomy", self.taxonomy))
        for name, column in asdict(self.columns).items():
            given.append((f"{name}-column", column))
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if field_.name in {"inputs", "taxonomy", "out", "columns"} or value == field_.default:
                continue
            name = field_.name.replace("_", "-")
            given += [(name, each) for each in (value if isinstance(value, tuple) else [value])]
        return [
            [f"--{name}"] if value is True else [f"--{name}", _word(value)]
            for name, value in given
            if value is not None
        ]

    def describe(self) -> dict[str, Any]:
        """Return what shaped the dataset, for its manifest; files and what redacts names are
        described elsewhere. A random split and labels of the export are not named, so that the same export has the digest that it had before there were others."""
        return {
            **({"split": self.split.value} if self.split is not SplitBy.RANDOM else {}),
            **({"label_source": self.label_source} if self.label_source != "export" else {}),
            "strip_quotes": self.strip_quotes,
            "strip_signatures": self.strip_signatures,
            "redact": self.redact,
            "empty": self.empty.value,
            "too_long": self.too_long.value,
            "max_message_bytes": self.max_message_bytes,
            "conflicts": self.conflicts.value,
            "near_duplicates": self.near_duplicates.value,
            "similarity": self.similarity,
            "validation_share": self.validation_share,
            "holdout_share": None if self.holdout else self.holdout_share,
            "per_label": self.per_label,
            "minimum_per_label": self.minimum_per_label,
            "seed": self.seed,
        }


def _word(value: object) -> str:
    """Write an option's value as the command line takes it."""
    return "tab" if value == "\t" else str(value)
