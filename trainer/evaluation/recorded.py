"""Answers that a model elsewhere gave, recorded in a file: a contender like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.evaluation.messages import read_table
from worker.contract.assignments import split_assignment


@dataclass(frozen=True, slots=True)
class Recorded:
    """A contender's recorded answers by message id, as they were given: a label outside the set
    stays, and is wrong. ``seconds`` and ``cost`` are sums, None where the file has no such column.
    """

    name: str
    path: Path
    answers: Mapping[str, str]
    seconds: float | None
    cost: float | None

    def of(self, ids: Sequence[str]) -> list[str]:
        """Return the answers in order. Raises BadInput when one is missing."""
        missing = [one for one in ids if one not in self.answers]
        if missing:
            raise BadInput(
                f"{self.path}: has no answer for {len(missing)} of {len(ids)} held-out messages, "
                f"the first is {missing[0]!r}: a contender answers every message"
            )
        return [self.answers[one] for one in ids]


def read_recorded(given: str) -> Recorded:
    """Read ``NAME=FILE``, a CSV or JSON Lines file with the columns id, label and, optionally,
    seconds and cost. Raises BadInput with the line at fault."""
    name, file = split_assignment(
        given, "--contender", form="NAME=FILE", needs_value=True, error=BadInput
    )
    path = Path(file)
    answers: dict[str, str] = {}
    sums: dict[str, float | None] = {"seconds": 0.0, "cost": 0.0}
    for number, row in read_table(path):
        if row.get("id") in {None, ""} or row.get("label") is None:
            raise BadInput(f"{path}: line {number} has no 'id' or no 'label'")
        key = str(row["id"])
        if key in answers:
            raise BadInput(f"{path}: line {number} has the id {key!r} a second time")
        answers[key] = str(row["label"]).strip()
        for column, sum_so_far in sums.items():
            sums[column] = _add(sum_so_far, row.get(column), f"{path}: line {number}: {column}")
    return Recorded(name, path, answers, sums["seconds"], sums["cost"])


def _add(sum_so_far: float | None, value: Any, where: str) -> float | None:
    if sum_so_far is None or value in {None, ""}:
        return None
    try:
        return sum_so_far + float(value)
    except ValueError as error:
        raise BadInput(f"{where} is no number: {value!r}") from error
