"""Sublabels that look as if they belonged under another label."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.check.detect import OutOfFold
from trainer.check.finding import Finding
from trainer.check.model import FOLDS, out_of_fold
from trainer.dataset.examples import Example

NAME = "sublabels"
_OWN, _OTHER = 0.25, 0.5
_LEAST = 10


def check_sublabels(
    examples: Sequence[Example], opinion: OutOfFold, tick: Callable[[int], None]
) -> Finding:
    """Hide whole sublabels from a model of the labels and see where it files them.

    A sublabel that it files elsewhere (another label more than half of its probability, its own
    less than a quarter) was put under a label that the rest of the data does not explain: a
    question to the taxonomy's owner, not to an annotator. Labels with one sublabel cannot be
    asked so. A sublabel under several labels is told as well.
    """
    under: dict[str, Counter[str]] = defaultdict(Counter)
    for one in examples:
        if one.sublabel is not None:
            under[one.sublabel][one.label] += 1
    if not under:
        return Finding(NAME, "skipped", "the examples have no sublabels")
    several = {name: dict(found.most_common()) for name, found in under.items() if len(found) > 1}
    folds = hide(examples)
    if len(np.unique(folds)) < 2:
        found = f"{len(under)} sublabels, one a label"
        return Finding(NAME, "ok", found, "", {"sublabels": len(under), "under_several": several})
    found_elsewhere = out_of_fold(
        opinion.features, opinion.own, folds, len(opinion.labels), tick=tick
    )
    misplaced = _misplaced(examples, opinion, found_elsewhere)
    figures = {"sublabels": len(under), "misplaced": misplaced, "under_several": several}
    words = [f"{len(under)} sublabels, {len(misplaced)} look misplaced"]
    if several:
        words.append(f"{len(several)} stand under several labels")
    advice = []
    if misplaced:
        pairs = "; ".join(
            f"{one['sublabel']} ({one['label']}) reads like {one['reads_like']}"
            for one in misplaced[:4]
        )
        advice.append(f"Ask whoever owns the taxonomy: {pairs}.")
    if several:
        advice.append(f"Put each sublabel under one label: {', '.join(sorted(several)[:4])}.")
    return Finding(
        NAME, "warn" if misplaced or several else "ok", ", ".join(words), " ".join(advice), figures
    )


def hide(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Deal whole sublabels into folds, label by label, so that no label is hidden whole; rows of
    labels with one sublabel get the fold -1 of what is never judged."""
    groups: dict[str, list[str | None]] = defaultdict(list)
    for one in examples:
        if one.sublabel not in groups[one.label]:
            groups[one.label].append(one.sublabel)
    fold: dict[tuple[str, str | None], int] = {}
    offset = 0
    for label, names in sorted(groups.items()):
        for place, name in enumerate(sorted(names, key=lambda one: one or "")):
            fold[label, name] = (offset + place) % FOLDS if len(names) > 1 else -1
        offset += len(names)
    return np.array([fold[one.label, one.sublabel] for one in examples], dtype=np.int64)


def _misplaced(
    examples: Sequence[Example], opinion: OutOfFold, found: NDArray[np.float64]
) -> list[dict[str, Any]]:
    rows: dict[tuple[str, str], list[int]] = defaultdict(list)
    folds = hide(examples)
    for at, one in enumerate(examples):
        if one.sublabel is not None and folds[at] >= 0:
            rows[one.label, one.sublabel].append(at)
    misplaced: list[dict[str, Any]] = []
    for (label, name), places in rows.items():
        mean = found[places].mean(axis=0)
        own, best = opinion.labels.index(label), int(mean.argmax())
        if len(places) >= _LEAST and best != own and mean[best] > _OTHER and mean[own] < _OWN:
            misplaced.append(
                {
                    "sublabel": name,
                    "label": label,
                    "examples": len(places),
                    "own": round(float(mean[own]), 3),
                    "reads_like": opinion.labels[best],
                    "other": round(float(mean[best]), 3),
                }
            )
    return sorted(misplaced, key=lambda one: (one["own"], one["sublabel"]))
