"""Cheap baselines: linear models on word counts and on sentence embeddings.

To add one, add its features to ``Features`` and ``_Extractor``, and an entry to ``BASELINES``. The
duel then trains it on the labels and on the finer ones, tests it and measures its learning curve.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from trainer.artifacts.duel import LearningCurvePoint
from trainer.dataset.folder import Example
from trainer.dataset.split import first_of_each
from trainer.duel.candidates import Candidate
from trainer.model.embeddings import C_GRID, EMBEDDING_LENGTH, Fit, embed, fit_grid
from trainer.progress import track
from trainer.statistics.calibration import Floats
from worker.contract.manifest import Kind
from worker.contract.text import normalize

Features = Literal["tfidf", "embeddings"]

_SEPARATOR = "\x1f"


@dataclass(frozen=True, slots=True)
class EmbeddedSplit:
    """A split with its ``embeddings``, (messages, dimensions), or None without an embedding model;
    ``embed_seconds`` is the time for computing them."""

    examples: tuple[Example, ...]
    embeddings: NDArray[np.float32] | None
    embed_seconds: float


@dataclass(frozen=True, slots=True)
class TrainedBaseline:
    """A baseline trained on the training split, with the penalty ``c`` chosen on validation.

    ``probabilities`` is (messages of the judged split, labels), empty without a judged split.
    ``train_seconds`` includes the choice of the penalty and the embedding of the training split;
    ``judge_seconds`` is the time from text to probabilities for the judged split.
    """

    c: float
    validation_accuracy: float
    probabilities: Floats
    train_seconds: float
    judge_seconds: float


@dataclass(frozen=True, slots=True)
class Baseline:
    """A baseline, named after its features. ``served_as`` is the kind of model that a worker can
    serve it as; without one, ``not_served`` says why."""

    name: Features
    served_as: Kind | None = None
    not_served: str | None = None


def train_linear(
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    judged: EmbeddedSplit | None,
    labels: Sequence[str],
    *,
    features: Features,
    sublabels: bool,
    grid: Sequence[float] = C_GRID,
) -> TrainedBaseline:
    """Train with each C of ``grid`` in rising order, keep the most accurate on ``validation`` (the
    strongest penalty among equals), and judge the third split.

    The search ends after two values in a row that are not better. With ``sublabels`` the classes
    are the finer labels, and a label's probability is the sum of theirs.
    """
    started = time.perf_counter()
    classes = [_class_of(example, sublabels=sublabels) for example in train.examples]
    extractor = _Extractor(features, train)
    fits = _search(extractor, train, validation, classes, labels, grid=grid)
    best = max(fits, key=lambda fit: fit.accuracy)  # of equals the first
    embedded = features == "embeddings"
    train_seconds = time.perf_counter() - started + embedded * train.embed_seconds
    began = time.perf_counter()
    probabilities = np.empty((0, len(labels)))
    judge_seconds = 0.0
    if judged is not None:
        probabilities = _label_probabilities(best.model, extractor.transform(judged), labels)
        judge_seconds = time.perf_counter() - began + embedded * judged.embed_seconds
    return TrainedBaseline(best.c, best.accuracy, probabilities, train_seconds, judge_seconds)


def _search(
    extractor: _Extractor,
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    classes: Sequence[str],
    labels: Sequence[str],
    *,
    grid: Sequence[float],
) -> Iterator[Fit]:
    """Return a fit for each C, until two in a row are not better."""
    truth = np.array([labels.index(example.label) for example in validation.examples])
    x_train, x_validation = extractor.transform(train), extractor.transform(validation)

    def measure(model: Any) -> float:
        right = _label_probabilities(model, x_validation, labels).argmax(axis=1) == truth
        return float(right.mean())

    return fit_grid(x_train, classes, measure, grid=grid)


class _Extractor:
    """Features of a split: fitted on the training split, applied to any."""

    def __init__(self, features: Features, train: EmbeddedSplit) -> None:
        self._union: Any = None
        if features == "tfidf":
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

    def transform(self, split: EmbeddedSplit) -> Any:
        if self._union is not None:
            return self._union.transform(_texts(split))
        assert split.embeddings is not None
        return split.embeddings.astype(np.float64) * EMBEDDING_LENGTH


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


# There is no baseline of both kinds of features together, because no worker can serve one.
BASELINES = (
    Baseline(
        name="tfidf",
        not_served="workers have no engine for word counts; an encoder is as accurate and as cheap "
        "to run",
    ),
    Baseline(name="embeddings", served_as="embedding-linear"),
)

SUBLABELS_SUFFIX = "-sublabels"
"""Suffix of the name of a baseline trained on the finer labels."""

CURVE_SIZES = (25, 50, 100, 200)
"""Training examples per label; the last point of a curve is the whole training split."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """A baseline on the labels or on the finer ones."""

    baseline: Baseline
    sublabels: bool

    @property
    def name(self) -> str:
        return f"{self.baseline.name}{SUBLABELS_SUFFIX if self.sublabels else ''}"


def make_split(examples: Sequence[Example], model: Path | None) -> EmbeddedSplit:
    """Embed a split, if there is an embedding model."""
    began = time.perf_counter()
    embeddings = embed([example.message for example in examples], model) if model else None
    return EmbeddedSplit(tuple(examples), embeddings, time.perf_counter() - began)


def train_baselines(
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    holdout: EmbeddedSplit,
    labels: Sequence[str],
    *,
    seed: int,
) -> tuple[list[Candidate], list[LearningCurvePoint]]:
    """Train every baseline and judge the hold-out, then train each on parts of the data and judge
    validation. Return the candidates and the points of the learning curves."""
    candidates: list[Candidate] = []
    curve: list[LearningCurvePoint] = []
    variants = tuple(_variants(train.examples, embeddings=train.embeddings is not None))
    for variant in track("baselines", variants):
        trained = train_linear(
            *(train, validation, holdout, labels),
            features=variant.baseline.name,
            sublabels=variant.sublabels,
        )
        best = trained.probabilities.argmax(axis=1)
        candidates.append(
            Candidate(
                name=variant.name,
                kind="baseline",
                answers=tuple(labels[at] for at in best),
                train_seconds=trained.train_seconds,
                messages_per_s=len(holdout.examples) / trained.judge_seconds,
                outside_labels=0,
                hyperparameters={"C": trained.c},
                validation_accuracy=trained.validation_accuracy,
                served_as=variant.baseline.served_as,
                not_served=variant.baseline.not_served,
            )
        )
        curve += _learning_curve(variant, trained, train, validation, labels, seed=seed)
    return candidates, curve


def is_baseline_name(name: str) -> bool:
    """Whether a baseline can have this name, on any data."""
    return name.removesuffix(SUBLABELS_SUFFIX) in {baseline.name for baseline in BASELINES}


def take_part(split: EmbeddedSplit, per_label: int, *, seed: int) -> EmbeddedSplit:
    """Return at most ``per_label`` examples of each label; a larger part holds the smaller one."""
    order = list(range(len(split.examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a draw to measure with, no secret
    places = [0] * len(order)
    for place, at in enumerate(order):
        places[at] = place
    chosen = first_of_each([example.label for example in split.examples], places, per_label)
    return replace(
        split,
        examples=tuple(split.examples[at] for at in chosen),
        embeddings=None if split.embeddings is None else split.embeddings[np.array(chosen)],
    )


def _variants(train: Sequence[Example], *, embeddings: bool) -> Iterator[_Variant]:
    """Yield every baseline that can be trained, and the same on the finer labels if there are
    any."""
    usable = [each for each in BASELINES if embeddings or each.name == "tfidf"]
    yield from (_Variant(baseline, sublabels=False) for baseline in usable)
    finer = {(example.label, example.sublabel) for example in train}
    if len(finer) > len({label for label, _ in finer}):
        yield from (_Variant(baseline, sublabels=True) for baseline in usable)


def _learning_curve(
    variant: _Variant,
    trained: TrainedBaseline,
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    labels: Sequence[str],
    *,
    seed: int,
) -> Iterator[LearningCurvePoint]:
    """Yield validation accuracies by training size, with the penalty of the whole split."""
    largest = max(Counter(example.label for example in train.examples).values())
    for size in (*(size for size in CURVE_SIZES if size < largest), largest):
        part = take_part(train, size, seed=seed)
        # The penalty of the whole split: a search for every size would multiply the duel's time.
        accuracy = trained.validation_accuracy
        if size < largest:
            accuracy = train_linear(
                *(part, validation, None, labels),
                features=variant.baseline.name,
                sublabels=variant.sublabels,
                grid=(trained.c,),
            ).validation_accuracy
        yield LearningCurvePoint(
            candidate=variant.name,
            per_label=size,
            examples=len(part.examples),
            validation_accuracy=accuracy,
        )
