"""The linear baselines learn from the training split alone and choose on validation alone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from trainer.dataset.folder import Example
from trainer.duel.linear import EmbeddedSplit, train_linear

pytestmark = pytest.mark.slow

LABELS = ("order_tracking", "refund", "payment")


def test_word_counts_learn_the_words(splits: tuple[EmbeddedSplit, EmbeddedSplit]) -> None:
    train, validation = splits
    found = train_linear(train, validation, validation, LABELS, features="tfidf", sublabels=False)
    assert found.validation_accuracy > 0.9
    assert found.probabilities.shape == (30, 3)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(30))


def test_sublabels_are_summed_into_their_labels(
    splits: tuple[EmbeddedSplit, EmbeddedSplit],
) -> None:
    train, validation = splits
    found = train_linear(train, validation, validation, LABELS, features="combined", sublabels=True)
    assert found.probabilities.shape == (30, 3)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(30))
    assert found.validation_accuracy > 0.9


def test_two_labels_may_share_a_sublabels_name(
    embed_letters: Callable[..., EmbeddedSplit],
) -> None:
    def example(at: int, message: str, label: str) -> Example:
        return Example(str(at), message, label, "other")

    examples = tuple(
        example(at, *pair)
        for at, pair in enumerate([("money back", "refund"), ("card declined", "payment")] * 4)
    )
    part = embed_letters(examples)
    found = train_linear(part, part, part, ("refund", "payment"), features="tfidf", sublabels=True)
    assert found.validation_accuracy == 1.0


def test_the_penalty_is_chosen_on_validation_the_strongest_among_equals(
    splits: tuple[EmbeddedSplit, EmbeddedSplit],
) -> None:
    train, validation = splits
    by_c = {
        c: train_linear(
            train, validation, None, LABELS, features="embeddings", sublabels=False, grid=(c,)
        ).validation_accuracy
        for c in (1e-6, 0.1, 10.0)
    }
    found = train_linear(
        train, validation, None, LABELS, features="embeddings", sublabels=False, grid=tuple(by_c)
    )
    assert found.validation_accuracy == max(by_c.values())
    best = max(by_c.values())
    assert found.hyperparameters == {"C": min(c for c, score in by_c.items() if score == best)}
    assert by_c[1e-6] < max(by_c.values())  # the choice mattered


def test_embedding_time_counts_where_embeddings_are_used(
    splits: tuple[EmbeddedSplit, EmbeddedSplit],
) -> None:
    train, validation = splits
    found = train_linear(
        train, validation, validation, LABELS, features="embeddings", sublabels=False, grid=(1.0,)
    )
    assert found.train_seconds > 0.5
    assert found.judge_seconds > 0.5


def test_given_hyperparameters_are_not_chosen_anew(
    splits: tuple[EmbeddedSplit, EmbeddedSplit],
) -> None:
    """As the learning curve needs it: both of them, and nothing else is tried."""
    train, validation = splits
    given = {"C": 0.5, "embedding_weight": 3.0}
    found = train_linear(
        train,
        validation,
        None,
        LABELS,
        features="combined",
        sublabels=False,
        hyperparameters=given,
    )
    assert found.hyperparameters == given
    assert found.probabilities.shape == (0, 3)
