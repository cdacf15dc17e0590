"""A label that is two, and one that is missing: found in simulated embeddings, and not invented."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from trainer.advice.shape import find_missing, find_split

LABELS = tuple("abcdefghijk")
Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def label_vectors(draw: np.random.Generator, count: int, intents: int = 4) -> Vectors:
    """Return messages of one label: some intents about one centre, as real labels have them."""
    centre = draw.normal(0, 1, 48)
    middles = centre + draw.normal(0, 0.45, (intents, 48))
    return unit(middles[draw.integers(intents, size=count)] + draw.normal(0, 0.8, (count, 48)))


def test_one_label_that_is_two_is_found_and_others_are_not() -> None:
    """Two labels under one name: found in two of three simulated taxonomies of eleven whose labels
    are compact; where nothing is planted none hears of any."""
    found, wrongly = 0, 0
    for seed in range(30):
        draw = np.random.default_rng(seed)
        sound = [label_vectors(draw, 60) for _ in LABELS]
        wrongly += bool(find_split(sound, LABELS))
        sound[3] = np.concatenate([label_vectors(draw, 45), label_vectors(draw, 45)])
        told = find_split(sound, LABELS)
        found += [each.label for each in told] == ["d"]
        if told and told[0].label == "d":
            part = told[0].part
            assert max((part[:45] == 0).mean(), (part[:45] == 1).mean()) > 0.9
    assert found >= 20
    assert wrongly == 0


def test_too_few_labels_are_no_yardstick() -> None:
    """What is usual cannot be told from four labels."""
    draw = np.random.default_rng(1)
    assert find_split([label_vectors(draw, 60) for _ in range(4)], LABELS[:4]) == []


def test_a_missing_label_is_found_in_what_fits_none() -> None:
    """Twenty messages of a label that is not there, among twenty strays: one cluster, of these; and
    of strays alone nothing is made."""
    found = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        sound = [label_vectors(draw, 60) for _ in LABELS]
        strays = unit(draw.normal(0, 1, (20, 48)))
        kept = np.concatenate(sound)
        assert find_missing(strays, kept) == []
        told = find_missing(np.concatenate([label_vectors(draw, 20), strays]), kept)
        found += bool(len(told) == 1 and np.mean(np.array(told[0].places) < 20) > 0.9)
    assert found >= 18


def test_mistakes_about_a_known_label_are_no_missing_one() -> None:
    """Ten messages of a label that somebody dropped, and two hundred that were kept: slips."""
    draw = np.random.default_rng(2)
    rows = label_vectors(draw, 210)
    assert find_missing(rows[:10], rows[10:]) == []
