"""groups.jsonl: which messages belong together, by number.

A thread's or a customer's messages resemble each other as near-duplicates do: a model that learnt
some of them knows the others by more than what they say. ``prepare`` keeps such units on one side.
``check`` needs them to deal training and validation out again, and tests need them in every part:
ten messages of one thread prove less than ten of different ones. The file holds ids and numbers: no
group's name and no text. A unit lies in one part, so the hold-out's rows say nothing about others.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.dataset.folder import HOLDOUT, SPLITS, Dataset, Example, Row, read_extra_lines
from trainer.errors import BadInput
from worker.contract.exchange import LabelSource

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
    lines = []
    for example in examples:
        unit = unit_of[example.id]
        if sizes[unit] > 1:
            number = numbers.setdefault(unit, len(numbers))
            lines.append(json.dumps({"id": example.id, "group": number}, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode("utf-8"), len(lines)


def read_groups(dataset: Dataset) -> dict[str, int] | None:
    """Return message id -> number of its group, for those that are not alone; None where the
    dataset was split without groups.

    Raises BadInput when the file is missing or was altered.
    """
    rows = read_extra_lines(dataset, GROUPS)
    return None if rows is None else {row["id"]: row["group"] for row in rows}


# --- copies: copies.jsonl: how often the held-out messages came, for accuracy by traffic.
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
    lines = [
        json.dumps({"id": id_, "rows": rows}, ensure_ascii=False)
        for id_, rows in sorted(traffic.copies.items())
        if rows > 1
    ]
    return "".join(f"{line}\n" for line in lines).encode("utf-8"), len(lines)


def read_copies(dataset: Dataset) -> dict[str, int] | None:
    """Return held-out message id -> rows of the export, of those that came more than once; None
    where nobody counted: ``prepare`` does, and records its options too. Raises BadInput when the
    file is missing or was altered."""
    if TRAFFIC not in (dataset.record.get("counts") or {}) and "options" not in dataset.record:
        return None
    return {row["id"]: row["rows"] for row in read_extra_lines(dataset, COPIES) or ()}


# --- label_sources: label_sources.jsonl: where each label comes from, for rows whose label is not
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
    lines = []
    for example in _all(splits):
        origin = origins.get(example.id, EXPORT)
        if origin != EXPORT:
            row = {"id": example.id, "source": origin.source, "guideline": origin.guideline}
            lines.append(json.dumps(row, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode("utf-8"), len(lines)


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


def read_label_sources(directory: Path) -> dict[str, LabelOrigin]:
    """Return id -> origin of the labels of a dataset folder that are not the export's. Raises
    BadInput."""
    path = directory / LABEL_SOURCES
    if not path.is_file():
        return {}
    try:
        rows: list[dict[str, Any]] = [
            json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
        ]
        return {row["id"]: LabelOrigin(row["source"], row["guideline"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read: prepare the dataset again") from error


def _all(splits: Mapping[str, Sequence[Example]]) -> Iterable[Example]:
    return (example for split in SPLITS for example in splits[split])
