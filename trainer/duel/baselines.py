"""The registry of baselines, and how the duel trains them.

To add one, write a function like ``TrainBaseline`` and add an entry here: the duel trains it, on
the labels and on the finer ones, tests it and draws its learning curve. The entry says as which
kind of model a worker serves it, or why none does. A test says where
``clerk-trainer duel --help`` and the documentation do not name it yet.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from trainer.artifacts.duel import LearningCurvePoint
from trainer.dataset.folder import Example
from trainer.dataset.split import first_of_each
from trainer.duel.candidates import Candidate
from trainer.duel.linear import Baseline, EmbeddedSplit, TrainedBaseline, train_linear
from trainer.model.embeddings import embed

_NO_COUNTS = "no engine of a worker counts words; an encoder is as good and as cheap to run"

BASELINES = (
    Baseline(
        name="tfidf",
        title="TF-IDF",
        needs_embeddings=False,
        train=partial(train_linear, features="tfidf"),
        served_as=None,
        not_served=_NO_COUNTS,
    ),
    Baseline(
        name="embeddings",
        title="sentence embeddings",
        needs_embeddings=True,
        train=partial(train_linear, features="embeddings"),
        served_as="embedding-linear",
    ),
    Baseline(
        name="combined",
        title="both together",
        needs_embeddings=True,
        train=partial(train_linear, features="combined"),
        served_as=None,
        not_served=_NO_COUNTS,
    ),
)

SUBLABELS_SUFFIX = "-sublabels"
"""Ends the name of a baseline that was trained on the finer labels."""

CURVE_SIZES = (25, 50, 100, 200)
"""Training examples a label; the last point of a curve is the whole training split."""


@dataclass(frozen=True, slots=True)
class _Variant:
    """A baseline on the labels or on the finer ones."""

    baseline: Baseline
    sublabels: bool

    @property
    def name(self) -> str:
        return f"{self.baseline.name}{SUBLABELS_SUFFIX if self.sublabels else ''}"


def make_split(
    examples: Sequence[Example], model: Path | None, on_progress: Callable[[int], None]
) -> EmbeddedSplit:
    """Embed a split where there is a model."""
    began = time.perf_counter()
    embeddings = embed([example.message for example in examples], model) if model else None
    on_progress(1)
    return EmbeddedSplit(tuple(examples), embeddings, time.perf_counter() - began)


def train_baselines(
    train: EmbeddedSplit,
    validation: EmbeddedSplit,
    holdout: EmbeddedSplit,
    labels: Sequence[str],
    *,
    seed: int,
    on_progress: Callable[[int], None],
) -> tuple[list[Candidate], list[LearningCurvePoint]]:
    """Train every baseline and judge the hold-out; then train each on parts of the data and
    judge validation. Return the candidates and the learning curve's points."""
    candidates: list[Candidate] = []
    curve: list[LearningCurvePoint] = []
    for variant in _variants(train.examples, embeddings=train.embeddings is not None):
        trained = variant.baseline.train(
            train, validation, holdout, labels, sublabels=variant.sublabels, hyperparameters=None
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
                hyperparameters=trained.hyperparameters,
                validation_accuracy=trained.validation_accuracy,
                served_as=variant.baseline.served_as,
                not_served=variant.baseline.not_served,
            )
        )
        curve += _learning_curve(variant, trained, train, validation, labels, seed=seed)
        on_progress(1)
    return candidates, curve


def count_baselines(train: Sequence[Example], *, embeddings: bool) -> int:
    """Return how many baselines there will be."""
    return len(tuple(_variants(train, embeddings=embeddings)))


def is_baseline_name(name: str) -> bool:
    """Whether a baseline has this name, or may have it on other data."""
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
    """Yield every baseline that can be trained; on the finer labels too where there are any."""
    usable = [baseline for baseline in BASELINES if embeddings or not baseline.needs_embeddings]
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
    """Yield validation accuracies by the size of the training split, hyperparameters as chosen
    on all of it."""
    largest = max(Counter(example.label for example in train.examples).values())
    for size in (*(size for size in CURVE_SIZES if size < largest), largest):
        part = take_part(train, size, seed=seed)
        accuracy = trained.validation_accuracy
        if size < largest:
            accuracy = variant.baseline.train(
                part,
                validation,
                None,
                labels,
                sublabels=variant.sublabels,
                hyperparameters=trained.hyperparameters,
            ).validation_accuracy
        yield LearningCurvePoint(
            candidate=variant.name,
            per_label=size,
            examples=len(part.examples),
            validation_accuracy=accuracy,
        )
