"""Which row goes into which split, once it is known what has to stay together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trainer.dataset.by_time import NEAR_HOLDOUT, NEAR_VALIDATION, moment
from trainer.dataset.folder import HOLDOUT, SPLITS, TRAIN, VALIDATION, Example, Row
from trainer.dataset.settings import PrepareSettings
from trainer.dataset.split import Split, cap_per_label

_OUT_OF_TIME = "left out, its label was given before the part it is in"


@dataclass(frozen=True, slots=True)
class FilledSplits:
    """Rows and examples by split; ``surplus`` is what ``per_label`` left out, ``near_holdout`` how
    many rows were too like the user's own hold-out, ``counts`` (JSON) what became of the others."""

    rows: dict[str, list[Row]]
    splits: dict[str, tuple[Example, ...]]
    surplus: tuple[Example, ...]
    near_holdout: int
    counts: dict[str, Any]


def fill_splits(
    rows: Sequence[Row],
    held: Sequence[Row],
    split: Split,
    settings: PrepareSettings,
) -> FilledSplits:
    """Put each row into its split; ``held`` are those of the user's own hold-out."""
    places = (TRAIN, VALIDATION, HOLDOUT, NEAR_HOLDOUT, NEAR_VALIDATION, _OUT_OF_TIME)
    placed: dict[str, list[Row]] = {place: [] for place in places}
    placed[HOLDOUT] += held
    for row in rows:
        placed[_place(row, split)].append(row)
    placed[TRAIN], surplus = cap_per_label(placed[TRAIN], settings.per_label, seed=settings.seed)
    splits = {name: _examples(placed[name]) for name in SPLITS}
    counts: dict[str, Any] = {
        "surplus": dict(Counter(row.label for row in surplus)),
        "splits": {name: len(examples) for name, examples in splits.items()},
    }
    if split.cuts is not None:
        counts["near_validation_removed"] = len(placed[NEAR_VALIDATION])
        counts["out_of_time_removed"] = len(placed[_OUT_OF_TIME])
    near_holdout = len(placed[NEAR_HOLDOUT])
    return FilledSplits(
        {name: placed[name] for name in SPLITS}, splits, _examples(surplus), near_holdout, counts
    )


def _place(row: Row, split: Split) -> str:
    """Return where a row goes. A message that came in two parts of the time is in the later one;
    where people or a majority chose the label of the earlier time, the row is in neither."""
    place = split.of[row.key]
    in_time = split.cuts is None or place not in SPLITS or split.cuts.side_of(moment(row)) == place
    return place if in_time else _OUT_OF_TIME


def _examples(rows: Sequence[Row]) -> tuple[Example, ...]:
    """Return a split in the order of its ids: the order of lines in the export is no input."""
    return tuple(sorted((row.example for row in rows), key=lambda example: example.id))
