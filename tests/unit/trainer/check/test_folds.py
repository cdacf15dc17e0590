"""No message is judged by a model that learnt it, or a near-copy of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.trainer.check.shop import THINGS, make_examples
from trainer.check.duplicates import number_clusters
from trainer.check.out_of_fold import assign_folds, predict_out_of_fold
from trainer.check.run import CheckSettings, check_dataset
from trainer.check.suspects import find_suspects
from trainer.dataset.folder import Dataset, Example
from trainer.similarity import SIMILARITY

pytestmark = pytest.mark.slow

COPIES, WRONG = 4, 6
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def copied(seed: int) -> tuple[list[Example], set[str]]:
    """Return messages of which every tenth has three near-copies, and the ids of six groups of
    those under a wrong label, each copy under the same one: a template that was filed wrongly."""
    rng = random.Random(seed)
    single = [replace(example, sublabel=None) for example in make_examples(60, seed)]
    names = sorted(THINGS)
    chosen = rng.sample(range(len(single)), len(single) // 10)
    examples: list[Example] = []
    wrong: set[str] = set()
    for at, example in enumerate(single):
        # A name of its own, as templates have: what a model that saw one copy knows the others by.
        name = "".join(rng.choices(LETTERS, k=30))
        copies = COPIES if at in chosen else 1
        group = [
            replace(example, id=f"{example.id}-{copy}", message=f"{name} {example.message} {copy}")
            for copy in range(copies)
        ]
        if at in chosen[:WRONG]:
            label = names[(names.index(example.label) + 1) % len(names)]
            group = [replace(one, label=label) for one in group]
            wrong |= {one.id for one in group}
        examples += group
    return examples, wrong


def share_found(examples: list[Example], wrong: set[str], clusters: NDArray[np.int64]) -> float:
    judged = predict_out_of_fold(
        examples, sorted(THINGS), clusters=clusters, embeddings=None, seed=1
    )
    found = {suspect.example.id for suspect in find_suspects(examples, judged, frozenset())}
    return len(found & wrong) / len(wrong)


def test_a_wrong_label_on_four_near_copies_is_found() -> None:
    """Simulated with known truth, five times: with each message alone in its fold the copies vouch
    for each other and next to none is found; with their cluster in one fold nearly all are."""
    before, after = [], []
    for seed in range(5):
        examples, wrong = copied(seed)
        clusters = number_clusters(examples, SIMILARITY)
        before.append(share_found(examples, wrong, np.arange(len(examples))))
        after.append(share_found(examples, wrong, clusters))
    assert np.mean(before) <= 0.1
    assert np.mean(after) >= 0.8


def test_check_puts_wrong_labels_on_near_copies_into_the_queue(
    make_dataset: Callable[..., Dataset],
) -> None:
    """The whole command's way: most of the copies are in the queue, with the right suggestion."""
    examples, wrong = copied(1)
    checked = check_dataset(make_dataset(examples), CheckSettings())
    found = {suspect.example.id: suspect.suggested for suspect in checked.suspects}
    truth = {example.id: example.label for example in make_examples(60, 1)}
    right = [found.get(id_) == truth[id_.partition("-")[0]] for id_ in wrong]
    assert sum(right) >= 0.8 * len(wrong)


def test_a_cluster_lies_in_one_fold_and_classes_are_shared_out() -> None:
    """Whatever the seed; and of single messages each fold has its share to the row."""
    random = np.random.default_rng(0)
    targets = random.integers(0, 11, 600)
    clusters = np.where(
        random.random(600) < 0.3, random.integers(0, 40, 600), 1000 + np.arange(600)
    )
    for seed in range(3):
        folds = assign_folds(targets, clusters, seed)
        assert all(len(set(folds[clusters == cluster])) == 1 for cluster in set(clusters))
        counts = np.array(
            [np.bincount(folds[targets == target], minlength=5) for target in range(11)]
        )
        assert np.ptp(counts, axis=1).max() <= 4
        assert np.ptp(counts.sum(axis=0)) <= 12
        assert np.array_equal(folds, assign_folds(targets, clusters, seed))
    assert not np.array_equal(
        assign_folds(targets, clusters, 1), assign_folds(targets, clusters, 2)
    )


@pytest.mark.parametrize(
    ("sizes", "most"),
    [
        pytest.param({0: [20, 20, 20], 1: [1] * 60}, 1, id="a class of three clusters"),
        pytest.param({0: [30, 30], 1: [30, 30], 2: [30, 30]}, 1, id="two clusters a class"),
        pytest.param({0: [15], 1: [15], 2: [15], 3: [15]}, 1, id="fewer clusters than folds"),
        pytest.param({0: [50]}, 1, id="one cluster"),
        pytest.param({at: [1, 1] for at in range(25)}, 1, id="classes smaller than folds"),
    ],
)
def test_few_clusters_are_dealt_out_too(sizes: dict[int, list[int]], most: int) -> None:
    """However few there are: no error, no warning, and the clusters of a class lie apart, so that
    as much of it as can be is known when one of them is judged."""
    targets: list[int] = []
    clusters: list[int] = []
    for target, members in sizes.items():
        for size in members:
            clusters += [len(set(clusters))] * size
            targets += [target] * size
    folds = assign_folds(np.array(targets), np.array(clusters), 1)
    for target, members in sizes.items():
        if len(members) <= 5 and len(sizes) < 25:
            of_class = {
                (fold, cluster)
                for fold, cluster, own in zip(folds, clusters, targets, strict=True)
                if own == target
            }
            assert len({fold for fold, _ in of_class}) >= len(members) - most + 1


def test_a_label_of_nothing_but_copies_of_each_other_is_not_doubted() -> None:
    """Hidden whole, the label is unknown to the model: that says nothing about the label, and the
    figures say how many were not judged."""
    template = "your weekly newsletter of the shop: offers, news, recipes, number"
    examples = [replace(example, sublabel=None) for example in make_examples(40, 1)]
    examples += [Example(f"n{at}", f"{template} {at}", "newsletter") for at in range(20)]
    clusters = number_clusters(examples, SIMILARITY)
    assert len(set(clusters[-20:])) == 1
    names = [*sorted(THINGS), "newsletter"]
    judged = predict_out_of_fold(examples, names, clusters=clusters, embeddings=None, seed=1)
    assert judged.judged.sum() == len(examples) - 20
    doubted = find_suspects(examples, judged, frozenset())
    assert not [found for found in doubted if found.example.label == "newsletter"]
