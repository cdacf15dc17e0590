"""What trainer and desk hand each other, as files: what people are asked, and what came of it.

- ``Task``: a message that a person is asked about, and why (JSON Lines, ``clerk-trainer tasks``);
- ``Answer``: what a person decided (CSV, ``clerk-desk export``, ``prepare --decisions``);
- ``Advice``: what the decisions say about the labels themselves (JSON, ``clerk-trainer advise``);
- ``Proposal``: the next adapter, and whether it is worth a trial (JSON, ``clerk-trainer propose``);
- ``ProposalDecision``: what a person decided about it (JSON, the desk or the command line).

Each has a version of its own. A field is never renamed, retyped or dropped within one; new ones may
be added, and readers pass over those that they do not know.
"""

from worker.contract.circle.advice import (
    Advice,
    AdviceKind,
    AdviceMessage,
    Finding,
    read_advice,
    write_advice,
)
from worker.contract.circle.answer import (
    ANSWER_COLUMNS,
    Answer,
    parse_answer,
    read_answers,
    save_answers,
    write_answers,
)
from worker.contract.circle.proposal import (
    CHANGES,
    AdapterName,
    Figure,
    GateRow,
    Proposal,
    ProposalDecision,
    Verdict,
    read_decision,
    read_proposal,
    write_decision,
    write_proposal,
)
from worker.contract.circle.task import (
    LabelSource,
    Neighbour,
    Purpose,
    Task,
    parse_tasks,
    read_tasks,
    task_id,
    write_tasks,
)

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
