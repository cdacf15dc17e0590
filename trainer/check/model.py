"""A cheap model of the labels, for judging labels and not for serving. Imports ``sklearn``.

What a linear model on word pieces and sentence embeddings says of a message that it did not learn
is a second opinion on that message's label; ``suspects`` compares the two.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from worker.contract.text import normalize

Matrix = NDArray[np.float32]
Tick = Callable[[int], None]

FOLDS = 5
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIMENSIONS = 512
_SEED = 1
# Regularization and steps: docs/figures.md has the figures for the features together.
_C_TOGETHER = 3.0
_C_SUBLABELS = 10.0
_MAX_STEPS = 60


def text_features(messages: Sequence[str]) -> Matrix:
    """Return one unit vector a message, (messages, at most 512).

    TF-IDF of words (1-2 grams) and of characters within words (2-5 grams), as the baseline has
    it, projected to its largest singular vectors (Deerwester et al. 1990): five times as fast to
    learn from, at a little accuracy. Uses no labels.
    """
    union = make_union(
        TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, tokenizer=_TOKEN.findall, token_pattern=None
        ),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    sparse = union.fit_transform([normalize(one) for one in messages]).astype(np.float32)
    size = min(_DIMENSIONS, *(one - 1 for one in sparse.shape))
    if size < 1:
        return np.ones((len(messages), 1), dtype=np.float32)
    with np.errstate(invalid="ignore"):  # its share of the variance, where copies have none
        found = TruncatedSVD(size, n_iter=2, random_state=_SEED).fit_transform(sparse)
    return unit(np.asarray(found, dtype=np.float32))


def embedding_features(messages: Sequence[str], directory: Path) -> Matrix:
    """Return sentence embeddings, unit length, from a local model. Raises BadInput."""
    from trainer.model.embeddings import embed

    return embed(messages, directory)


def unit(rows: Matrix) -> Matrix:
    """Scale every row to length 1; a row of zeros stays."""
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(rows / length, dtype=np.float32)


def fit_predict(
    known: Matrix, targets: NDArray[np.int64], asked: Matrix, classes: int, *, fine: bool = False
) -> NDArray[np.float64]:
    """Learn ``targets`` (0..classes-1) and return probabilities for ``asked``, (asked, classes).

    A class without an example gets probability 0. ``fine`` is for many small classes.
    """
    found = np.zeros((len(asked), classes))
    present = np.unique(targets)
    if len(present) == 1:
        found[:, present[0]] = 1.0
        return found
    model = LogisticRegression(
        C=_C_SUBLABELS if fine else _C_TOGETHER, max_iter=_MAX_STEPS, tol=1e-3
    )
    with warnings.catch_warnings():
        # Stopped before the optimum on purpose: it regularizes, and saves half the time.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(known, targets)
    found[:, present] = model.predict_proba(asked)
    return found


def out_of_fold(
    features: Matrix,
    targets: NDArray[np.int64],
    folds: NDArray[np.int64],
    classes: int,
    *,
    fine: bool = False,
    tick: Tick = lambda _: None,
) -> NDArray[np.float64]:
    """Return for every row the probabilities from a model that did not learn its fold; rows of a
    negative fold are always learnt and get none."""
    found = np.zeros((len(targets), classes))
    for fold in np.unique(folds[folds >= 0]):
        rest, asked = folds != fold, folds == fold
        found[asked] = fit_predict(
            features[rest], targets[rest], features[asked], classes, fine=fine
        )
        tick(1)
    return found


def deal(targets: NDArray[np.int64], seed: int, folds: int = FOLDS) -> NDArray[np.int64]:
    """Deal rows into folds, class by class, so that each fold has its share of each class."""
    order = np.random.default_rng(seed).permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    found = np.empty(len(targets), dtype=np.int64)
    found[order] = np.arange(len(targets)) % folds
    return found


def sum_per_label(
    fine: NDArray[np.float64], label_of: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """Add up sublabels' probabilities, (rows, sublabels), to those of their labels."""
    found = np.zeros((len(fine), labels))
    for label in range(labels):
        found[:, label] = fine[:, label_of == label].sum(axis=1)
    return found
