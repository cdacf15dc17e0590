"""Every baseline is trained, has a learning curve, and is documented."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from trainer.dataset.folder import Dataset, Example
from trainer.duel.baselines import (
    BASELINES,
    SUBLABELS_SUFFIX,
    EmbeddedSplit,
    is_baseline_name,
    take_part,
    train_baselines,
    train_linear,
)

pytestmark = pytest.mark.slow

LABELS = ("order_tracking", "refund", "payment")


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
    assert found.c == min(c for c, score in by_c.items() if score == best)
    assert by_c[1e-6] < max(by_c.values())  # the choice mattered


def test_parts_of_the_data_are_balanced_and_nested(
    splits: tuple[EmbeddedSplit, EmbeddedSplit], embed_letters: Callable[..., EmbeddedSplit]
) -> None:
    train, _ = splits
    small, large = take_part(train, 5, seed=1), take_part(train, 12, seed=1)
    assert set(Counter(example.label for example in small.examples).values()) == {5}
    assert {example.id for example in small.examples} < {example.id for example in large.examples}
    assert small.embeddings is not None
    again = embed_letters(small.examples).embeddings
    assert again is not None
    assert np.array_equal(small.embeddings, again)


def test_without_a_model_and_without_sublabels_word_counts_are_the_only_baseline(
    sealed: Dataset, embed_letters: Callable[..., EmbeddedSplit]
) -> None:
    plain = tuple(Example(example.id, example.message, example.label) for example in sealed.train)
    part = embed_letters(plain, embedded=False)
    found, _ = train_baselines(part, part, part, LABELS, seed=1)
    assert [candidate.name for candidate in found] == ["tfidf"]


def test_every_baseline_is_trained_on_labels_and_finer_labels_and_has_a_curve(
    splits: tuple[EmbeddedSplit, EmbeddedSplit],
) -> None:
    train, validation = splits
    found, curve = train_baselines(train, validation, validation, LABELS, seed=1)
    assert [(point.per_label, point.examples) for point in curve[:2]] == [(25, 75), (30, 90)]
    names = [baseline.name for baseline in BASELINES]
    wanted = [*names, *(f"{name}{SUBLABELS_SUFFIX}" for name in names)]
    assert [candidate.name for candidate in found] == wanted
    assert all(is_baseline_name(name) for name in wanted)
    assert len(set(names)) == len(names)
