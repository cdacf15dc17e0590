"""A proposal: the next adapter beside the one in service, and whether it is worth a trial.

The trainer writes it, the desk shows it, and a person answers it with a ``ProposalDecision``. It
holds figures and labels, and no message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from worker.contract.circle.files import read_text, write_json
from worker.contract.errors import RecordRefused
from worker.contract.marks import Doc, Pattern, Range
from worker.contract.records.identity import check_time
from worker.contract.records.wire import read_json

Verdict = Literal["publish", "not_worth_it", "refused"]
"""It is better, and the gate lets it pass; it is as good, and a change is not worth it; it is
worse, or the gate says no."""

_SHA256 = r"^[0-9a-f]{64}$"
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
