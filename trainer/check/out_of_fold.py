"""What models say of labels that they did not learn: a second opinion on every one of them.

A linear model on TF-IDF and sentence embeddings is cheap, and there to judge labels, not to serve;
``suspects`` compares what it says of a message with the message's label. The only file of ``check``
that imports ``sklearn``.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.dataset.folder import Example
from worker.contract.text import normalize

Matrix = NDArray[np.float32]
Tick = Callable[[int], None]
Sublabel = tuple[str, str | None]
"""A label, and its sublabel or None."""

FOLDS = 5
LEAST_EXAMPLES = 50
"""With fewer examples the models know too little to doubt anybody's label."""

_LEAST_SUBLABEL = 5
_MOST_SUBLABELS = 500
_TOKEN = re.compile(r"\w+|[^\w\s]")
_DIMENSIONS = 512
_SEED = 1
# Regularization and steps: docs/figures.md has the figures for the features together.
_C_TOGETHER = 3.0
_C_SUBLABELS = 10.0
_MAX_STEPS = 60


@dataclass(frozen=True, slots=True)
class OutOfFold:
    """What the models think. ``probabilities`` (examples, labels) is over ``labels``, those that
    occur; ``own`` (examples,) are their indexes as given. ``features`` are unit vectors.

    ``judged`` (examples,) is False where every example of a label is a near-duplicate of the
    others: nothing would be left to know the label by. There the label has the probability 1.
    ``finer`` (examples, classes) is of the sublabels, where the models are of these: ``classes``
    has each with its label, and None for a label's rare ones together.
    """

    labels: tuple[str, ...]
    own: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    features: Matrix
    judged: NDArray[np.bool_]
    detector: str
    classes: tuple[Sublabel, ...] = ()
    finer: NDArray[np.float64] | None = None

    @property
    def agreement(self) -> float:
        """Share of the examples whose likeliest label is the given one."""
        return float((self.probabilities.argmax(axis=1) == self.own).mean())


def predict_out_of_fold(
    examples: Sequence[Example],
    names: Sequence[str],
    *,
    clusters: NDArray[np.int64],
    embeddings: Path | None,
    seed: int,
    tick: Callable[[str, int], None] = lambda _what, _count: None,
) -> OutOfFold:
    """Ask a model on TF-IDF and, with ``embeddings`` (a directory), of sentence embeddings.

    ``clusters`` (examples,) numbers the groups of near-duplicates: no message is judged by a model
    that learnt a near-duplicate of it, whose label is likely to be wrong in the same way.
    Where examples have sublabels the model is of these, and their probabilities are added up for
    each label: small, tight groups are easier to tell apart (docs/figures.md has the
    measurement). ``tick`` is told the step's name and how many of its parts are done.
    """
    messages = [example.message for example in examples]
    parts = [text_features(messages)]
    tick("TF-IDF", 1)
    if embeddings is not None:
        parts.append(embedding_features(messages, embeddings))
        tick("embeddings", 1)
    features = np.concatenate(parts, axis=1)
    present = {example.label for example in examples}
    labels = tuple(name for name in names if name in present)
    index = {name: at for at, name in enumerate(labels)}
    own = np.array([index[example.label] for example in examples], dtype=np.int64)
    groups, classes = group_sublabels(examples, index)

    def count(done: int) -> None:
        tick("folds", done)

    folds = assign_folds(own if groups is None else groups, clusters, seed)
    judged = ~_hidden_whole(own, folds)
    finer = None
    if groups is None:
        found = cross_val_predict(features, own, folds, len(labels), tick=count)
    else:
        finer = cross_val_predict(features, groups, folds, len(classes), fine=True, tick=count)
        label_of = np.array([index[label] for label, _ in classes], dtype=np.int64)
        found = sum_per_label(finer, label_of, len(labels))
        finer = _rows_to_one(finer)
        finer[~judged] = np.eye(len(classes))[groups[~judged]]
    found = _rows_to_one(found)
    found[~judged] = np.eye(len(labels))[own[~judged]]
    what = "TF-IDF and sentence embeddings" if embeddings else "TF-IDF"
    over = "labels" if groups is None else f"{len(classes)} sublabels"
    detector = f"{what}, logistic regression over {over}, {FOLDS} folds"
    return OutOfFold(
        labels, own, found, unit_rows(features), judged, detector, classes=classes, finer=finer
    )


def group_sublabels(
    examples: Sequence[Example], index: Mapping[str, int]
) -> tuple[NDArray[np.int64] | None, tuple[Sublabel, ...]]:
    """Number the sublabels within their labels: (group of each example, sublabel of each group).

    Sublabels with fewer than five examples under a label are one group. None where most examples
    have no sublabel, or where there are too many or no more than labels.
    """
    with_sublabel = sum(example.sublabel is not None for example in examples)
    counts = Counter((example.label, example.sublabel) for example in examples)
    keys = []
    for example in examples:
        is_rare = counts[example.label, example.sublabel] < _LEAST_SUBLABEL
        keys.append((example.label, None if is_rare else example.sublabel))
    found = sorted(set(keys), key=lambda key: (index[key[0]], key[1] or ""))
    if with_sublabel < len(examples) / 2 or not len(index) < len(found) <= _MOST_SUBLABELS:
        return None, ()
    place = {key: at for at, key in enumerate(found)}
    return np.array([place[key] for key in keys], dtype=np.int64), tuple(found)


def text_features(messages: Sequence[str]) -> Matrix:
    """Return one unit vector a message, (messages, at most 512).

    TF-IDF of words (1-2 grams) and of characters within words (2-5 grams), as the baseline has
    it, projected to its largest singular vectors (Deerwester et al. 1990): five times as fast to
    learn from, at a little accuracy. Uses no labels.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    union = make_union(
        TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, tokenizer=_TOKEN.findall, token_pattern=None
        ),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    sparse = union.fit_transform([normalize(message) for message in messages]).astype(np.float32)
    size = min(_DIMENSIONS, *(length - 1 for length in sparse.shape))
    if size < 1:
        return np.ones((len(messages), 1), dtype=np.float32)
    with np.errstate(invalid="ignore"):  # its share of the variance, where copies have none
        found = TruncatedSVD(size, n_iter=2, random_state=_SEED).fit_transform(sparse)
    return unit_rows(np.asarray(found, dtype=np.float32))


def embedding_features(messages: Sequence[str], directory: Path) -> Matrix:
    """Return sentence embeddings, unit length, from a local model. Raises BadInput."""
    from trainer.model.embeddings import embed

    return embed(messages, directory)


def unit_rows(rows: Matrix) -> Matrix:
    """Scale every row to length 1; a row of zeros stays."""
    length = np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return np.asarray(rows / length, dtype=np.float32)


def fit_predict(
    known: Matrix, targets: NDArray[np.int64], asked: Matrix, classes: int, *, fine: bool = False
) -> NDArray[np.float64]:
    """Learn ``targets`` (0..classes-1) and return probabilities for ``asked``, (asked, classes).

    A class without an example gets probability 0. ``fine`` is for many small classes.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

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


def cross_val_predict(
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


def assign_folds(
    targets: NDArray[np.int64], clusters: NDArray[np.int64], seed: int, folds: int = FOLDS
) -> NDArray[np.int64]:
    """Deal whole clusters into folds, (rows,): each fold has its share of each class as nearly as
    its clusters allow (scikit-learn's ``StratifiedGroupKFold``).

    Deterministic for a seed. With fewer clusters than ``folds`` there are as many folds as
    clusters.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros(len(targets), dtype=np.int64)
    splits = min(folds, len(np.unique(clusters)))
    if splits < 2:
        return found
    if np.bincount(targets).max() < splits:
        targets = np.zeros_like(targets)  # classes so small that there is nothing to share out
    splitter = StratifiedGroupKFold(splits, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # A class with fewer rows than folds is missing in some: it can be nowhere else.
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        for fold, (_, asked) in enumerate(splitter.split(targets, targets, clusters)):
            found[asked] = fold
    return found


def _hidden_whole(own: NDArray[np.int64], folds: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of each row whether all rows of its label lie in one fold, (rows,)."""
    alone = [label for label in np.unique(own) if len(np.unique(folds[own == label])) == 1]
    return np.isin(own, alone)


def sum_per_label(
    fine: NDArray[np.float64], label_of: NDArray[np.int64], labels: int
) -> NDArray[np.float64]:
    """Add up sublabels' probabilities, (rows, sublabels), to those of their labels."""
    found = np.zeros((len(fine), labels))
    for label in range(labels):
        found[:, label] = fine[:, label_of == label].sum(axis=1)
    return found


def _rows_to_one(found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of zeros (a group none of whose members could be learnt) become even odds."""
    found = np.maximum(found, 1e-9)
    return np.asarray(found / found.sum(axis=1, keepdims=True))
