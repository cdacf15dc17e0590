"""The files that trainer and desk exchange, in the order in which they are made.

- ``Task``: a question to reviewers about one message (JSON Lines, ``clerk-trainer tasks``);
- ``Answer``: a reviewer's decision (CSV, ``clerk-desk export`` to ``prepare --decisions``);
- ``Advice``: what the decisions say about the labels (JSON, ``clerk-trainer advise``);
- ``Proposal``: the next adapter, with a recommendation (JSON, ``clerk-trainer propose``);
- ``ProposalDecision``: the data owner's decision about it (JSON, desk or command line).

Each format has its own version. Within a version fields may be added, but are never renamed,
retyped or dropped; readers ignore fields that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from worker.contract.codec import Doc, Pattern, Probability, Range, encode
from worker.contract.digest import sha256_json, write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.records.correction import PSEUDONYM
from worker.contract.records.identity import check_time, read_json, to_json
from worker.contract.taxonomy import label_name
from worker.contract.text import message_sha256
from worker.contract.timestamps import parse_rfc3339

PRIVATE = 0o640
"""Mode of files that may hold messages: for their owner and group."""


def read_text(path: Path) -> str:
    """Return a file's text, without a byte order mark. Raises RecordRefused."""
    try:
        # Not read_text, which would change line ends inside of cells. Excel writes the mark.
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise RecordRefused(str(path), error.strerror or type(error).__name__) from error
    except UnicodeDecodeError as error:
        raise RecordRefused(
            str(path),
            f"not UTF-8 from byte {error.start} on: save it as UTF-8 (in a spreadsheet: CSV UTF-8)",
        ) from None


def write_json(path: Path, record: Any) -> None:
    """Write a record as indented JSON. Raises OSError, ValueError."""
    write_atomically(path, json_bytes(record), mode=PRIVATE)


def json_bytes(record: Any) -> bytes:
    """Return the content of such a file. Raises ValueError."""
    text = json.dumps(encode(record), indent=1, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


# --- Tasks: questions to reviewers ---


Purpose = Literal["check", "audit", "learn"]
"""Why reviewers are asked: ``check``, the label may be wrong; ``audit``, a hold-out label is
checked blind; ``learn``, the message has no label yet, and one would help the model most."""

LabelSource = Literal["export", "person", "teacher"]
"""Who gave a label: the system that exported the messages, a reviewer, or another model."""

_SHA256 = r"^[0-9a-f]{64}$"
_TASK_ID = r"^[0-9a-f]{32}$"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A similar message with an undisputed label, shown for comparison."""

    text: str
    label: str
    message_id: Annotated[
        str | None, Doc("Its id, so that it can be deleted with its sender's messages.")
    ] = None


@dataclass(frozen=True, slots=True)
class Task:
    """One message for a reviewer to decide on.

    A task with the purpose ``audit`` cannot carry a label, a suggestion, or a score: a program
    that shows it then cannot reveal what the hold-out or the model says.
    """

    schema: Literal["tasks/1"]
    id: Annotated[
        str, Pattern(_TASK_ID), Doc("The same question always has the same id: see task_id.")
    ]
    message_id: Annotated[str, Doc("The message's id in its dataset or file.")]
    message_sha256: Annotated[
        str, Pattern(_SHA256), Doc("SHA-256 of the normalized text (worker.contract.text).")
    ]
    text: str
    purpose: Purpose
    dataset: Annotated[
        str | None, Doc("Digest of the dataset that the question is about or was chosen with.")
    ]
    batch: Annotated[
        str, Doc("Name shared by tasks made together; for an audit the sample's name.")
    ]
    label: Annotated[str | None, Doc("The message's current label.")] = None
    label_source: Annotated[LabelSource | None, Doc("Where that label comes from.")] = None
    suggested: Annotated[str | None, Doc("The label that a model suggests.")] = None
    confidence: Annotated[
        Probability | None,
        Doc("Probability of the suggestion; for a check, that the current label is wrong."),
    ] = None
    scores: Annotated[Mapping[str, float] | None, Doc("Probability of each label.")] = None
    reasons: Annotated[tuple[str, ...], Doc("Short codes, most important first.")] = ()
    neighbours: tuple[Neighbour, ...] = ()
    guideline: Annotated[
        str | None, Doc("Version of the labelling guideline to follow, if any.")
    ] = None

    def __post_init__(self) -> None:  # raises ValueError
        if not self.text.strip():
            raise ValueError("text is empty")
        if message_sha256(self.text) != self.message_sha256:
            raise ValueError("message_sha256 is not that of the text")
        hints = (self.label, self.suggested, self.confidence, self.scores, self.label_source)
        if self.purpose == "audit" and (any(hint is not None for hint in hints) or self.neighbours):
            raise ValueError("an audit is blind: its task has no label, score, or neighbours")


def task_id(dataset: str | None, purpose: Purpose, sha256: str) -> str:
    """Return the id of a question. It depends on dataset, purpose and message alone, so that a
    question that is generated again is recognized and not asked twice."""
    return sha256_json(["tasks/1", dataset, purpose, sha256])[:32]


def write_tasks(path: Path, tasks: Iterable[Task]) -> None:
    """Raises OSError."""
    data = b"".join(to_json(task) + b"\n" for task in tasks)
    write_atomically(path, data, mode=PRIVATE)


def read_tasks(path: Path) -> tuple[Task, ...]:
    """Raises RecordRefused, as ``parse_tasks`` does."""
    return tuple(parse_tasks(read_text(path).split("\n"), path.name).values())


def parse_tasks(lines: Iterable[str], name: str) -> Mapping[int, Task]:
    """Return the tasks in a file's lines by line number. ``name`` is the file's, for errors.

    Raises RecordRefused with the line at fault, also if two tasks have the same id. The error
    never quotes a message.
    """
    tasks: dict[int, Task] = {}
    ids: set[str] = set()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        task = read_json(Task, line, f"{name}:{number}")
        if task.id in ids:
            raise RecordRefused(f"{name}:{number}", f"the task {task.id} occurs twice")
        ids.add(task.id)
        tasks[number] = task
    return tasks


# --- Answers: reviewers' decisions ---
#
# A CSV file (``worker.common.review_files``) that the desk exports, or that a reviewer fills in by
# hand: ``clerk-trainer check`` writes it without the columns after ``decided_by``. A message that
# several reviewers decided on has one row that counts (``outcome``) and may have one for each
# reviewer (``opinion``).
# ``prepare`` uses the outcomes; ``advise`` uses both.


DecisionWord = Literal["accept", "relabel", "drop"]
"""The label is right; the label is ``new_label``; no label fits."""

AnswerRole = Literal["outcome", "opinion"]

ANSWERS_SCHEMA = "decisions/2"


@dataclass(frozen=True, slots=True)
class Answer:
    """One decision.

    ``id`` is the message's id in its dataset or export; ``task_id`` and ``batch`` are the answered
    task's. ``decided_by`` is a pseudonym, ``decided_at`` RFC 3339 in UTC, ``guideline`` the version
    of the guideline that was followed.
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
            raise ValueError("new_label must be set for relabel and empty otherwise")
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
"""Allowed values by column; a cell of an optional column may also be empty."""

_NAMES = tuple(field.name for field in fields(Answer))
ANSWER_COLUMNS = (*_NAMES, "schema")

_DEFAULTS: dict[str, Any] = {"label_source": "person", "role": "outcome"}
_TEXTS = ("new_label", "note", "decided_by")


def answer_cells(answer: Answer) -> dict[str, str]:
    """Return a decision's cells by column."""
    return {name: getattr(answer, name) or "" for name in _NAMES} | {"schema": ANSWERS_SCHEMA}


def parse_answer(cells: Mapping[str, str], where: str) -> Answer:
    """Build an answer from a row's cells. Raises RecordRefused."""
    if (cells.get("schema") or ANSWERS_SCHEMA).strip() != ANSWERS_SCHEMA:
        raise RecordRefused(where, f"unknown version of a decision: export it as {ANSWERS_SCHEMA}")
    if not all(isinstance(cells.get(name), str) for name in ("id", "message_sha256")):
        raise RecordRefused(where, "the columns id and message_sha256 are required")
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


# --- Advice: what the decisions say about the labels ---


AdviceKind = Literal[
    "confused", "few", "contradictory", "missing", "merge", "split", "outdated", "unsure"
]
"""Reviewers confuse two labels; a label has few examples; its examples contradict each other;
messages without a fitting label suggest a new one; two labels could be one; one label could be two;
decisions are older than the guideline; there is too little data to say anything."""


@dataclass(frozen=True, slots=True)
class AdviceMessage:
    """A message that supports a finding. ``text`` is None if texts were left out. ``part`` numbers
    the group within the finding, such as the two halves of a split."""

    id: str
    message_sha256: str
    label: str | None = None
    text: str | None = None
    part: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One change for the data owner to consider."""

    kind: AdviceKind
    labels: tuple[str, ...]
    title: Annotated[str, Doc("One sentence.")]
    evidence: Annotated[str, Doc("The evidence in one sentence, with figures.")]
    advice: Annotated[str, Doc("What to do.")]
    gain: Annotated[str, Doc("The benefit of following the advice.")]
    cost: Annotated[str, Doc("The cost of following the advice.")]
    figures: Mapping[str, float]
    messages: tuple[AdviceMessage, ...]
    p_value: Annotated[Probability | None, Doc("Probability of this much evidence by chance.")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Advice:
    """All findings about a dataset and the decisions since, most important first. ``decisions``
    counts messages with a decision, ``doubly`` those that two or more reviewers decided on;
    ``texts`` says whether the findings quote messages."""

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
    """Raises OSError."""
    write_json(path, advice)


# --- Proposals: the next adapter compared with the current one ---
#
# The trainer writes a proposal, the desk shows it, and the data owner answers it with a
# ``ProposalDecision``. It holds figures and labels, and no message.


Verdict = Literal["publish", "not_worth_it", "refused"]
"""Better, and it passes the gate; not better enough to be worth a change; worse, or the gate
refuses it."""

CHANGES = {
    "decisions": "messages decided on",
    "train_relabelled": "training labels changed",
    "train_confirmed": "training labels confirmed by reviewers",
    "train_dropped": "training messages that fit no label, left out",
    "validation_relabelled": "validation labels changed",
    "validation_confirmed": "validation labels confirmed by reviewers",
    "validation_dropped": "validation messages that fit no label, left out",
    "holdout_relabelled": "hold-out labels that an audit corrected",
    "holdout_confirmed": "hold-out labels that an audit confirmed",
    "holdout_dropped": "hold-out messages that fit no label, left out",
    "holdout_decisions_left": "decisions about the hold-out from outside an audit, left out",
    "new_in_train": "new messages for training",
    "new_in_validation": "new messages for validation",
    "new_in_holdout": "new messages in the hold-out",
    "new_near_another_part": "new messages left out: similar to the hold-out, or to two parts",
    "new_messages_that_fit_no_label": "new messages that fit no label",
    "decisions_without_text": "decisions without the message's text",
}
"""Descriptions of the counts in ``Proposal.changes``, which may have others."""


@dataclass(frozen=True, slots=True)
class AdapterName:
    """An adapter and what kind of model it is."""

    name: str
    digest: Annotated[str, Pattern(_SHA256)]
    kind: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of messages (0 to 1) for both adapters, and the difference (proposed minus current)
    with its 95 % interval. ``current``, the difference and the interval are None without a current
    adapter."""

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
    """A proposed adapter, with the reasons for and against it."""

    schema: Literal["proposal/1"]
    id: Annotated[str, Pattern(r"^[0-9a-f]{32}$")]
    created_at: str
    verdict: Verdict
    headline: Annotated[str, Doc("Whether to publish it as a canary, in one sentence.")]
    reasons_for: tuple[str, ...]
    reasons_against: tuple[str, ...]
    adapter: AdapterName
    current: AdapterName | None
    dataset_name: str
    dataset: Annotated[str, Doc("Digest of the new dataset version.")]
    dataset_before: Annotated[str | None, Doc("Digest of the version before.")]
    changes: Annotated[Mapping[str, int], Doc("Changes to the dataset: counts by name.")]
    figures: tuple[Figure, ...]
    gate: tuple[GateRow, ...]
    canary_share: Annotated[float, Range(0, 1), Doc("Recommended share of the keys for a canary.")]

    def __post_init__(self) -> None:  # raises ValueError
        check_time("created_at", self.created_at)


@dataclass(frozen=True, slots=True)
class ProposalDecision:
    """The data owner's decision about a proposal. ``decided_by`` is a pseudonym; ``share`` None
    means ``Proposal.canary_share``."""

    schema: Literal["proposal-decision/1"]
    proposal: Annotated[str, Pattern(r"^[0-9a-f]{32}$"), Doc("The proposal's id.")]
    adapter: Annotated[str, Pattern(_SHA256), Doc("Digest of the proposed adapter.")]
    publish: bool
    decided_by: Annotated[str, Pattern(PSEUDONYM)]
    decided_at: str
    reason: str = ""
    share: Annotated[float, Range(0, 1)] | None = None

    def __post_init__(self) -> None:  # raises ValueError
        check_time("decided_at", self.decided_at)


def write_proposal(path: Path, proposal: Proposal) -> None:
    """Raises OSError."""
    write_json(path, proposal)


def read_proposal(path: Path) -> Proposal:
    """Raises RecordRefused."""
    return read_json(Proposal, read_text(path), path.name)


def write_decision(path: Path, decision: ProposalDecision) -> None:
    """Raises OSError."""
    write_json(path, decision)


def read_decision(path: Path, proposal: Proposal | None = None) -> ProposalDecision:
    """Raises RecordRefused, also if the decision is about another proposal than ``proposal``."""
    found = read_json(ProposalDecision, read_text(path), path.name)
    if proposal is not None and (found.proposal, found.adapter) != (
        proposal.id,
        proposal.adapter.digest,
    ):
        raise RecordRefused(path.name, "is about another proposal: decide on this one")
    return found
