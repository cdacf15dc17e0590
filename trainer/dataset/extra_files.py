"""Files next to a dataset's splits: groups.jsonl, copies.jsonl and label_sources.jsonl.

All three are JSON Lines that name messages by their ids and hold no text and no label.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.dataset.folder import HOLDOUT, SPLITS, Dataset, Example, Row, read_extra_lines
from worker.contract.exchange import LabelSource

# --- groups.jsonl: which messages belong together, by number.
#
# A thread's or a customer's messages resemble each other as near-duplicates do: a model that learnt
# some of them knows the others by more than what they say. ``prepare`` keeps such units on one
# side. ``check`` needs them to deal training and validation out again, and tests need them in every
# part: ten messages of one thread prove less than ten of different ones. No group's name is kept. A
# unit lies in one part, so the hold-out's rows say nothing about others.

GROUPS = "groups.jsonl"


def group_lines(
    splits: Mapping[str, Sequence[Example]], unit_of: Mapping[str, int]
) -> tuple[bytes, int]:
    """Return the file and how many rows it has: each message that is not alone in its unit.

    ``unit_of`` maps ids to units: messages that a chain of groups and near-duplicates links are
    of one.
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
    """Return message id -> number of its group, for those that are not alone; None where the
    dataset was split without groups.

    Raises BadInput when the file is missing or was altered.
    """
    rows = read_extra_lines(dataset, GROUPS)
    return None if rows is None else {row["id"]: row["group"] for row in rows}


# --- copies.jsonl: how often the held-out messages came, for accuracy by traffic.
#
# A dataset holds each text once, and none that came under several labels, so that an accuracy on
# it is of distinct messages with one label. Customers send some texts often: the file names, by
# id, the held-out messages that came more than once. It holds no text and no label.

COPIES, TRAFFIC = "copies.jsonl", "holdout_traffic"


@dataclass(frozen=True, slots=True)
class Traffic:
    """The rows of the export whose texts are bound for the hold-out: ``copies`` counts, by the id
    of the message that is held out, those of its text and label; ``ambiguous`` are rows left out
    for their text came under several labels."""

    copies: Mapping[str, int]
    ambiguous: int

    def describe(self) -> dict[str, dict[str, int]]:
        """Return the counts for the manifest: none where each message came once."""
        rows = sum(self.copies.values())
        if rows == len(self.copies) and not self.ambiguous:
            return {}
        return {TRAFFIC: {"rows": rows, "ambiguous": self.ambiguous}}


def count_traffic(rows: Iterable[Row], held: Iterable[Row], split_of: Mapping[int, str]) -> Traffic:
    """Count the ``rows`` behind the messages that are ``held`` out; with a hold-out of the user's
    own, its rows alone."""
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
    """Return the file, in the order of ids, and how many rows it has."""
    counted = sorted(traffic.copies.items())
    return _json_lines([{"id": id_, "rows": rows} for id_, rows in counted if rows > 1])


def read_copies(dataset: Dataset) -> dict[str, int] | None:
    """Return held-out message id -> rows of the export, of those that came more than once; None
    where nobody counted: ``prepare`` does, and records its options too. Raises BadInput when the
    file is missing or was altered."""
    if TRAFFIC not in (dataset.record.get("counts") or {}) and "options" not in dataset.record:
        return None
    return {row["id"]: row["rows"] for row in read_extra_lines(dataset, COPIES) or ()}


# --- label_sources.jsonl: where each label comes from, for rows whose label is not
# the export's.
#
# ``prepare`` and ``propose`` write it, with the source and, where a person decided by one, the
# version of the labelling guideline. It holds ids, of the hold-out too, and no text or label.

LABEL_SOURCES = "label_sources.jsonl"


@dataclass(frozen=True, slots=True)
class LabelOrigin:
    """Where a label comes from, and by which version of the guideline."""

    source: LabelSource = "export"
    guideline: str | None = None

    @property
    def words(self) -> str:
        """The origin as it is counted."""
        return f"{self.source}, guideline {self.guideline}" if self.guideline else self.source


EXPORT = LabelOrigin()


def source_lines(
    splits: Mapping[str, Sequence[Example]], origins: Mapping[str, LabelOrigin]
) -> tuple[bytes, int]:
    """Return the file and how many rows it has. ``origins`` maps ids to theirs; of an id that is
    not there the label is the export's."""
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
    """Return split -> origin in words -> messages."""
    return {
        split: dict(
            sorted(Counter(origins.get(each.id, EXPORT).words for each in splits[split]).items())
        )
        for split in SPLITS
    }


def read_label_sources(dataset: Dataset) -> dict[str, LabelOrigin]:
    """Return id -> origin of the labels that are not the export's. Raises BadInput when the file is
    missing or was altered."""
    rows = read_extra_lines(dataset, LABEL_SOURCES) or ()
    return {row["id"]: LabelOrigin(row["source"], row["guideline"]) for row in rows}


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> tuple[bytes, int]:
    """Return the rows as a file, and how many there are."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return "".join(lines).encode("utf-8"), len(rows)
