"""Labels that are probably wrong: ranked, with a suggestion and evidence for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.check.confident import self_confidence, suspect
from trainer.check.detect import OutOfFold
from trainer.check.finding import Finding, grade
from trainer.dataset.examples import Example

NAME = "suspected wrong labels"
SIMILAR = 3
_WARN = 0.01
_LISTED = 100


@dataclass(frozen=True, slots=True)
class Suspect:
    """An example whose label is doubted. ``confidence`` is the models' probability that the label
    is wrong; ``similar`` are the nearest messages whose own labels nobody doubts."""

    example: Example
    suggested: str
    confidence: float
    reason: str
    similar: tuple[Example, ...]


def find_suspects(
    examples: Sequence[Example], opinion: OutOfFold, vouched: Collection[str]
) -> tuple[Suspect, ...]:
    """Return the doubted examples, the surest first. ``vouched`` are ids that a person decided
    on: they are not doubted again."""
    own, probabilities = opinion.own, opinion.probabilities
    doubted = suspect(own, probabilities)
    trusted = ~doubted
    doubted &= np.array([one.id not in vouched for one in examples])
    confidence = 1 - self_confidence(own, probabilities)
    others = probabilities.copy()
    others[np.arange(len(own)), own] = -1
    suggested = others.argmax(axis=1)
    places = np.flatnonzero(doubted)
    order = places[np.argsort(-confidence[places], kind="stable")]
    near = nearest(opinion.features, order, trusted)
    return tuple(
        _suspect(
            examples[at],
            opinion.labels[suggested[at]],
            float(confidence[at]),
            float(probabilities[at, suggested[at]]),
            tuple(examples[other] for other in row),
        )
        for at, row in zip(order.tolist(), near, strict=True)
    )


def nearest(
    features: NDArray[np.float32], asked: NDArray[np.int64], trusted: NDArray[np.bool_]
) -> list[list[int]]:
    """Return for each asked row the three trusted rows of greatest cosine, nearest first."""
    pool = np.flatnonzero(trusted)
    found = []
    for start in range(0, len(asked), 256):
        chunk = asked[start : start + 256]
        cosine = features[chunk] @ features[pool].T
        cosine[pool[None, :] == chunk[:, None]] = -2
        best = np.argsort(-cosine, axis=1, kind="stable")[:, :SIMILAR]
        found += pool[best].tolist()
    return found


def _suspect(
    example: Example, suggested: str, confidence: float, share: float, similar: tuple[Example, ...]
) -> Suspect:
    reason = (
        f"models that did not see it give {suggested} {share:.0%} and {example.label} "
        f"{1 - confidence:.0%}"
    )
    labels = [one.label for one in similar]
    if labels:
        agree = labels.count(suggested)
        reason += f"; {agree} of the {len(labels)} most similar messages are under {suggested}"
    return Suspect(example, suggested, confidence, reason, similar)


def check_suspects(
    suspects: Sequence[Suspect], opinion: OutOfFold, *, vouched: int, most: float
) -> Finding:
    """One in a hundred is what careful people leave, and warns; above ``most`` fails."""
    examples = len(opinion.own)
    share = len(suspects) / examples
    moves = Counter((one.example.label, one.suggested) for one in suspects)
    per_label = Counter(one.example.label for one in suspects)
    sizes: Mapping[int, int] = Counter(opinion.own.tolist())
    figures = {
        "suspects": len(suspects),
        "share": round(share, 4),
        "vouched": vouched,
        "detector": opinion.detector,
        "agreement": round(opinion.agreement, 4),
        "per_label": {
            name: {"suspects": per_label[name], "share": round(per_label[name] / sizes[at], 4)}
            for at, name in enumerate(opinion.labels)
        },
        "moves": [[one, other, count] for (one, other), count in moves.most_common(20)],
        "surest": [
            {
                "id": one.example.id,
                "label": one.example.label,
                "suggested_label": one.suggested,
                "confidence": round(one.confidence, 4),
                "similar": [other.id for other in one.similar],
            }
            for one in suspects[:_LISTED]
        ],
    }
    verdict = grade(share, warn=_WARN, fail=most)
    found = f"{len(suspects):,} of {examples:,} labels ({share:.1%}) are probably wrong"
    advice = ""
    if suspects:
        advice = (
            "Decide on the review queue from the top: accept, relabel or drop; then prepare "
            "again with --decisions. The first are the surest."
        )
    return Finding(NAME, verdict, found, advice, figures)
