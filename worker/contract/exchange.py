"""The files that trainer and desk exchange, in the order in which they are made.

- ``Task``: a question to reviewers about one message (JSON Lines, ``clerk-trainer tasks``);
- ``Suggestion``: a guess at a message's label (JSON Lines, ``clerk-trainer suggest``);
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
"""Why reviewers are asked: ``check``, the label may be wrong; ``audit``, the message is one of a
random sample, decided blind; ``learn``, it has no label yet, and one would help the model most."""

LabelSource = Literal["export", "person", "teacher"]
"""Who gave a label: the system that exported the messages, a reviewer, or another model."""

_SHA256 = r"^[0-9a-f]{64}$"
_TASK_ID = r"^[0-9a-f]{32}$"


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A similar message with an undisputed label, shown for comparison."""

    text: Annotated[str, Doc("The text of the message.")]
    label: Annotated[str, Doc("Its label.")]
    message_id: Annotated[
        str | None, Doc("Its id, so that it can be deleted with its sender's messages.")
    ] = None


@dataclass(frozen=True, slots=True)
class Task:
    """One message for a reviewer to decide on.

    A task with the purpose ``audit`` cannot carry a label, a suggestion, or a score: a program
    that shows it then cannot reveal what the hold-out or the model says.
    """

    schema: Annotated[Literal["tasks/1"], Doc("The version of this format.")]
    id: Annotated[
        str, Pattern(_TASK_ID), Doc("The same question always has the same id: see task_id.")
    ]
    message_id: Annotated[str, Doc("The message's id in its dataset or file.")]
    message_sha256: Annotated[
        str, Pattern(_SHA256), Doc("SHA-256 of the normalized text (worker.contract.text).")
    ]
    text: Annotated[str, Doc("The text of the message.")]
    purpose: Annotated[
        Purpose,
        Doc(
            "check: the label may be wrong; audit: the message is one of a random sample, decided "
            "blind; learn: it has no label yet."
        ),
    ]
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
    neighbours: Annotated[
        tuple[Neighbour, ...], Doc("Similar messages with undisputed labels, for comparison.")
    ] = ()
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


# --- Suggestions: which message to label next, and what a cheap model says of it ---


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A message that has no label yet, and a guess at it. The file's lines are in the order in
    which labels would teach most."""

    schema: Annotated[Literal["suggestions/1"], Doc("The version of this format.")]
    message_sha256: Annotated[
        str, Pattern(_SHA256), Doc("SHA-256 of the normalized text (worker.contract.text).")
    ]
    label: Annotated[str, Doc("The label that the model suggests.")]
    confidence: Annotated[Probability, Doc("The model's probability of it.")]


def write_suggestions(path: Path, suggestions: Iterable[Suggestion]) -> None:
    """Raises OSError."""
    write_atomically(path, b"".join(to_json(each) + b"\n" for each in suggestions), mode=PRIVATE)


def read_suggestions(path: Path) -> tuple[Suggestion, ...]:
    """Raises RecordRefused with the line at fault."""
    lines = enumerate(read_text(path).split("\n"), start=1)
    return tuple(
        read_json(Suggestion, line, f"{path.name}:{number}") for number, line in lines if line
    )


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
    """One decision of a reviewer."""

    id: Annotated[str, Doc("Id of the message in its dataset or export.")]
    message_sha256: Annotated[str, Doc("Hexadecimal SHA-256 of the normalized text.")]
    decision: Annotated[
        DecisionWord,
        Doc("accept: the label is right; relabel: it is new_label; drop: no label fits."),
    ]
    new_label: Annotated[str, Doc("The right label, for relabel; otherwise empty.")] = ""
    note: Annotated[str, Doc("Free text of the reviewer; may quote the message.")] = ""
    decided_by: Annotated[str, Doc("Who decided, as a pseudonym.")] = ""
    task_id: Annotated[str | None, Doc("Id of the task that this answers, if any.")] = None
    purpose: Annotated[Purpose | None, Doc("The purpose of the task.")] = None
    batch: Annotated[str | None, Doc("The batch of the task.")] = None
    guideline: Annotated[
        str | None, Doc("Version of the labelling guideline that was followed.")
    ] = None
    label_source: Annotated[
        LabelSource, Doc("Who gave the label: the export, a reviewer, or another model (teacher).")
    ] = "person"
    decided_at: Annotated[str | None, Doc("When, RFC 3339 in UTC.")] = None
    role: Annotated[
        AnswerRole,
        Doc("outcome: the decision that counts; opinion: that of one of several reviewers."),
    ] = "outcome"

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
    """A message that supports a finding."""

    id: Annotated[str, Doc("Id of the message in its dataset.")]
    message_sha256: Annotated[str, Doc("Hexadecimal SHA-256 of the normalized text.")]
    label: Annotated[str | None, Doc("Its label; null if it has none.")] = None
    text: Annotated[str | None, Doc("Its text; null if texts were left out.")] = None
    part: Annotated[
        int, Doc("Number of the group within the finding, such as the halves of a split.")
    ] = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One change for the data owner to consider."""

    kind: Annotated[AdviceKind, Doc("What was found.")]
    labels: Annotated[tuple[str, ...], Doc("The labels that it is about.")]
    title: Annotated[str, Doc("One sentence.")]
    evidence: Annotated[str, Doc("The evidence in one sentence, with figures.")]
    advice: Annotated[str, Doc("What to do.")]
    gain: Annotated[str, Doc("The benefit of following the advice.")]
    cost: Annotated[str, Doc("The cost of following the advice.")]
    figures: Annotated[Mapping[str, float], Doc("The figures behind it, by name.")]
    messages: Annotated[tuple[AdviceMessage, ...], Doc("Messages that support it.")]
    p_value: Annotated[Probability | None, Doc("Probability of this much evidence by chance.")] = (
        None
    )


@dataclass(frozen=True, slots=True)
class Advice:
    """All findings about a dataset and the decisions since."""

    schema: Annotated[Literal["advice/1"], Doc("The version of this format.")]
    created_at: Annotated[str, Doc("When, RFC 3339 in UTC.")]
    dataset_name: Annotated[str, Doc("Name of the dataset.")]
    dataset: Annotated[str, Doc("The dataset's digest.")]
    taxonomy: Annotated[str, Doc("The taxonomy's digest.")]
    guideline: Annotated[str | None, Doc("Current version of the labelling guideline, if known.")]
    decisions: Annotated[int, Doc("Messages with a decision.")]
    doubly: Annotated[int, Doc("Messages that two or more reviewers decided on.")]
    texts: Annotated[bool, Doc("Whether the findings quote messages.")]
    findings: Annotated[tuple[Finding, ...], Doc("The findings, most important first.")]


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

    name: Annotated[str, Doc("Name of the adapter.")]
    digest: Annotated[str, Pattern(_SHA256), Doc("SHA-256 of its manifest.")]
    kind: Annotated[str, Doc("Kind of model.")]


@dataclass(frozen=True, slots=True)
class Figure:
    """A share of messages (0 to 1) for both adapters, and the difference (proposed minus current)
    with its 95 % interval. ``current``, the difference and the interval are None without a current
    adapter."""

    name: Annotated[str, Doc("What was measured.")]
    messages: Annotated[int, Doc("Number of messages it was measured on.")]
    proposed: Annotated[float, Doc("Share for the proposed adapter.")]
    current: Annotated[float | None, Doc("Share for the current adapter; null without one.")]
    difference: Annotated[float | None, Doc("Proposed minus current.")]
    low: Annotated[float | None, Doc("Lower end of its 95 % interval.")]
    high: Annotated[float | None, Doc("Upper end of its 95 % interval.")]
    lower_is_better: Annotated[bool, Doc("Whether a smaller share is better.")] = False


@dataclass(frozen=True, slots=True)
class GateRow:
    """One criterion of the gate."""

    name: Annotated[str, Doc("The criterion.")]
    wanted: Annotated[str, Doc("What the gate wants.")]
    found: Annotated[str, Doc("What was measured.")]
    passed: Annotated[bool, Doc("Whether it passed.")]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A proposed adapter, with the reasons for and against it."""

    schema: Annotated[Literal["proposal/1"], Doc("The version of this format.")]
    id: Annotated[str, Pattern(r"^[0-9a-f]{32}$"), Doc("Id of the proposal.")]
    created_at: Annotated[str, Doc("When, RFC 3339 in UTC.")]
    verdict: Annotated[
        Verdict,
        Doc(
            "publish; not_worth_it: not better enough to change; refused: worse, or refused by the "
            "gate."
        ),
    ]
    headline: Annotated[str, Doc("Whether to publish it as a canary, in one sentence.")]
    reasons_for: Annotated[tuple[str, ...], Doc("Reasons to publish it, in sentences.")]
    reasons_against: Annotated[tuple[str, ...], Doc("Reasons not to, in sentences.")]
    adapter: Annotated[AdapterName, Doc("The proposed adapter.")]
    current: Annotated[AdapterName | None, Doc("The adapter in service; null without one.")]
    dataset_name: Annotated[str, Doc("Name of the dataset.")]
    dataset: Annotated[str, Doc("Digest of the new dataset version.")]
    dataset_before: Annotated[str | None, Doc("Digest of the version before.")]
    changes: Annotated[Mapping[str, int], Doc("Changes to the dataset: counts by name.")]
    figures: Annotated[tuple[Figure, ...], Doc("Figures of both adapters.")]
    gate: Annotated[tuple[GateRow, ...], Doc("The criteria of the gate.")]
    canary_share: Annotated[float, Range(0, 1), Doc("Recommended share of the keys for a canary.")]

    def __post_init__(self) -> None:  # raises ValueError
        check_time("created_at", self.created_at)


@dataclass(frozen=True, slots=True)
class ProposalDecision:
    """The data owner's decision about a proposal."""

    schema: Annotated[Literal["proposal-decision/1"], Doc("The version of this format.")]
    proposal: Annotated[str, Pattern(r"^[0-9a-f]{32}$"), Doc("The proposal's id.")]
    adapter: Annotated[str, Pattern(_SHA256), Doc("Digest of the proposed adapter.")]
    publish: Annotated[bool, Doc("Whether to publish the adapter as a canary.")]
    decided_by: Annotated[str, Pattern(PSEUDONYM), Doc("Who decided, as a pseudonym.")]
    decided_at: Annotated[str, Doc("When, RFC 3339 in UTC.")]
    reason: Annotated[str, Doc("Why, in words.")] = ""
    share: Annotated[
        Annotated[float, Range(0, 1)] | None,
        Doc("Share of the keys for the canary; null: that of the proposal."),
    ] = None

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
