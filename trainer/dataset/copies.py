"""copies.jsonl: how often the held-out messages came, for accuracy by traffic.

A dataset holds each text once, and none that came under several labels, so that an accuracy on it
is of distinct messages with one label. Customers send some texts often: the file names, by id, the
held-out messages that came more than once. It holds no text and no label.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from trainer.dataset.folder import HOLDOUT, Dataset, Row, read_extra_lines

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
