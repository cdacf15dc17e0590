"""Rows whose label is probably wrong, by models that did not learn them, by finer labels too."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.check.finding import SUBLABELS, SUSPECTS, Finding, grade
from trainer.check.out_of_fold import FOLDS, OutOfFold, cross_val_predict
from trainer.dataset.folder import Example
from trainer.statistics.label_noise import WrongShare, wrong_share

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
    from cleanlab.rank import get_self_confidence_for_each_label  # takes seconds

    return np.asarray(get_self_confidence_for_each_label(labels, probabilities))


def flag(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], method: str = METHODS[0]
) -> NDArray[np.bool_]:
    """Return which rows (rows,) are probably mislabelled.

    ``probabilities`` (rows, classes) must come from models that did not learn their row; every
    class needs a row. Northcutt, Jiang and Chuang 2021, arXiv 1911.00068: the number to flag is
    estimated per pair of classes, with thresholds that allow for a model's over-confidence.
    """
    from cleanlab.filter import find_label_issues

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
        f"models that saw neither it nor a near-copy give {suggested} {share:.0%} and "
        f"{example.label} {1 - confidence:.0%}"
    )
    labels = [example.label for example in similar]
    if labels:
        agree = labels.count(suggested)
        reason += f"; {agree} of the {len(labels)} most similar messages are under {suggested}"
    return Suspect(example, suggested, confidence, reason, similar)


def expected_wrong(
    examples: Sequence[Example], out_of_fold: OutOfFold, vouched: Collection[str]
) -> WrongShare:
    """Return the share of the examples' labels that is wrong. A label that a person decided on
    (``vouched``, ids) counts as right."""
    own, probabilities = out_of_fold.own, out_of_fold.probabilities
    decided = np.array([example.id in vouched for example in examples], dtype=np.bool_)
    return wrong_share(own, probabilities, vouched=decided)


def check_suspects(
    suspects: Sequence[Suspect],
    out_of_fold: OutOfFold,
    *,
    vouched: int,
    most: float,
    expected: WrongShare,
    groups: int = 0,
) -> Finding:
    """One in a hundred is what careful people leave, and warns; above ``most`` fails.

    ``expected`` is the share that is probably wrong, which the queue may hold more or less than.
    ``groups`` counts the messages that share a thread or customer with another one; None: the
    dataset has such groups and does not hold them, so that they may vouch for each other.
    """
    examples = len(out_of_fold.own)
    share = len(suspects) / examples
    moves = Counter((suspect.example.label, suspect.suggested) for suspect in suspects)
    per_label = Counter(suspect.example.label for suspect in suspects)
    sizes: Mapping[int, int] = Counter(out_of_fold.own.tolist())
    figures = {
        "suspects": len(suspects),
        "share": round(share, 4),
        "expected_wrong": {
            "slips": round(expected.value, 4),
            "slips_interval_95": [round(expected.low, 4), round(expected.high, 4)],
            "at_most": round(expected.most, 4),
        },
        "vouched": vouched,
        "not_judged": int((~out_of_fold.judged).sum()),
        "in_groups": groups,
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
    found = f"{len(suspects):,} of {examples:,} labels ({share:.1%}) are doubted"
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


_OWN, _OTHER = 0.25, 0.5
_LEAST = 10


def check_sublabels(
    examples: Sequence[Example], out_of_fold: OutOfFold, tick: Callable[[int], None]
) -> Finding:
    """Hide whole sublabels from a model of the labels and see how it classifies them.

    A sublabel that it classifies otherwise (another label more than half of its probability, its
    own less than a quarter) was put under a label that the rest of the data does not explain: a
    question to the taxonomy's owner, not to an annotator. Labels with a single sublabel cannot be
    asked so. A sublabel under several labels is told as well.
    """
    under: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        if example.sublabel is not None:
            under[example.sublabel][example.label] += 1
    if not under:
        return Finding(SUBLABELS, "skipped", "the examples have no sublabels")
    several = {name: dict(found.most_common()) for name, found in under.items() if len(found) > 1}
    folds = assign_sublabel_folds(examples)
    if len(np.unique(folds)) < 2:
        found = f"{len(under)} sublabels, one a label"
        return Finding(
            SUBLABELS, "ok", found, "", {"sublabels": len(under), "under_several": several}
        )
    unseen = cross_val_predict(
        out_of_fold.features, out_of_fold.own, folds, len(out_of_fold.labels), tick=tick
    )
    misplaced = _misplaced(examples, out_of_fold.labels, folds, unseen)
    figures = {"sublabels": len(under), "misplaced": misplaced, "under_several": several}
    words = [f"{len(under)} sublabels, {len(misplaced)} look misplaced"]
    if several:
        words.append(f"{len(several)} occur under several labels")
    advice = []
    if misplaced:
        pairs = "; ".join(
            f"{found['sublabel']} ({found['label']}) reads like {found['reads_like']}"
            for found in misplaced[:4]
        )
        advice.append(f"Ask whoever owns the taxonomy: {pairs}.")
    if several:
        advice.append(f"Put each sublabel under one label: {', '.join(sorted(several)[:4])}.")
    return Finding(
        SUBLABELS,
        "warn" if misplaced or several else "ok",
        ", ".join(words),
        " ".join(advice),
        figures,
    )


def assign_sublabel_folds(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Assign whole sublabels to folds, label by label, so that no label is hidden whole; rows of
    labels with a single sublabel get the fold -1 of what is never judged."""
    groups: dict[str, list[str | None]] = defaultdict(list)
    for example in examples:
        if example.sublabel not in groups[example.label]:
            groups[example.label].append(example.sublabel)
    fold: dict[tuple[str, str | None], int] = {}
    offset = 0
    for label, names in sorted(groups.items()):
        for place, name in enumerate(sorted(names, key=lambda sublabel: sublabel or "")):
            fold[label, name] = (offset + place) % FOLDS if len(names) > 1 else -1
        offset += len(names)
    return np.array([fold[example.label, example.sublabel] for example in examples], dtype=np.int64)


def _misplaced(
    examples: Sequence[Example],
    labels: Sequence[str],
    folds: NDArray[np.int64],
    unseen: NDArray[np.float64],
) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    for at, example in enumerate(examples):
        if example.sublabel is not None and folds[at] >= 0:
            rows[example.label, example.sublabel].append(at)
    misplaced: list[dict[str, Any]] = []
    for (label, name), places in rows.items():
        mean = unseen[places].mean(axis=0)
        own, best = labels.index(label), int(mean.argmax())
        if len(places) >= _LEAST and best != own and mean[best] > _OTHER and mean[own] < _OWN:
            misplaced.append(
                {
                    "sublabel": name,
                    "label": label,
                    "examples": len(places),
                    "own": round(float(mean[own]), 3),
                    "reads_like": labels[best],
                    "other": round(float(mean[best]), 3),
                }
            )
    return sorted(misplaced, key=lambda found: (found["own"], found["sublabel"]))
