"""Sublabels that look as if they belonged under another label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.check.finding import Finding
from trainer.check.out_of_fold import FOLDS, OutOfFold, cross_val_predict
from trainer.dataset.examples import Example

SUBLABELS = "sublabels"
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
