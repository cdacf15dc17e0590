"""Findings about labels: rarely wrong in a sound taxonomy, and soon there in a bad one.

Reviewers are simulated: each is wrong once in twenty times, and then gives a random other label.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.advice.findings import (
    LEAST_LABEL,
    NONE,
    DecidedMessage,
    find_contradictory,
    find_missing,
    find_pairs,
    find_split,
    gather,
)
from worker.contract.exchange import Answer

pytestmark = pytest.mark.slow

LABELS = tuple(f"label {at}" for at in range(11))
MISTAKES = 0.05


def people(
    seed: int, messages: int, *, merged: tuple[int, int] | None = None, vague: int | None = None
) -> list[DecidedMessage]:
    """Return messages with two reviewers' labels. Between the ``merged`` labels they guess; every
    second message of a ``vague`` label gets a random one."""
    draw = np.random.default_rng(seed)

    def say(truth: int) -> str:
        if merged is not None and truth in merged:
            truth = int(draw.choice(merged))
        if (vague == truth and draw.random() < 0.5) or draw.random() < MISTAKES:
            truth = int(draw.integers(len(LABELS)))
        return LABELS[truth]

    found = []
    for at in range(messages):
        truth = int(draw.integers(len(LABELS)))
        found.append(DecidedMessage(str(at), str(at), opinions=[say(truth), say(truth)]))
    return found


def test_a_sound_taxonomy_is_left_alone() -> None:
    """In 200 simulated teams, at most one in twenty gets a wrong finding about a pair or a
    label."""
    wrongly = {"pair": 0, "label": 0}
    for seed in range(200):
        decided = people(seed, 600)
        pairs = find_pairs(decided, LABELS)
        wrongly["pair"] += bool(pairs)
        wrongly["label"] += bool(find_contradictory(decided, LABELS, pairs))
    assert wrongly["pair"] <= 10
    assert wrongly["label"] <= 10


@pytest.mark.parametrize(("messages", "least"), [(150, 0.5), (300, 0.95), (600, 1.0)])
def test_two_labels_that_are_one_are_found(messages: int, least: float) -> None:
    """With 300 messages decided twice, fifty of them of these labels, nearly always; with 600, as
    one label instead of two confused ones; and never another pair."""
    found = [find_pairs(people(seed, messages, merged=(2, 7)), LABELS) for seed in range(100)]
    named = [[pair.labels for pair in pairs if pair.disagreements] for pairs in found]
    assert np.mean([(LABELS[2], LABELS[7]) in names for names in named]) >= least
    assert np.mean([len(names) > 1 for names in named]) <= 0.05
    if messages == 600:
        alike = [pair.alike for pairs in found for pair in pairs if pair.labels[0] == LABELS[2]]
        assert np.mean(alike) >= 0.75


def test_a_label_that_nobody_can_tell_is_found() -> None:
    found = []
    for seed in range(50):
        decided = people(seed, 800, vague=4)
        pairs = find_pairs(decided, LABELS)
        found.append([each.label for each in find_contradictory(decided, LABELS, pairs)])
    assert np.mean([LABELS[4] in labels for labels in found]) >= 0.9
    assert np.mean([len(labels) > 1 for labels in found]) <= 0.1


def test_who_sees_a_label_is_no_second_opinion() -> None:
    """A decision on a suspect agrees with what it shows too often; an audit's is blind, and stands
    beside the hold-out's label; opinions of several people stand for themselves. A message that the
    desk drew from service may have brought that label into the hold-out itself."""
    sha = [f"{at}" * 64 for at in range(5)]
    answers = [
        Answer("a", sha[0], "accept", purpose="check"),
        Answer("b", sha[1], "relabel", "x", purpose="audit", task_id="1"),
        Answer("d", sha[4], "relabel", "y", purpose="audit"),
        Answer("c", sha[2], "relabel", "x", role="opinion"),
        Answer("c", sha[2], "drop", role="opinion"),
        Answer("c", sha[2], "drop", guideline="3"),
    ]
    found = gather(answers, {sha[0]: "y", sha[1]: "y", sha[4]: "y"})
    assert [each.doubly for each in found.values()] == [False, True, False, True]
    assert found[sha[0]].outcome == "y"
    assert found[sha[1]].opinions == ["y", "x"]
    assert (found[sha[2]].outcome, found[sha[2]].guideline) == (NONE, "3")


# A label that is missing is found in simulated embeddings, and not invented.


SOME_LABELS = tuple("abcdefghijk")
Vectors = NDArray[np.float32]


def unit(rows: NDArray[np.float64]) -> Vectors:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def label_vectors(draw: np.random.Generator, count: int, intents: int = 4) -> Vectors:
    """Return messages of one label: several intents around one centre, as in real labels."""
    centre = draw.normal(0, 1, 48)
    middles = centre + draw.normal(0, 0.45, (intents, 48))
    return unit(middles[draw.integers(intents, size=count)] + draw.normal(0, 0.8, (count, 48)))


def test_a_missing_label_is_found_in_what_fits_none() -> None:
    found = 0
    for seed in range(20):
        draw = np.random.default_rng(seed)
        sound = [label_vectors(draw, 60) for _ in SOME_LABELS]
        strays = unit(draw.normal(0, 1, (20, 48)))
        kept = np.concatenate(sound)
        assert find_missing(strays, kept) == []
        told = find_missing(np.concatenate([label_vectors(draw, 20), strays]), kept)
        found += bool(len(told) == 1 and np.mean(np.array(told[0].places) < 20) > 0.9)
    assert found >= 18


def test_mistakes_about_a_known_label_are_no_missing_one() -> None:
    draw = np.random.default_rng(2)
    rows = label_vectors(draw, 210)
    assert find_missing(rows[:10], rows[10:]) == []


# A label that is two is found in simulated embeddings, and a broad one is not
# called two.


SPLIT_LABELS = tuple("abcdefgh")
WIDTH = 48


def split_vectors(draw: np.random.Generator, count: int, spread: float) -> Vectors:
    """Return messages of one label: seven requests around one centre, at a distance of
    ``spread``."""
    centre = draw.normal(0, 1, WIDTH)
    middles = centre + draw.normal(0, spread, (7, WIDTH))
    return unit(middles[draw.integers(7, size=count)] + draw.normal(0, 1.6, (count, WIDTH)))


def taxonomy(draw: np.random.Generator, spreads: Sequence[float]) -> list[Vectors]:
    return [split_vectors(draw, LEAST_LABEL, spread) for spread in spreads]


def test_a_label_that_is_two_is_named_among_labels_of_every_width() -> None:
    """The halves of broad labels are as far apart as two narrow labels."""
    called = 0
    for seed in range(5):
        draw = np.random.default_rng(seed)
        spreads = draw.permutation(np.linspace(0.3, 0.8, len(SPLIT_LABELS)))
        sound = taxonomy(draw, spreads.tolist())
        told = find_split(sound, SPLIT_LABELS)
        assert [each.separate for each in told] == [False, False]
        assert told[0].links <= told[1].links
        half = LEAST_LABEL // 2
        sound[3] = np.concatenate([split_vectors(draw, half, 0.5), split_vectors(draw, half, 0.5)])
        told = find_split(sound, SPLIT_LABELS)
        assert {each.label for each in told if each.separate} <= {"d"}
        (planted,) = (each for each in told if each.label == "d")
        first = (planted.part[:half] == 0).mean()
        assert max(first, 1 - first) > 0.9
        assert len(planted.part) == 2 * half
        called += planted.separate
    assert called >= 3


def test_too_few_labels_or_messages_say_nothing() -> None:
    draw = np.random.default_rng(1)
    four = taxonomy(draw, [0.5] * 4)
    two = np.concatenate([split_vectors(draw, 75, 0.3), split_vectors(draw, 75, 0.3)])
    assert find_split([two, *four[1:]], SPLIT_LABELS[:4]) == []
    small = [split_vectors(draw, LEAST_LABEL - 1, 0.5) for _ in SPLIT_LABELS]
    small[0] = two[: LEAST_LABEL - 1]
    assert find_split(small, SPLIT_LABELS) == []
