"""Messages whose labels are known: the sample shop's, or those of a table."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainer.teacher.prompt import make_question
from worker.contract.exchange import Answer, Task

SHOP = Path(__file__).parents[2] / "worker" / "demo" / "data" / "train.jsonl"

Known = tuple[str, str]
"""A message and its label."""


def read_known(table: Path | None = None) -> list[Known]:
    """Read the shop, or a CSV file with the columns message and category."""
    if table is None:
        lines = map(json.loads, SHOP.read_text(encoding="utf-8").splitlines())
        return [(line["message"], line["label"]) for line in lines]
    with table.open(encoding="utf-8", newline="") as file:
        return [(row["message"], row["category"]) for row in csv.DictReader(file)]


def as_sent(rows: Iterable[Known]) -> dict[str, Known]:
    """Map what a teacher is sent of a message to the first row that has it: what a simulated
    teacher has to know."""
    found: dict[str, Known] = {}
    for message, label in rows:
        question = make_question(message, redacts=True)
        if question is not None:
            found.setdefault(question.text, (message, label))
    return found


def decide(task: Task, truth: Mapping[str, str]) -> Answer:
    """Answer a task as a reviewer who is always right. ``truth`` maps ids to labels."""
    return Answer(
        task.message_id, task.message_sha256, "relabel", truth[task.message_id],
        task_id=task.id, purpose=task.purpose, batch=task.batch,
    )  # fmt: skip
