"""The type of a cheap baseline, and linear models over features, the cheapest of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from trainer.dataset.folder import Example
from trainer.model.embeddings import C_GRID, EMBEDDING_LENGTH, fit_grid
from trainer.statistics.calibration import Floats
from worker.contract.manifest import Kind
from worker.contract.text import normalize

Features = Literal["tfidf", "embeddings", "combined"]

WEIGHTS = (1.0, 2.0)
"""Lengths of an embedding beside word counts of length sqrt(2) that are tried."""

_C, _EMBEDDING_WEIGHT = "C", "embedding_weight"
_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class EmbeddedSplit:
    """One split as a baseline sees it. ``embeddings`` is (messages, dimensions), or None where
    no embedding model is at hand; ``embed_seconds`` what making them took."""

    examples: tuple[Example, ...]
    embeddings: NDArray[np.float32] | None
    embed_seconds: float


@dataclass(frozen=True, slots=True)
class TrainedBaseline:
    """A baseline after training on the training split alone, with the hyperparameters that were
    chosen on validation.

    ``probabilities`` is (messages of the judged split, labels); without a judged split there are
    no rows. ``train_seconds`` holds the choice of hyperparameters and the embedding of the
    training split too; ``judge_seconds`` everything from text to probabilities for the judged
    split.
    """

    hyperparameters: Mapping[str, float]
    validation_accuracy: float
    probabilities: Floats
    train_seconds: float
    judge_seconds: float


class TrainBaseline(Protocol):
    """Trains a baseline and judges a split with it."""

    def __call__(
        self,
        train: EmbeddedSplit,
        validation: EmbeddedSplit,
        judged: EmbeddedSplit | None,
        labels: Sequence[str],
        *,
        sublabels: bool,
        hyperparameters: Mapping[str, float] | None,
    ) -> TrainedBaseline:
        """Train on ``train``; choose hyperparameters on ``validation`` unless they are given.

        With ``sublabels`` the classes are the finer labels, and a label's probability is the sum
        of theirs.
        """


@dataclass(frozen=True, slots=True)
class Baseline:
    """An entry of the registry: ``title`` says what it is, for people. ``served_as`` is the kind of
    model as which a worker can serve it; where there is none, ``not_served`` says why."""

    name: str
    title: str
    needs_embeddings: bool
    train: TrainBaseline
    served_as: Kind | None
    not_served: str | None = None


def train_linear(
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    judged: EmbeddedSplit | None,
    labels: Sequence[str],
    *,
    features: Features,
    sublabels: bool,
    hyperparameters: Mapping[str, float] | None = None,
    grid: Sequence[float] = C_GRID,
) -> TrainedBaseline:
    """Train on ``train`` with each C of ``grid`` in rising order, keep the one that is right most
    often on ``validation`` (the strongest penalty among equals; two in a row that are no better
    end the search), and judge the third split. See ``TrainBaseline``.
    """
    started = time.perf_counter()
    weights: Sequence[float] = WEIGHTS if features == "combined" else (EMBEDDING_LENGTH,)
    if hyperparameters is not None:
        grid = (hyperparameters[_C],)
        weights = (hyperparameters.get(_EMBEDDING_WEIGHT, EMBEDDING_LENGTH),)
    classes = [_class_of(example, sublabels=sublabels) for example in train.examples]
    extractor = _Extractor(features, train)
    fits = (
        fit
        for weight in weights
        for fit in _search(extractor, train, validation, classes, labels, weight=weight, grid=grid)
    )
    best = max(fits, key=lambda fit: fit.accuracy)  # of equals the first
    embedded = features != "tfidf"
    train_seconds = time.perf_counter() - started + embedded * train.embed_seconds
    began = time.perf_counter()
    probabilities = np.empty((0, len(labels)))
    judge_seconds = 0.0
    if judged is not None:
        probabilities = _label_probabilities(
            best.model, extractor.transform(judged, best.weight), labels
        )
        judge_seconds = time.perf_counter() - began + embedded * judged.embed_seconds
    chosen = {_C: best.c}
    if features == "combined":
        chosen[_EMBEDDING_WEIGHT] = best.weight
    return TrainedBaseline(chosen, best.accuracy, probabilities, train_seconds, judge_seconds)


@dataclass(frozen=True, slots=True)
class _Fit:
    accuracy: float
    c: float
    weight: float
    model: Any


def _search(
    extractor: _Extractor,
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    classes: Sequence[str],
    labels: Sequence[str],
    *,
    weight: float,
    grid: Sequence[float],
) -> Iterator[_Fit]:
    """Yield a fit for each C, until two in a row are no better."""
    truth = np.array([labels.index(example.label) for example in validation.examples])
    x_train = extractor.transform(train, weight)
    x_validation = extractor.transform(validation, weight)

    def measure(model: Any) -> float:
        right = _label_probabilities(model, x_validation, labels).argmax(axis=1) == truth
        return float(right.mean())

    for fit in fit_grid(x_train, classes, measure, grid=grid):
        yield _Fit(fit.accuracy, fit.c, weight, fit.model)


class _Extractor:
    """Features of a split: fitted on the training split, applied to any."""

    def __init__(self, features: Features, train: EmbeddedSplit) -> None:
        self._features = features
        self._union: Any = None
        if features != "embeddings":
            from sklearn.feature_extraction.text import TfidfVectorizer
            from sklearn.pipeline import make_union

            # Words (1-2 grams) and characters within words (2-5 grams): robust to typing errors.
            self._union = make_union(
                TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
                TfidfVectorizer(
                    analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2
                ),
            )
            self._union.fit(_texts(train))

    def transform(self, split: EmbeddedSplit, weight: float) -> Any:
        parts: list[Any] = []
        if self._union is not None:
            parts.append(self._union.transform(_texts(split)))
        if self._features != "tfidf":
            assert split.embeddings is not None
            parts.append(split.embeddings.astype(np.float64) * weight)
        if len(parts) == 1:
            return parts[0]
        sparse = scipy.sparse.csr_matrix(parts[1])
        return scipy.sparse.hstack([parts[0], sparse], format="csr")


def _label_probabilities(model: Any, x: Any, labels: Sequence[str]) -> Floats:
    """Sum the classes' probabilities by label."""
    probabilities = model.predict_proba(x)
    summed = np.zeros((probabilities.shape[0], len(labels)))
    for at, name in enumerate(model.classes_):
        summed[:, labels.index(str(name).partition(_SEPARATOR)[0])] += probabilities[:, at]
    return summed


def _class_of(example: Example, *, sublabels: bool) -> str:
    if not sublabels or example.sublabel is None:
        return example.label
    return f"{example.label}{_SEPARATOR}{example.sublabel}"


def _texts(split: EmbeddedSplit) -> list[str]:
    return [normalize(example.message) for example in split.examples]
