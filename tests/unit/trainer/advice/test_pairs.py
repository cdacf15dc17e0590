"""What is said of confused labels: rarely where nothing is wrong, and soon where something is.

People are simulated: each is wrong once in twenty times, and then gives any other label.
"""

from __future__ import annotations

import numpy as np
import pytest

from trainer.advice.opinions import NONE, DecidedMessage, gather
from trainer.advice.pairs import find_contradictory, find_pairs
from worker.contract.exchange import Answer

pytestmark = pytest.mark.slow

LABELS = tuple(f"label {at}" for at in range(11))
MISTAKES = 0.05


def people(
    seed: int, messages: int, *, merged: tuple[int, int] | None = None, vague: int | None = None
) -> list[DecidedMessage]:
    """Return messages with two people's labels. ``merged`` are two labels that are one, so that
    people guess between them; of a ``vague`` label every second message gets any label."""
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
    """Of 200 simulated teams at most one in twenty hears of a pair or a label; it is far fewer."""
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
    """With 300 doubly decided messages, fifty of them of these labels, nearly always; that they
    are one, and not only confused, is said with 600; and no other pair is named with them."""
    found = [find_pairs(people(seed, messages, merged=(2, 7)), LABELS) for seed in range(100)]
    named = [[pair.labels for pair in pairs if pair.disagreements] for pairs in found]
    assert np.mean([(LABELS[2], LABELS[7]) in names for names in named]) >= least
    assert np.mean([len(names) > 1 for names in named]) <= 0.05
    if messages == 600:
        alike = [pair.alike for pairs in found for pair in pairs if pair.labels[0] == LABELS[2]]
        assert np.mean(alike) >= 0.75


def test_a_label_that_nobody_can_tell_is_found() -> None:
    """Its disagreements are with no one label in particular, and so no pair is blamed."""
    found = []
    for seed in range(50):
        decided = people(seed, 800, vague=4)
        pairs = find_pairs(decided, LABELS)
        found.append([each.label for each in find_contradictory(decided, LABELS, pairs)])
    assert np.mean([LABELS[4] in labels for labels in found]) >= 0.9
    assert np.mean([len(labels) > 1 for labels in found]) <= 0.1


def test_who_sees_a_label_is_no_second_opinion() -> None:
    """A decision on a suspect agrees with what it shows too often; an audit's is blind, and stands
    beside the hold-out's label; opinions of several people stand for themselves."""
    sha = [f"{at}" * 64 for at in range(4)]
    answers = [
        Answer("a", sha[0], "accept", purpose="check"),
        Answer("b", sha[1], "relabel", "x", purpose="audit"),
        Answer("c", sha[2], "relabel", "x", role="opinion"),
        Answer("c", sha[2], "drop", role="opinion"),
        Answer("c", sha[2], "drop", guideline="3"),
    ]
    found = gather(answers, {sha[0]: "y", sha[1]: "y"})
    assert [each.doubly for each in found.values()] == [False, True, True]
    assert found[sha[0]].outcome == "y"
    assert found[sha[1]].opinions == ["y", "x"]
    assert (found[sha[2]].outcome, found[sha[2]].guideline) == (NONE, "3")
