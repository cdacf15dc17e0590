"""A second opinion on every label, from models that did not learn the message they judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.check.model import (
    FOLDS,
    Matrix,
    deal,
    embedding_features,
    out_of_fold,
    sum_per_label,
    text_features,
    unit,
)
from trainer.dataset.examples import Example

LEAST_EXAMPLES = 50
"""Below so many the models know too little to doubt anybody's label."""

_LEAST_SUBLABEL = 5
_MOST_SUBLABELS = 500


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What the models think. ``probabilities`` (examples, labels) is over ``labels``, those that
    occur; ``own`` (examples,) are their indexes as given. ``features`` are unit vectors."""

    labels: tuple[str, ...]
    own: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    features: Matrix
    detector: str

    @property
    def agreement(self) -> float:
        """Share of the examples whose likeliest label is the given one."""
        return float((self.probabilities.argmax(axis=1) == self.own).mean())


def judge(
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    embeddings: Path | None,
    seed: int,
    tick: Callable[[str, int], None] = lambda _what, _count: None,
) -> OutOfFold:
    """Ask a model of word pieces and, with ``embeddings`` (a directory), of sentence embeddings.

    Where examples have sublabels the model is of these, and their probabilities are added up for
    each label: small, tight groups are easier to tell apart (docs/figures.md has the
    measurement). ``tick`` is told the step's name and how many of its parts are done.
    """
    messages = [one.message for one in examples]
    parts = [text_features(messages)]
    tick("word pieces", 1)
    if embeddings is not None:
        parts.append(embedding_features(messages, embeddings))
        tick("embeddings", 1)
    features = np.concatenate(parts, axis=1)
    labels = tuple(name for name in names if any(one.label == name for one in examples))
    index = {name: at for at, name in enumerate(labels)}
    own = np.array([index[one.label] for one in examples], dtype=np.int64)
    groups, label_of = sublabels(examples, index)

    def count(done: int) -> None:
        tick("folds", done)

    if groups is None:
        found = out_of_fold(features, own, deal(own, seed), len(labels), tick=count)
    else:
        folds = deal(groups, seed)
        fine = out_of_fold(features, groups, folds, len(label_of), fine=True, tick=count)
        found = sum_per_label(fine, label_of, len(labels))
    what = "word pieces and sentence embeddings" if embeddings else "word pieces"
    over = "labels" if groups is None else f"{len(label_of)} sublabels"
    detector = f"{what}, logistic regression over {over}, {FOLDS} folds"
    return OutOfFold(labels, own, _rows_to_one(found), unit(features), detector)


def sublabels(
    examples: Sequence[Example], index: dict[str, int]
) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Number the sublabels within their labels: (group of each example, label of each group).

    Sublabels with fewer than five examples under a label are one group. None where most examples
    have no sublabel, or where there are too many or no more than labels.
    """
    with_one = sum(one.sublabel is not None for one in examples)
    counts = Counter((one.label, one.sublabel) for one in examples)
    keys = [
        (one.label, one.sublabel if counts[one.label, one.sublabel] >= _LEAST_SUBLABEL else None)
        for one in examples
    ]
    found = sorted(set(keys), key=lambda key: (index[key[0]], key[1] or ""))
    if with_one < len(examples) / 2 or not len(index) < len(found) <= _MOST_SUBLABELS:
        return None, np.empty(0, dtype=np.int64)
    place = {key: at for at, key in enumerate(found)}
    label_of = np.array([index[label] for label, _ in found], dtype=np.int64)
    return np.array([place[key] for key in keys], dtype=np.int64), label_of


def _rows_to_one(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of zeros (a group none of whose members could be learnt) become even odds."""
    found = np.maximum(found, 1e-9)
    return np.asarray(found / found.sum(axis=1, keepdims=True))
