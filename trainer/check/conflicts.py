"""The same message, or nearly the same, under two labels: nobody can learn both."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from trainer.check.finding import Finding, grade
from trainer.check.likeness import Fingerprint, near_pairs
from trainer.dataset.examples import Example

_LISTED = 50
_NEAR_A_MESSAGE = 5
_EXACT_FAIL = 0.01
_NEAR_WARN = 0.01


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two examples with different labels; ``exact`` where one message is a copy of the other."""

    one: Example
    other: Example
    similarity: float
    exact: bool


def find_conflicts(
    examples: Sequence[Example], prints: Sequence[Fingerprint], similarity: float
) -> tuple[Conflict, ...]:
    """Return the pairs of copies and near-copies with different labels, nearest first; at most
    five for each message."""

    def skip(one: int, other: int) -> bool:
        return one >= other or examples[one].label == examples[other].label

    pieces = [one.pieces for one in prints]
    pairs = near_pairs(pieces, pieces, similarity, skip=skip, most=_NEAR_A_MESSAGE)
    found = [
        Conflict(examples[one], examples[other], value, prints[one].key == prints[other].key)
        for one, other, value in pairs
    ]
    return tuple(sorted(found, key=_order))


def _order(one: Conflict) -> tuple[bool, float, str, str]:
    return (not one.exact, -one.similarity, one.one.id, one.other.id)


def check_conflicts(conflicts: Sequence[Conflict], examples: int) -> Finding:
    """Copies under two labels warn, and fail above one in a hundred messages; near-copies warn
    above that."""
    kinds: dict[str, set[str]] = defaultdict(set)
    for one in conflicts:
        kinds["exact" if one.exact else "near"] |= {one.one.id, one.other.id}
    exact, near = len(kinds["exact"]) / max(1, examples), len(kinds["near"]) / max(1, examples)
    verdict = grade(exact, warn=0.0, fail=_EXACT_FAIL)
    if verdict == "ok" and near > _NEAR_WARN:
        verdict = "warn"
    figures = {
        "exact_messages": len(kinds["exact"]),
        "near_messages": len(kinds["near"]),
        "pairs": [
            {
                "ids": [one.one.id, one.other.id],
                "labels": [one.one.label, one.other.label],
                "similarity": round(one.similarity, 3),
            }
            for one in conflicts[:_LISTED]
        ],
    }
    found = (
        f"{len(kinds['exact']):,} messages have a copy under another label, "
        f"{len(kinds['near']):,} a near-copy"
    )
    advice = ""
    if verdict != "ok":
        advice = (
            "Decide which label is right: the review queue names the doubtful ones; the pairs' "
            "ids are in the result."
        )
    return Finding("label conflicts", verdict, found, advice, figures)
