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
from collections.abc import Mapping, Sequence

from trainer.dataset.folder import SPLITS, Dataset, Example, read_extra_lines

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
