"""What people said of each message, gathered from files of decisions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from worker.contract.exchange import Answer

NONE = ""
"""What stands for "no label fits"."""


@dataclass(slots=True)
class DecidedMessage:
    """One message that people decided on. ``opinions`` are independent labels of people (``NONE``:
    none fits): two of them are what agreement is measured by; ``outcome`` is what counts."""

    id: str
    message_sha256: str
    outcome: str | None = None
    guideline: str | None = None
    opinions: list[str] = field(default_factory=list)

    @property
    def doubly(self) -> bool:
        """Whether two people or more decided on it, each alone."""
        return len(self.opinions) > 1


def gather(answers: Iterable[Answer], labels: Mapping[str, str]) -> dict[str, DecidedMessage]:
    """Return the decided messages by their digest. ``labels`` maps digests to the labels that the
    dataset gives.

    A label that an audit gave blind stands beside the label that the hold-out has: two opinions,
    each without the other. A decision that showed a label or a suggestion does not: whoever sees
    one agrees too often.
    """
    found: dict[str, DecidedMessage] = {}
    for answer in answers:
        sha256 = answer.message_sha256
        decided = found.setdefault(sha256, DecidedMessage(answer.id, sha256))
        label = _label(answer, labels)
        if label is None:
            continue
        if answer.role == "opinion":
            decided.opinions.append(label)
            continue
        decided.outcome, decided.guideline = label, answer.guideline
        if answer.purpose == "audit" and not decided.opinions and sha256 in labels:
            decided.opinions = [labels[sha256], label]
    return found


def _label(answer: Answer, labels: Mapping[str, str]) -> str | None:
    """Return the label that a decision comes to; None where the one that it accepts is unknown."""
    if answer.decision == "drop":
        return NONE
    return answer.new_label or labels.get(answer.message_sha256)
