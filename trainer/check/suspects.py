"""Labels that are probably wrong: ranked, with a suggestion and evidence for a person.

Which ones is decided by confident learning. The only file that imports ``cleanlab`` (2.9,
Apache-2.0).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_self_confidence_for_each_label
from numpy.typing import NDArray

from trainer.check.finding import Finding, grade
from trainer.check.out_of_fold import OutOfFold
from trainer.dataset.examples import Example

SUSPECTS = "suspected wrong labels"
SIMILAR = 3
_WARN = 0.01
_LISTED = 100

METHODS = ("prune_by_noise_rate", "low_self_confidence", "confident_learning")
"""How cleanlab decides which rows to flag; docs/figures.md has the figures of each."""

CERTAIN = 0.9
"""Doubt above which a label is suspected whatever the estimated number of errors is."""


@dataclass(frozen=True, slots=True)
class Suspect:
    """An example whose label is doubted. ``confidence`` is the models' probability that the label
    is wrong; ``similar`` are the nearest messages whose own labels nobody doubts."""

    example: Example
    suggested: str
    confidence: float
    reason: str
    similar: tuple[Example, ...]


def self_confidence(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the probability the model gives each row's own label, (rows,): the lower, the more
    suspect. On planted errors it ranked better than the normalized margin."""
    return np.asarray(get_self_confidence_for_each_label(labels, probabilities))


def flag(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], method: str = METHODS[0]
) -> NDArray[np.bool_]:
    """Return which rows (rows,) are probably mislabelled.

    ``probabilities`` (rows, classes) must come from models that did not learn their row; every
    class needs a row. Northcutt, Jiang and Chuang 2021, arXiv 1911.00068: the number to flag is
    estimated per pair of classes, with thresholds that allow for a model's over-confidence.
    """
    return np.asarray(
        find_label_issues(labels, probabilities, filter_by=method, n_jobs=1, verbose=False),
        dtype=bool,
    )


def doubtful(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which rows (rows,) belong in a review queue.

    Those that cleanlab flags, and those whose label the model would change and gives less than a
    tenth. The estimated number of errors is too low where errors are few: one in fifty planted,
    it found 91 % of them, and with the second rule 97 %, at 73 and 65 % precision.
    """
    other = probabilities.argmax(axis=1) != labels
    certain = other & (1 - self_confidence(labels, probabilities) > CERTAIN)
    return np.asarray(flag(labels, probabilities) | certain)


def find_suspects(
    examples: Sequence[Example], out_of_fold: OutOfFold, vouched: Collection[str]
) -> tuple[Suspect, ...]:
    """Return the doubted examples, the surest first. ``vouched`` are ids that a person decided
    on: they are not doubted again."""
    own, probabilities = out_of_fold.own, out_of_fold.probabilities
    doubted = doubtful(own, probabilities)
    trusted = ~doubted
    doubted &= np.array([example.id not in vouched for example in examples])
    confidence = 1 - self_confidence(own, probabilities)
    others = probabilities.copy()
    others[np.arange(len(own)), own] = -1
    suggested = others.argmax(axis=1)
    places = np.flatnonzero(doubted)
    order = places[np.argsort(-confidence[places], kind="stable")]
    near = nearest_trusted(out_of_fold.features, order, trusted)
    return tuple(
        _suspect(
            examples[at],
            out_of_fold.labels[suggested[at]],
            float(confidence[at]),
            float(probabilities[at, suggested[at]]),
            tuple(examples[other] for other in row),
        )
        for at, row in zip(order.tolist(), near, strict=True)
    )


def nearest_trusted(
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
    labels = [example.label for example in similar]
    if labels:
        agree = labels.count(suggested)
        reason += f"; {agree} of the {len(labels)} most similar messages are under {suggested}"
    return Suspect(example, suggested, confidence, reason, similar)


def check_suspects(
    suspects: Sequence[Suspect], out_of_fold: OutOfFold, *, vouched: int, most: float
) -> Finding:
    """One in a hundred is what careful people leave, and warns; above ``most`` fails."""
    examples = len(out_of_fold.own)
    share = len(suspects) / examples
    moves = Counter((suspect.example.label, suspect.suggested) for suspect in suspects)
    per_label = Counter(suspect.example.label for suspect in suspects)
    sizes: Mapping[int, int] = Counter(out_of_fold.own.tolist())
    figures = {
        "suspects": len(suspects),
        "share": round(share, 4),
        "vouched": vouched,
        "detector": out_of_fold.detector,
        "agreement": round(out_of_fold.agreement, 4),
        "per_label": {
            name: {"suspects": per_label[name], "share": round(per_label[name] / sizes[at], 4)}
            for at, name in enumerate(out_of_fold.labels)
        },
        "moves": [[label, suggested, count] for (label, suggested), count in moves.most_common(20)],
        "surest": [_describe(suspect) for suspect in suspects[:_LISTED]],
    }
    verdict = grade(share, warn=_WARN, fail=most)
    found = f"{len(suspects):,} of {examples:,} labels ({share:.1%}) are probably wrong"
    advice = ""
    if suspects:
        advice = (
            "Decide on the review queue from the top: accept, relabel or drop; then prepare "
            "again with --decisions. The first are the surest."
        )
    return Finding(SUSPECTS, verdict, found, advice, figures)


def _describe(suspect: Suspect) -> dict[str, object]:
    return {
        "id": suspect.example.id,
        "label": suspect.example.label,
        "suggested_label": suspect.suggested,
        "confidence": round(suspect.confidence, 4),
        "similar": [example.id for example in suspect.similar],
    }
