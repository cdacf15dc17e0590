"""A task: one message that a person is asked about, with why and with what helps to decide.

A file of tasks is JSON Lines, and holds messages: it is for its owner and group (0640). A task of
the purpose ``audit`` is blind: it cannot carry a label, a suggestion or a score, so that no program
that shows it can let them out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from worker.contract.circle.files import PRIVATE, read_text
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.marks import Doc, Pattern, Probability
from worker.contract.records.wire import read_json, to_json
from worker.contract.text import message_sha256

Purpose = Literal["check", "audit", "learn"]
"""Why people are asked: the label is suspected to be wrong; a label of the hold-out is audited,
blind; the message has no label yet and its label would teach most."""

LabelSource = Literal["export", "person", "teacher"]
"""Where a label comes from: the system that the messages were exported from, a person who decided
on this message, or another model."""

_SHA256 = r"^[0-9a-f]{64}$"
_TASK_ID = r"^[0-9a-f]{32}$"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A similar message whose label nobody doubts."""

    text: str
    label: str
    message_id: Annotated[
        str | None, Doc("Its id, so that it can be deleted with its person's messages.")
    ] = None


@dataclass(frozen=True, slots=True)
class Task:
    """One message for a person to decide on."""

    schema: Literal["tasks/1"]
    id: Annotated[str, Pattern(_TASK_ID), Doc("The same for the same question: see task_id.")]
    message_id: Annotated[str, Doc("The message's id in the dataset or file that it is from.")]
    message_sha256: Annotated[str, Pattern(_SHA256), Doc("That of worker.contract.text.")]
    text: str
    purpose: Purpose
    dataset: Annotated[
        str | None, Doc("Digest of the dataset that the question is about, or was chosen with.")
    ]
    batch: Annotated[str, Doc("Which tasks were made together; for an audit the sample's name.")]
    label: Annotated[str | None, Doc("The label that the message has.")] = None
    label_source: Annotated[LabelSource | None, Doc("Where that label comes from.")] = None
    suggested: Annotated[str | None, Doc("The label that a model would give.")] = None
    confidence: Annotated[
        Probability | None,
        Doc("Probability of the suggestion; of a check that the given label is wrong."),
    ] = None
    scores: Annotated[Mapping[str, float] | None, Doc("Probability of each label.")] = None
    reasons: Annotated[tuple[str, ...], Doc("Short codes, the weightiest first.")] = ()
    neighbours: tuple[Neighbour, ...] = ()
    guideline: Annotated[
        str | None, Doc("Version of the labelling guideline to decide by, where there is one.")
    ] = None

    def __post_init__(self) -> None:  # raises ValueError
        if not self.text.strip():
            raise ValueError("text is empty")
        if message_sha256(self.text) != self.message_sha256:
            raise ValueError("message_sha256 is not that of the text")
        told = (self.label, self.suggested, self.confidence, self.scores, self.label_source)
        if self.purpose == "audit" and (any(part is not None for part in told) or self.neighbours):
            raise ValueError("a task of an audit is blind: it holds no label, no score, no message")


def task_id(dataset: str | None, purpose: Purpose, sha256: str) -> str:
    """Return the id of a question: of one message for one purpose about one dataset it is the same
    however often it is asked, so that nobody is asked twice."""
    return sha256_json(["tasks/1", dataset, purpose, sha256])[:32]


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Write a file of tasks, for its owner and group. Raises OSError."""
    data = b"".join(to_json(task) + b"\n" for task in tasks)
    write_atomically(path, data, mode=PRIVATE)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """Read a file of tasks. Raises RecordRefused as ``parse_tasks``."""
    return tuple(parse_tasks(read_text(path), path.name).values())


def parse_tasks(text: str, name: str) -> Mapping[int, Task]:
    """Return the tasks of a file with this text and name, by the lines they stand on.

    Raises RecordRefused with the line at fault, also where two tasks have one id; the error holds
    no text of a message.
    """
    tasks: dict[int, Task] = {}
    ids: set[str] = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        task = read_json(Task, line, f"{name}:{number}")
        if task.id in ids:
            raise RecordRefused(f"{name}:{number}", f"the task {task.id} is there twice")
        ids.add(task.id)
        tasks[number] = task
    return tasks
