"""The files next to a dataset's splits: groups.jsonl, copies.jsonl and label_sources.jsonl.

All three are JSON Lines that name messages by id and hold neither text nor labels.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts.files import PRIVATE
from trainer.dataset.folder import (
    EXPORT,
    HOLDOUT,
    SPLITS,
    Dataset,
    Example,
    LabelOrigin,
    Row,
    read_extra_lines,
)
from worker.contract.digest import sha256_bytes, write_atomically

GROUPS = "groups.jsonl"

ExtraFile = tuple[str, bytes, int]
"""A file's name, content, and number of rows."""


def write_extra_files(directory: Path, files: Iterable[ExtraFile]) -> dict[str, dict[str, Any]]:
    """Write the files that have rows; return their digests and sizes, for the manifest."""
    written = {}
    for name, data, rows in files:
        if not rows and name != GROUPS:  # there, no row says that no message shares its group
            continue
        write_atomically(directory / name, data, mode=PRIVATE)
        written[name] = {"sha256": sha256_bytes(data), "bytes": len(data), "rows": rows}
    return written


# --- groups.jsonl: which messages belong together.
#
# The messages of one thread or customer resemble each other as near-duplicates do, so ``prepare``
# keeps them in one split, and ``check`` keeps them in one fold. Intervals need them too: ten
# messages of one thread are less evidence than ten of different ones. Groups are numbered; their
# names are not kept. Each lies in one split, so the hold-out's rows reveal nothing about others.


def group_lines(
    splits: Mapping[str, Sequence[Example]], unit_of: Mapping[str, int]
) -> tuple[bytes, int]:
    """Return the file and its number of rows: one for each message that shares its unit.

    ``unit_of`` maps ids to units: messages linked by a chain of groups and near-duplicates.
    """
    examples = [example for part in SPLITS for example in splits[part]]
    sizes = Counter(unit_of[example.id] for example in examples)
    numbers: dict[int, int] = {}
    rows: list[dict[str, Any]] = []
    for example in examples:
        unit = unit_of[example.id]
        if sizes[unit] > 1:
            rows.append({"id": example.id, "group": numbers.setdefault(unit, len(numbers))})
    return _json_lines(rows)


def read_groups(dataset: Dataset) -> dict[str, int] | None:
    """Return message id -> group number, for messages that share one; None if the dataset was
    split without groups. Raises BadInput if the file is missing or was altered."""
    rows = read_extra_lines(dataset, GROUPS)
    return None if rows is None else {row["id"]: row["group"] for row in rows}


# --- copies.jsonl: how often each hold-out message occurred, for accuracy by traffic.
#
# A dataset holds each text once, so accuracy on it counts distinct messages. Customers send some
# texts often. The file lists the hold-out messages that occurred more than once.

COPIES, TRAFFIC = "copies.jsonl", "holdout_traffic"


@dataclass(frozen=True, slots=True)
class Traffic:
    """The export's rows whose texts belong to the hold-out. ``copies`` maps a held-out id to the
    rows with its text and label; ``ambiguous`` counts rows whose text has several labels."""

    copies: Mapping[str, int]
    ambiguous: int

    def describe(self) -> dict[str, dict[str, int]]:
        """Return the manifest's counts, empty if each message occurred once."""
        rows = sum(self.copies.values())
        if rows == len(self.copies) and not self.ambiguous:
            return {}
        return {TRAFFIC: {"rows": rows, "ambiguous": self.ambiguous}}


def count_traffic(rows: Iterable[Row], held: Iterable[Row], split_of: Mapping[int, str]) -> Traffic:
    """Count the ``rows`` behind the messages that are ``held`` out; with a ``--holdout`` file, only
    that file's rows."""
    kept = {row.key: row for row in held}
    given = any(row.given for row in kept.values())
    copies: Counter[str] = Counter()
    ambiguous = 0
    for row in rows:
        if split_of.get(row.key) != HOLDOUT or row.given is not given:
            continue
        of = kept.get(row.key)
        if of is not None and of.label == row.label:
            copies[of.id] += 1
        else:
            ambiguous += 1
    return Traffic(copies, ambiguous)


def copy_lines(traffic: Traffic) -> tuple[bytes, int]:
    """Return the file, sorted by id, and its number of rows."""
    counted = sorted(traffic.copies.items())
    return _json_lines([{"id": id_, "rows": rows} for id_, rows in counted if rows > 1])


def read_copies(dataset: Dataset) -> dict[str, int] | None:
    """Return hold-out message id -> rows of the export, for messages with more than one row; None
    if the dataset was not counted. Raises BadInput if the file is missing or was altered."""
    # ``prepare`` counts, and is the only one that records its options.
    if TRAFFIC not in (dataset.record.get("counts") or {}) and "options" not in dataset.record:
        return None
    return {row["id"]: row["rows"] for row in read_extra_lines(dataset, COPIES) or ()}


# --- label_sources.jsonl: the origin of each label that is not the export's, in all three splits.

LABEL_SOURCES = "label_sources.jsonl"


def source_lines(
    splits: Mapping[str, Sequence[Example]], origins: Mapping[str, LabelOrigin]
) -> tuple[bytes, int]:
    """Return the file and its number of rows. Labels of ids that are not in ``origins`` are the
    export's."""
    found = ((each.id, origins.get(each.id, EXPORT)) for part in SPLITS for each in splits[part])
    return _json_lines(
        [
            {"id": id_, "source": origin.source, "guideline": origin.guideline}
            for id_, origin in found
            if origin != EXPORT
        ]
    )


def count_sources(
    splits: Mapping[str, Sequence[Example]], origins: Mapping[str, LabelOrigin]
) -> dict[str, dict[str, int]]:
    """Return split -> origin in words -> number of messages."""
    return {
        split: dict(
            sorted(Counter(origins.get(each.id, EXPORT).words for each in splits[split]).items())
        )
        for split in SPLITS
    }


def read_label_sources(dataset: Dataset) -> dict[str, LabelOrigin]:
    """Return id -> origin, for labels that are not the export's. Raises BadInput if the file is
    missing or was altered."""
    rows = read_extra_lines(dataset, LABEL_SOURCES) or ()
    return {row["id"]: LabelOrigin(row["source"], row["guideline"]) for row in rows}


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, int]:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return "".join(lines).encode("utf-8"), len(rows)
