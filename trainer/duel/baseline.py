"""What a baseline is: a cheap model of the labels that needs neither a GPU nor a base model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from trainer.dataset.examples import Example
from trainer.statistics.calibration import Floats


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
    """An entry of the registry: ``title`` says what it is, for people."""

    name: str
    title: str
    needs_embeddings: bool
    train: TrainBaseline
