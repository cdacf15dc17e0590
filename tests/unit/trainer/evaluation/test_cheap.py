"""The cheap contenders learn from the training split alone and choose on validation alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from trainer.dataset.examples import Example
from trainer.dataset.folder import Dataset
from trainer.evaluation.cheap import Split, train_contender
from trainer.evaluation.contenders import cheap_contenders, take

LABELS = ("order_tracking", "refund", "payment")


def split_of(examples: tuple[Example, ...], *, embedded: bool = True) -> Split:
    """Embed by a made-up model: counts of a few letters."""
    vectors = np.array([[one.message.count(letter) for letter in "aeiknp"] for one in examples])
    return Split(examples, vectors.astype(np.float32) if embedded else None, 0.5)


@pytest.fixture
def splits(sealed: Dataset) -> tuple[Split, Split]:
    return split_of(sealed.train), split_of(sealed.validation)


def test_word_counts_learn_the_words(splits: tuple[Split, Split]) -> None:
    train, validation = splits
    found = train_contender(
        train, validation, validation, LABELS, features="tfidf", sublabels=False
    )
    assert found.validation_accuracy > 0.9
    assert found.probabilities.shape == (30, 3)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(30))


def test_sublabels_are_summed_into_their_labels(splits: tuple[Split, Split]) -> None:
    train, validation = splits
    found = train_contender(
        train, validation, validation, LABELS, features="combined", sublabels=True
    )
    assert found.probabilities.shape == (30, 3)
    assert found.probabilities.sum(axis=1) == pytest.approx(np.ones(30))
    assert found.validation_accuracy > 0.9


def test_two_labels_may_share_a_sublabels_name() -> None:
    def example(at: int, message: str, label: str) -> Example:
        return Example(str(at), message, label, "other")

    examples = tuple(
        example(at, *one)
        for at, one in enumerate([("money back", "refund"), ("card declined", "payment")] * 4)
    )
    part = split_of(examples)
    found = train_contender(
        part, part, part, ("refund", "payment"), features="tfidf", sublabels=True
    )
    assert found.validation_accuracy == 1.0


def test_the_penalty_is_chosen_on_validation_the_strongest_among_equals(
    splits: tuple[Split, Split],
) -> None:
    train, validation = splits
    by_c = {
        c: train_contender(
            train, validation, None, LABELS, features="embeddings", sublabels=False, grid=(c,)
        ).validation_accuracy
        for c in (1e-6, 0.1, 10.0)
    }
    found = train_contender(
        train, validation, None, LABELS, features="embeddings", sublabels=False, grid=tuple(by_c)
    )
    assert found.validation_accuracy == max(by_c.values())
    assert found.c == min(c for c, one in by_c.items() if one == max(by_c.values()))
    assert by_c[1e-6] < max(by_c.values())  # the choice mattered


def test_embedding_time_counts_where_embeddings_are_used(splits: tuple[Split, Split]) -> None:
    train, validation = splits
    found = train_contender(
        train, validation, validation, LABELS, features="embeddings", sublabels=False, grid=(1.0,)
    )
    assert found.train_seconds > 0.5
    assert found.judge_seconds > 0.5


def test_parts_of_the_data_are_balanced_and_nested(splits: tuple[Split, Split]) -> None:
    train, _ = splits
    small, large = take(train, 5, seed=1), take(train, 12, seed=1)
    assert set(Counter(one.label for one in small.examples).values()) == {5}
    assert {one.id for one in small.examples} < {one.id for one in large.examples}
    assert small.embeddings is not None
    assert np.array_equal(small.embeddings, split_of(small.examples).embeddings)


def test_every_kind_fights_and_has_a_curve(splits: tuple[Split, Split]) -> None:
    train, validation = splits
    done: list[int] = []
    found, curve = cheap_contenders(train, validation, validation, LABELS, seed=1, done=done.append)
    names = [one.name for one in found]
    assert names == [
        *("tfidf", "embeddings", "combined"),
        *("tfidf-sublabels", "embeddings-sublabels", "combined-sublabels"),
    ]
    assert len(done) == 6
    assert [(one["per_label"], one["examples"]) for one in curve[:2]] == [(25, 75), (30, 90)]


def test_without_a_model_and_without_sublabels_word_counts_fight_alone(sealed: Dataset) -> None:
    plain = tuple(Example(one.id, one.message, one.label) for one in sealed.train)
    part = split_of(plain, embedded=False)
    found, _ = cheap_contenders(part, part, part, LABELS, seed=1, done=lambda _: None)
    assert [one.name for one in found] == ["tfidf"]
