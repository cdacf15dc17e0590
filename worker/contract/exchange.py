"""What trainer and desk hand each other, as files: what people are asked, and what came of it.

- ``Task``: a message that a person is asked about, and why (JSON Lines, ``clerk-trainer tasks``);
- ``Answer``: what a person decided (CSV, ``clerk-desk export``, ``prepare --decisions``);
- ``Advice``: what the decisions say about the labels themselves (JSON, ``clerk-trainer advise``);
- ``Proposal``: the next adapter, and whether it is worth a trial (JSON, ``clerk-trainer propose``);
- ``ProposalDecision``: what a person decided about it (JSON, the desk or the command line).

Each has a version of its own. A field is never renamed, retyped or dropped within one; new ones may
be added, and readers pass over those that they do not know.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from worker.contract.codec import Doc, Pattern, Probability, Range, encode
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.records.identity import check_time, read_json, to_json
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256
from worker.contract.timestamps import parse_rfc3339

__all__ = [
    "ANSWER_COLUMNS",
    "CHANGES",
    "AdapterName",
    "Advice",
    "AdviceKind",
    "AdviceMessage",
    "Answer",
    "Figure",
    "Finding",
    "GateRow",
    "LabelSource",
    "Neighbour",
    "Proposal",
    "ProposalDecision",
    "Purpose",
    "Task",
    "Verdict",
    "parse_answer",
    "parse_tasks",
    "read_advice",
    "read_answers",
    "read_decision",
    "read_proposal",
    "read_tasks",
    "save_answers",
    "task_id",
    "write_advice",
    "write_answers",
    "write_decision",
    "write_proposal",
    "write_tasks",
]


PRIVATE = 0o640
"""Rights of a file that may hold messages: its owner and its group, nobody else."""


def read_text(path: Path) -> str:
    """Return a file's text. Raises RecordRefused."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordRefused(str(path), error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise RecordRefused(
            str(path),
            f"not UTF-8 from byte {error.start} on: save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from None


def write_json(path: Path, record: Any) -> None:
    """Write a record as JSON that a person can read as well. Raises OSError, ValueError."""
    write_atomically(path, json_bytes(record), mode=PRIVATE)


def json_bytes(record: Any) -> bytes:
    """Return the content of such a file. Raises ValueError."""
    text = json.dumps(encode(record), indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


# A task: one message that a person is asked about, with why and with what helps to
# decide.
#
# A file of tasks is JSON Lines, and holds messages: it is for its owner and group (0640). A task
# of the purpose ``audit`` is blind: it cannot carry a label, a suggestion or a score, so that no
# program that shows it can let them out.


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
    return tuple(parse_tasks(read_text(path).split("\n"), path.name).values())


def parse_tasks(lines: Iterable[str], name: str) -> Mapping[int, Task]:
    """Return the tasks of a file with these lines and this name, by line number.

    Raises RecordRefused with the line at fault, also where two tasks have one id; the error holds
    no text of a message.
    """
    tasks: dict[int, Task] = {}
    ids: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        task = read_json(Task, line, f"{name}:{number}")
        if task.id in ids:
            raise RecordRefused(f"{name}:{number}", f"the task {task.id} is there twice")
        ids.add(task.id)
        tasks[number] = task
    return tasks


# An answer: what a person decided about a message, a line of the file of decisions
# (CSV).
#
# It is the file that ``clerk-trainer check`` writes for people to fill in, and the desk exports.
# In its first version it has the columns ``id, message_sha256, decision, new_label, note,
# decided_by``. The second adds what the rest of the circle wants to know; every line names its
# version, and a line that names none is of the first.
#
# Of a message that several people decided on there is one line that counts (``outcome``) and may
# be one for each of them (``opinion``): ``prepare`` takes the first, ``advise`` looks at both.


DecisionWord = Literal["accept", "relabel", "drop"]
"""The label is right; it is ``new_label``; no label fits."""

AnswerRole = Literal["outcome", "opinion"]

ANSWERS_SCHEMA = "decisions/2"
_FIRST = "decisions/1"
# What a spreadsheet takes for a formula at the start of a cell (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Answer:
    """One decision. What a file of the first version cannot say is None or empty.

    ``id`` is the message's in its dataset or export, ``task_id`` that of the task that was
    answered. ``decided_by`` is a pseudonym. ``decided_at`` is RFC 3339 in UTC, ``guideline`` the
    version of the guideline that was followed, ``batch`` the task's.
    """

    id: str
    message_sha256: str
    decision: DecisionWord
    new_label: str = ""
    note: str = ""
    decided_by: str = ""
    task_id: str | None = None
    purpose: Purpose | None = None
    batch: str | None = None
    guideline: str | None = None
    label_source: LabelSource = "person"
    decided_at: str | None = None
    role: AnswerRole = "outcome"

    def __post_init__(self) -> None:  # raises ValueError
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value is not None and value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}")
        if (self.decision == "relabel") != bool(self.new_label):
            raise ValueError("new_label belongs to relabel, and to nothing else")
        if self.decided_at is not None:
            parse_rfc3339(self.decided_at)

    @property
    def audits_holdout(self) -> bool:
        """Whether it answers a task about the hold-out's own label. The purpose ``audit`` without a
        task is a message that the desk drew from service."""
        return self.purpose == "audit" and self.task_id is not None


ALLOWED: dict[str, tuple[str, ...]] = {
    "decision": get_args(DecisionWord),
    "purpose": get_args(Purpose),
    "label_source": get_args(LabelSource),
    "role": get_args(AnswerRole),
}
"""What may stand in a cell, by its column; of an optional one also nothing."""

_NAMES = tuple(field.name for field in fields(Answer))
ANSWER_COLUMNS = (*_NAMES, "schema")
"""The file's columns."""

_DEFAULTS: dict[str, Any] = {"label_source": "person", "role": "outcome"}
_TEXTS = ("new_label", "note", "decided_by")


def write_answers(answers: Iterable[Answer]) -> str:
    """Return a file of decisions: CSV with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(ANSWER_COLUMNS)
    for answer in answers:
        cells = {name: getattr(answer, name) or "" for name in _NAMES}
        cells["note"] = _guard(cells["note"])  # the only cell that is free text
        writer.writerow([*cells.values(), ANSWERS_SCHEMA])
    return text.getvalue()


def save_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a file of decisions, for its owner and group: notes are people's words."""
    write_atomically(path, write_answers(answers).encode("utf-8"), mode=PRIVATE)


def read_answers(path: Path) -> tuple[Answer, ...]:
    """Read a file of decisions of either version; lines without a decision are left out.

    Raises RecordRefused with the line at fault; what stands in it is not repeated.
    """
    try:
        lines = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except csv.Error as error:
        raise RecordRefused(path.name, f"is no CSV: {error}") from None
    return tuple(
        parse_answer(cells, f"{path.name}:{number}")
        for number, cells in enumerate(lines, start=2)
        if (cells.get("decision") or "").strip()
    )


def parse_answer(cells: dict[str, Any], where: str) -> Answer:
    """Return the answer that a line's cells hold. Raises RecordRefused."""
    schema = (cells.get("schema") or _FIRST).strip()
    if schema not in {_FIRST, ANSWERS_SCHEMA}:
        raise RecordRefused(where, f"a decision of a version that is not known: use a newer program"
                            f" or export it again as {ANSWERS_SCHEMA}")  # fmt: skip
    if not all(isinstance(cells.get(name), str) for name in ("id", "message_sha256")):
        raise RecordRefused(where, "has no id or no message_sha256")
    values: dict[str, Any] = {}
    for name in _NAMES:
        cell = (cells.get(name) or "").strip()
        if name == "decision":
            cell = cell.casefold()
        values[name] = cell if cell or name in {*_TEXTS, "id"} else _DEFAULTS.get(name)
    relabelled = values["decision"] == "relabel"
    values["new_label"] = label_name(values["new_label"]) if relabelled else ""
    values["message_sha256"] = (values["message_sha256"] or "").casefold()
    try:
        return Answer(**values)
    except ValueError as error:
        raise RecordRefused(where, str(error)) from None


def _guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


# Advice: what the decisions say about the labels themselves, in figures and in plain
# words.
#
# With ``texts`` the file holds messages; it is for its owner and group (0640) in any case.


AdviceKind = Literal[
    "confused", "few", "contradictory", "missing", "merge", "split", "outdated", "unsure"
]
"""People confuse two labels; a label has few examples, or contradictory ones; messages that fit no
label look like a new one; two labels look like one, or one like two; decisions are older than the
guideline; too little is known to say anything."""


@dataclass(frozen=True, slots=True)
class AdviceMessage:
    """A message that a finding rests on. ``text`` is None where texts were left out, and ``part``
    numbers the part of the finding that it belongs to (of a split: one or the other)."""

    id: str
    message_sha256: str
    label: str | None = None
    text: str | None = None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that the data owner may want to change."""

    kind: AdviceKind
    labels: tuple[str, ...]
    title: Annotated[str, Doc("One sentence.")]
    evidence: Annotated[str, Doc("What it rests on, in a sentence with its figures.")]
    advice: Annotated[str, Doc("What to do.")]
    gain: Annotated[str, Doc("What it would save or improve.")]
    cost: Annotated[str, Doc("What it would cost.")]
    figures: Mapping[str, float]
    messages: tuple[AdviceMessage, ...]
    p_value: Annotated[
        Probability | None, Doc("How often as much would be found where nothing is wrong.")
    ] = None


@dataclass(frozen=True, slots=True)
class Advice:
    """All findings about a dataset and the decisions since, the weightiest first. ``decisions``
    counts the messages decided on, ``doubly`` those that two people or more decided on."""

    schema: Literal["advice/1"]
    created_at: str
    dataset_name: str
    dataset: Annotated[str, Doc("The dataset's digest.")]
    taxonomy: Annotated[str, Doc("The taxonomy's digest.")]
    guideline: str | None
    decisions: int
    doubly: int
    texts: bool
    findings: tuple[Finding, ...]


def write_advice(path: Path, advice: Advice) -> None:
    """Write a file of advice, for its owner and group. Raises OSError."""
    write_json(path, advice)


def read_advice(path: Path) -> Advice:
    """Read a file of advice. Raises RecordRefused; the error holds no text of a message."""
    return read_json(Advice, read_text(path), path.name)


# A proposal: the next adapter next to the one in service, and whether it is worth a
# trial.
#
# The trainer writes it, the desk shows it, and a person answers it with a ``ProposalDecision``.
# It holds figures and labels, and no message.


Verdict = Literal["publish", "not_worth_it", "refused"]
"""It is better, and the gate lets it pass; it is as good, and a change is not worth it; it is
worse, or the gate says no."""

_PSEUDONYM = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"


CHANGES = {
    "decisions": "messages decided on",
    "train_relabelled": "training labels changed",
    "train_confirmed": "training labels confirmed by people",
    "train_dropped": "training messages that fit no label, left out",
    "validation_relabelled": "validation labels changed",
    "validation_confirmed": "validation labels confirmed by people",
    "validation_dropped": "validation messages that fit no label, left out",
    "holdout_relabelled": "hold-out labels that an audit corrected",
    "holdout_confirmed": "hold-out labels that an audit confirmed",
    "holdout_dropped": "hold-out messages that fit no label, left out",
    "holdout_decisions_left": "decisions about the hold-out that were no audit's, left out",
    "new_in_train": "new messages to learn from",
    "new_in_validation": "new messages to choose by",
    "new_in_holdout": "new messages held out",
    "new_near_another_part": "new messages left out: near to the hold-out, or to two parts",
    "new_messages_that_fit_no_label": "new messages that fit no label",
    "decisions_without_text": "decisions whose message's text is not there",
}
"""What the counts of ``Proposal.changes`` say, in words; there may be others."""


@dataclass(frozen=True, slots=True)
class AdapterName:
    """An adapter and what kind of model it is."""

    name: str
    digest: Annotated[str, Pattern(_SHA256)]
    kind: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of messages (0 to 1) of both adapters, and the difference, new less current, with the
    95 % interval of it. ``current`` and the interval are None where there is none;
    ``lower_is_better`` says so of a share that costs something."""

    name: str
    messages: int
    proposed: float
    current: float | None
    difference: float | None
    low: float | None
    high: float | None
    lower_is_better: bool = False


@dataclass(frozen=True, slots=True)
class GateRow:
    """One criterion of the gate."""

    name: str
    wanted: str
    found: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Proposal:
    """What is proposed, and why or why not."""

    schema: Literal["proposal/1"]
    id: Annotated[str, Pattern(r"^[0-9a-f]{32}$")]
    created_at: str
    verdict: Verdict
    headline: Annotated[str, Doc("The answer to: publish it as a canary? One sentence.")]
    reasons_for: tuple[str, ...]
    reasons_against: tuple[str, ...]
    adapter: AdapterName
    current: AdapterName | None
    dataset_name: str
    dataset: Annotated[str, Doc("Digest of the new dataset version.")]
    dataset_before: Annotated[str | None, Doc("Digest of the one that it was made of.")]
    changes: Annotated[Mapping[str, int], Doc("What is new in the dataset: counts by their name.")]
    figures: tuple[Figure, ...]
    gate: tuple[GateRow, ...]
    canary_share: Annotated[float, Range(0, 1), Doc("Share of the keys for a canary.")]

    def __post_init__(self) -> None:  # raises ValueError
        check_time("created_at", self.created_at)


@dataclass(frozen=True, slots=True)
class ProposalDecision:
    """What a person decided about a proposal. ``decided_by`` is a pseudonym; ``share`` None: the
    proposal's own."""

    schema: Literal["proposal-decision/1"]
    proposal: Annotated[str, Pattern(r"^[0-9a-f]{32}$"), Doc("The proposal's id.")]
    adapter: Annotated[str, Pattern(_SHA256), Doc("Digest of the adapter that was proposed.")]
    publish: bool
    decided_by: Annotated[str, Pattern(_PSEUDONYM)]
    decided_at: str
    reason: str = ""
    share: Annotated[float, Range(0, 1)] | None = None

    def __post_init__(self) -> None:  # raises ValueError
        check_time("decided_at", self.decided_at)


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Write a proposal. Raises OSError."""
    write_json(path, proposal)


def read_proposal(path: Path) -> Proposal:
    """Read a proposal. Raises RecordRefused."""
    return read_json(Proposal, read_text(path), path.name)


def write_decision(path: Path, decision: ProposalDecision) -> None:
    """Write a decision. Raises OSError."""
    write_json(path, decision)


def read_decision(path: Path, proposal: Proposal | None = None) -> ProposalDecision:
    """Read a decision. Raises RecordRefused, also where it is about another proposal or adapter
    than ``proposal``."""
    found = read_json(ProposalDecision, read_text(path), path.name)
    if proposal is not None and (found.proposal, found.adapter) != (
        proposal.id,
        proposal.adapter.digest,
    ):
        raise RecordRefused(path.name, "decides another proposal: decide on this one")
    return found
