"""The cheap contenders: word counts or sentence embeddings, and logistic regression."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_union

from trainer.dataset.examples import Example
from worker.contract.text import normalize

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Features = Literal["tfidf", "embeddings", "combined"]

C_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Inverse strengths of the L2 penalty that are tried."""

WEIGHTS = (1.0, 2.0)
"""Lengths of an embedding beside word counts of length sqrt(2) that are tried."""

_MAX_ITERATIONS = 1000
_SEPARATOR = "\x1f"
_ALONE_WEIGHT = 2.0
_PATIENCE = 2


@dataclass(frozen=True, slots=True)
class Split:
    """One split as a contender sees it. ``embeddings`` is (messages, dimensions), or None where
    no embedding model is at hand; ``embed_seconds`` what making them took."""

    examples: tuple[Example, ...]
    embeddings: NDArray[np.float32] | None
    embed_seconds: float


@dataclass(frozen=True, slots=True)
class Trained:
    """A contender after training on the training split alone, its C and, where it has both kinds
    of features, the embeddings' weight chosen on validation.

    ``probabilities`` is (messages of ``judged``, labels). ``train_seconds`` holds the choice of
    C and the embedding of the training split too; ``judge_seconds`` everything from text to
    probabilities for the judged split. Without a judged split there are no rows.
    """

    c: float
    weight: float
    validation_accuracy: float
    probabilities: Floats
    train_seconds: float
    judge_seconds: float


def train_contender(
    train: Split,
    validation: Split,
    judged: Split | None,
    labels: Sequence[str],
    *,
    features: Features,
    sublabels: bool,
    grid: Sequence[float] = C_GRID,
    weights: Sequence[float] = WEIGHTS,
) -> Trained:
    """Train on ``train`` with each C of ``grid`` in rising order, keep the one that is right most
    often on ``validation`` (the strongest penalty among equals; two in a row that are no better
    end the search), and judge the third split.

    With ``sublabels`` the classes are the finer labels, and a label's probability is the sum of
    theirs.
    """
    started = time.perf_counter()
    classes = [_class_of(one, sublabels=sublabels) for one in train.examples]
    extractor = _Extractor(features, train)
    truth = np.array([labels.index(one.label) for one in validation.examples], dtype=np.int64)
    best: _Found | None = None
    for weight in weights if features == "combined" else (_ALONE_WEIGHT,):
        x_train, x_validation = extractor.of(train, weight), extractor.of(validation, weight)
        highest, worse = -1.0, 0
        for c in sorted(grid):
            # Each from nothing: started from the last solution, a fit takes that for converged.
            model = LogisticRegression(C=c, max_iter=_MAX_ITERATIONS).fit(x_train, classes)
            right = _per_label(model, x_validation, labels).argmax(axis=1) == truth
            accuracy = float(right.mean())
            if best is None or accuracy > best.accuracy:
                best = _Found(accuracy, c, weight, model)
            worse = 0 if accuracy > highest else worse + 1
            highest = max(highest, accuracy)
            if worse == _PATIENCE:
                break
    assert best is not None
    embedded = features != "tfidf"
    train_seconds = time.perf_counter() - started + embedded * train.embed_seconds
    began = time.perf_counter()
    probabilities = np.empty((0, len(labels)))
    judge_seconds = 0.0
    if judged is not None:
        probabilities = _per_label(best.model, extractor.of(judged, best.weight), labels)
        judge_seconds = time.perf_counter() - began + embedded * judged.embed_seconds
    return Trained(best.c, best.weight, best.accuracy, probabilities, train_seconds, judge_seconds)


@dataclass(frozen=True, slots=True)
class _Found:
    accuracy: float
    c: float
    weight: float
    model: Any


class _Extractor:
    """Features of a split: fitted on the training split, applied to any."""

    def __init__(self, features: Features, train: Split) -> None:
        self._features = features
        self._union: Any = None
        if features != "embeddings":
            # Words (1-2 grams) and characters within words (2-5 grams): robust to typing errors.
            self._union = make_union(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                TfidfVectorizer(
                    analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
                ),
            )
            self._union.fit(_texts(train))

    def of(self, split: Split, weight: float) -> Any:
        parts: list[Any] = []
        if self._union is not None:
            parts.append(self._union.transform(_texts(split)))
        if self._features != "tfidf":
            assert split.embeddings is not None
            parts.append(split.embeddings.astype(np.float64) * weight)
        if len(parts) == 1:
            return parts[0]
        return hstack([parts[0], csr_matrix(parts[1])], format="csr")


def _per_label(model: Any, x: Any, labels: Sequence[str]) -> Floats:
    """Sum the classes' probabilities by label."""
    found = model.predict_proba(x)
    summed = np.zeros((found.shape[0], len(labels)))
    for at, name in enumerate(model.classes_):
        summed[:, labels.index(str(name).partition(_SEPARATOR)[0])] += found[:, at]
    return summed


def _class_of(example: Example, *, sublabels: bool) -> str:
    if not sublabels or example.sublabel is None:
        return example.label
    return f"{example.label}{_SEPARATOR}{example.sublabel}"


def _texts(split: Split) -> list[str]:
    return [normalize(one.message) for one in split.examples]
