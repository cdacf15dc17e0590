"""A label that is two is found in simulated embeddings, and a broad one is not called two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.advice.split import LEAST_LABEL, find_split

pytestmark = pytest.mark.slow

LABELS = tuple("abcdefgh")
WIDTH = 48
Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def label_vectors(draw: np.random.Generator, count: int, spread: float) -> Vectors:
    """Return messages of one label: seven requests about one centre, ``spread`` from it."""
    centre = draw.normal(0, 1, WIDTH)
    middles = centre + draw.normal(0, spread, (7, WIDTH))
    return unit(middles[draw.integers(7, size=count)] + draw.normal(0, 1.6, (count, WIDTH)))


def taxonomy(draw: np.random.Generator, spreads: Sequence[float]) -> list[Vectors]:
    return [label_vectors(draw, LEAST_LABEL, spread) for spread in spreads]


def test_a_label_that_is_two_is_named_among_labels_of_every_width() -> None:
    """Narrow and broad labels, of which the broad ones' halves lie as far apart as two narrow
    labels do: two under one name are among the two named in all of five taxonomies, called two
    in three (not where they are each other's nearest) and divided as they were put together; no
    sound label is called two."""
    called = 0
    for seed in range(5):
        draw = np.random.default_rng(seed)
        spreads = draw.permutation(np.linspace(0.3, 0.8, len(LABELS)))
        sound = taxonomy(draw, spreads.tolist())
        told = find_split(sound, LABELS)
        assert [each.strange for each in told] == [False, False]
        assert told[0].links <= told[1].links
        half = LEAST_LABEL // 2
        sound[3] = np.concatenate([label_vectors(draw, half, 0.5), label_vectors(draw, half, 0.5)])
        told = find_split(sound, LABELS)
        assert {each.label for each in told if each.strange} <= {"d"}
        (planted,) = (each for each in told if each.label == "d")
        first = (planted.part[:half] == 0).mean()
        assert max(first, 1 - first) > 0.9
        assert len(planted.part) == 2 * half
        called += planted.strange
    assert called >= 3


def test_every_message_is_in_a_part_and_more_of_them_change_little() -> None:
    """A label much larger than the others is looked at in a sample, and divided whole."""
    draw = np.random.default_rng(0)
    sound = taxonomy(draw, [0.5] * len(LABELS))
    sound[0] = np.concatenate([label_vectors(draw, 400, 0.5), label_vectors(draw, 400, 0.5)])
    told = find_split(sound, LABELS)[0]
    assert (told.label, len(told.part), told.strange) == ("a", 800, True)
    first = (told.part[:400] == 0).mean()
    assert max(first, 1 - first) > 0.9


def test_too_few_labels_or_messages_say_nothing() -> None:
    """How labels are linked cannot be told from four of them, nor from a few messages."""
    draw = np.random.default_rng(1)
    four = taxonomy(draw, [0.5] * 4)
    two = np.concatenate([label_vectors(draw, 75, 0.3), label_vectors(draw, 75, 0.3)])
    assert find_split([two, *four[1:]], LABELS[:4]) == []
    small = [label_vectors(draw, LEAST_LABEL - 1, 0.5) for _ in LABELS]
    small[0] = two[: LEAST_LABEL - 1]
    assert find_split(small, LABELS) == []
