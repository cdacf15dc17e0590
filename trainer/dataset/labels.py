"""Raw labels of an export, the taxonomy's names, and whether every label has enough examples."""

from __future__ import annotations

import csv
import difflib
import io
import json
import tomllib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.dataset.folder import HOLDOUT, Example, Row
from trainer.dataset.text_files import read_edited
from trainer.errors import BadInput
from worker.contract import Taxonomy
from worker.contract.taxonomy import label_name


def read_label_map(path: Path, known: Sequence[str], encoding: str | None = None) -> dict[str, str]:
    """Read raw label -> taxonomy label from TOML, JSON, or a CSV of two columns without a header,
    both in the form of ``label_name``. ``encoding`` is the export's, for a file that is not UTF-8.

    Raises BadInput when a target is not in the taxonomy.
    """
    text = read_edited(path, encoding)
    try:
        table: Any = _PARSERS[path.suffix.casefold()](text)
    except KeyError as error:
        raise BadInput(f"{path}: a label map is a .toml, .json or .csv file") from error
    except (ValueError, csv.Error) as error:
        raise BadInput(f"{path.name}: cannot read the label map: {error}") from error
    if not isinstance(table, dict) or not all(isinstance(target, str) for target in table.values()):
        raise BadInput(f'{path.name}: a label map is lines of "raw label" = "taxonomy label"')
    named = {label_name(raw): label_name(target) for raw, target in table.items()}
    for raw, target in named.items():
        if target not in known:
            raise BadInput(
                f"{path.name}: {raw!r} maps to the unknown label {target!r}"
                f"{suggest_label(target, known)}"
            )
    return named


def map_labels(rows: Iterable[Row], table: Mapping[str, str]) -> list[Row]:
    """Return the rows with mapped labels; a label that the map does not name stays."""
    return [replace(row, label=table.get(row.label, row.label)) for row in rows]


def refuse_unknown(rows: Iterable[Row], known: Sequence[str]) -> None:
    """Raise BadInput that counts each label which is not in the taxonomy and names the nearest
    one that is."""
    unknown = Counter(row.label for row in rows if row.label not in known)
    if not unknown:
        return
    listed = [
        f"{label!r} ({count} rows{suggest_label(label, known)})"
        if label
        else f"no label ({count} rows)"
        for label, count in unknown.most_common(10)
    ]
    more = f", and {len(unknown) - 10} more" if len(unknown) > 10 else ""
    raise BadInput(
        f"labels that are not in the taxonomy: {', '.join(listed)}{more}: "
        "translate them with --label-map, or add them to the taxonomy"
    )


def refuse_small(rows: Sequence[Row], taxonomy: Taxonomy, minimum: int) -> None:
    """Raise BadInput when there is one label only, or one with too few different messages."""
    counts = Counter(row.label for row in rows)
    if len(counts) < 2:
        held = f"only the label {next(iter(counts))!r}" if counts else "no usable rows"
        raise BadInput(f"the input holds {held}: a clerk needs two labels or more to choose from")
    small = [
        f"{label!r} has {counts[label]}" for label in taxonomy.names if counts[label] < minimum
    ]
    if small:
        raise BadInput(
            f"too few different messages: {', '.join(small)}; at least {minimum} a label: add "
            "examples, merge the label into another, or lower --minimum-per-label"
        )


def refuse_absent(
    splits: Mapping[str, Sequence[Example]],
    taxonomy: Taxonomy,
    *,
    own_holdout: bool,
    by_time: bool = False,
) -> None:
    """Raise BadInput when a split lacks a label: nothing could be learned, chosen or judged about
    it."""
    for split, examples in splits.items():
        there = {example.label for example in examples}
        missing = [label for label in taxonomy.names if label not in there]
        if missing and split == HOLDOUT and own_holdout:
            raise BadInput(
                f"the hold-out file has no usable example of {', '.join(map(repr, missing))}: a "
                "label that is never judged should not be published: add some"
            )
        if missing and by_time:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: none came in that part of the time, "
                "or near-duplicates of later messages and decisions took them away: change "
                "--holdout-share and --validation-share, or take the label out of the taxonomy"
            )
        if missing:
            raise BadInput(
                f"label {missing[0]!r} has no {split} example: its messages are near-duplicates of "
                "each other, or decisions took them away: add different ones, or try another --seed"
            )


def suggest_label(name: str, known: Collection[str]) -> str:
    """Return "; did you mean X?" for the nearest known name, or nothing."""
    folded = {label.casefold().replace("_", " "): label for label in known}
    near = difflib.get_close_matches(
        name.casefold().replace("_", " "), list(folded), n=1, cutoff=0.5
    )
    return f"; did you mean {folded[near[0]]!r}?" if near else ""


def _csv_table(text: str) -> dict[str, str]:
    table: dict[str, str] = {}
    for record in csv.reader(io.StringIO(text, newline=""), strict=True):
        if record and len(record) != 2:
            raise ValueError(f"{len(record)} columns where two are needed: raw, taxonomy label")
        if record:
            table[record[0].strip()] = record[1].strip()
    return table


_PARSERS: dict[str, Callable[[str], Any]] = {
    ".toml": tomllib.loads,
    ".json": json.loads,
    ".csv": _csv_table,
}
