"""The contenders of a duel, and how the cheap ones learn from more data."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.dataset.examples import Example
from trainer.dataset.split import first_of_each
from trainer.evaluation.cheap import Features, Split, Trained, train_contender
from trainer.evaluation.embeddings import embed

CURVE_SIZES = (25, 50, 100, 200)
"""Training examples a label; the last point of a curve is the whole training split."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A contender's answers to the hold-out, in order, and what they took.

    ``outside_labels`` counts answers outside the set; of the adapter and of the base, both
    constrained to it, those they would have given without the constraint (None: not told).
    ``more`` holds what only this kind has.
    """

    name: str
    kind: str
    answers: tuple[str, ...]
    train_seconds: float | None
    messages_per_s: float | None
    outside_labels: int | None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    features: Features
    sublabels: bool


def make_split(
    examples: Sequence[Example], model: Path | None, done: Callable[[int], None]
) -> Split:
    """Embed a split where there is a model."""
    began = time.perf_counter()
    found = embed([one.message for one in examples], model) if model else None
    done(1)
    return Split(tuple(examples), found, time.perf_counter() - began)


def cheap_contenders(
    train: Split,
    validation: Split,
    holdout: Split,
    labels: Sequence[str],
    *,
    seed: int,
    done: Callable[[int], None],
) -> tuple[list[Contender], list[dict[str, Any]]]:
    """Train every cheap contender and judge the hold-out; then train each on parts of the data
    and judge validation. Return the contenders and the learning curve's points."""
    contenders, curve = [], []
    for kind in _kinds(train):
        trained = train_contender(
            train, validation, holdout, labels, features=kind.features, sublabels=kind.sublabels
        )
        best = trained.probabilities.argmax(axis=1)
        contenders.append(
            Contender(
                name=kind.name,
                kind=f"sublabels-{kind.features}" if kind.sublabels else kind.features,
                answers=tuple(labels[at] for at in best),
                train_seconds=trained.train_seconds,
                messages_per_s=len(holdout.examples) / trained.judge_seconds,
                outside_labels=0,
                more={"c": trained.c, "validation_accuracy": trained.validation_accuracy},
            )
        )
        curve += _curve(kind, trained, train, validation, labels, seed=seed)
        done(1)
    return contenders, curve


def count_cheap(train: Sequence[Example], *, embeddings: bool) -> int:
    """Return how many cheap contenders there will be."""
    return len(tuple(_wanted(train, embeddings=embeddings)))


def _kinds(train: Split) -> Iterable[_Kind]:
    return _wanted(train.examples, embeddings=train.embeddings is not None)


def _wanted(train: Sequence[Example], *, embeddings: bool) -> Iterable[_Kind]:
    features: list[Features] = ["tfidf"]
    if embeddings:
        features += ["embeddings", "combined"]
    for one in features:
        yield _Kind(one, one, sublabels=False)
    finer = {(one.label, one.sublabel) for one in train}
    if len(finer) > len({label for label, _ in finer}):
        for one in features:
            yield _Kind(f"{one}-sublabels", one, sublabels=True)


def _curve(
    kind: _Kind,
    trained: Trained,
    train: Split,
    validation: Split,
    labels: Sequence[str],
    *,
    seed: int,
) -> list[dict[str, Any]]:
    largest = max(Counter(one.label for one in train.examples).values())
    points = []
    for size in (*(one for one in CURVE_SIZES if one < largest), largest):
        part = take(train, size, seed=seed)
        accuracy = trained.validation_accuracy
        if size < largest:
            accuracy = train_contender(
                part,
                validation,
                None,
                labels,
                features=kind.features,
                sublabels=kind.sublabels,
                grid=(trained.c,),
                weights=(trained.weight,),
            ).validation_accuracy
        points.append(
            {
                "contender": kind.name,
                "per_label": size,
                "examples": len(part.examples),
                "validation_accuracy": accuracy,
            }
        )
    return points


def take(split: Split, per_label: int, *, seed: int) -> Split:
    """Return at most ``per_label`` examples of each label; a larger part holds the smaller one."""
    order = list(range(len(split.examples)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a draw to measure with, no secret
    places = [0] * len(order)
    for place, at in enumerate(order):
        places[at] = place
    chosen = first_of_each([one.label for one in split.examples], places, per_label)
    return replace(
        split,
        examples=tuple(split.examples[at] for at in chosen),
        embeddings=None if split.embeddings is None else split.embeddings[np.array(chosen)],
    )
