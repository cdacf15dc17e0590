"""A label that is missing is found in simulated embeddings, and not invented."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.advice.shape import find_missing

pytestmark = pytest.mark.slow

LABELS = tuple("abcdefghijk")
Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def label_vectors(draw: np.random.Generator, count: int, intents: int = 4) -> Vectors:
    """Return messages of one label: some intents about one centre, as real labels have them."""
    centre = draw.normal(0, 1, 48)
    middles = centre + draw.normal(0, 0.45, (intents, 48))
    return unit(middles[draw.integers(intents, size=count)] + draw.normal(0, 0.8, (count, 48)))


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
