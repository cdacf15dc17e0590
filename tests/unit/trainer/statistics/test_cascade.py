"""The confidence from which a small model answers, on data with a known truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from trainer.statistics.calibration import Bools, Floats
from trainer.statistics.cascade import choose_threshold, combine, messages_needed

SETS = 150


@dataclass(frozen=True)
class Drawn:
    """One set of messages."""

    confidence: Floats
    small: Bools
    large: Bools

    @property
    def all(self) -> Bools:
        return np.ones(len(self.confidence), dtype=np.bool_)


def draw(rng: np.random.Generator, count: int, *, large: float, worst: float) -> Drawn:
    """Draw messages on which the large model has accuracy ``large``, and the small one an accuracy
    that falls with its confidence, down to ``worst``."""
    confidence = rng.random(count)
    right = worst + (large - worst) * confidence**0.25
    # Half of its mistakes are the large one's too.
    luck = rng.random(count)
    small = luck < right
    same = rng.random(count) < 0.5
    return Drawn(confidence, small, np.where(same, luck < large, rng.random(count) < large))


@pytest.mark.parametrize(("count", "worst"), [(300, 0.3), (300, 0.85), (1200, 0.6)])
def test_a_cascade_worse_by_more_than_the_margin_ships_at_most_once_in_twenty_times(
    count: int, worst: float
) -> None:
    """Over all parts tried; plus three standard errors of the simulation."""
    rng = np.random.default_rng(11)
    margin, large = 0.01, 0.95
    truth = draw(rng, 400_000, large=large, worst=worst)
    shipped = worse = 0
    for _ in range(SETS):
        found = draw(rng, count, large=large, worst=worst)
        choice = choose_threshold(found.confidence, found.all, found.small, found.large, margin)
        if choice is None:
            continue
        shipped += 1
        answers = combine(truth.confidence, truth.all, choice.sure_from)
        whole = np.where(answers, truth.small, truth.large).mean()
        worse += bool(truth.large.mean() - whole > margin)
    assert worse / SETS <= 0.05 + 3 * (0.05 * 0.95 / SETS) ** 0.5
    assert shipped or count < 1000 or worst < 0.5, "it has to ship what is harmless"


def test_more_messages_let_the_small_model_answer_more() -> None:
    rng = np.random.default_rng(3)
    shares = []
    for count in (400, 4000, 40_000):
        found = draw(rng, count, large=0.95, worst=0.85)
        choice = choose_threshold(found.confidence, found.all, found.small, found.large, 0.01)
        shares.append(choice.share if choice else 0.0)
    assert shares == sorted(shares)
    assert shares[-1] > 0.3


def test_equal_confidences_are_accepted_together_and_barred_messages_never() -> None:
    """The share counts all messages."""
    confidence = np.repeat([0.9, 0.8], 500)
    right = np.ones(1000, dtype=np.bool_)
    wrong_below = np.repeat([True, False], 500)
    choice = choose_threshold(confidence, right, wrong_below, right, 0.01)
    assert choice is not None
    assert (choice.sure_from, choice.share) == (0.9, 0.5)
    barred = np.arange(1000) % 2 == 0
    choice = choose_threshold(confidence, barred, wrong_below, right, 0.01)
    assert choice is not None
    assert (choice.sure_from, choice.share) == (0.9, 0.25)
    assert combine(confidence, barred, 0.9).mean() == 0.25
    assert choose_threshold(confidence, ~right, wrong_below, right, 0.01) is None


def test_too_few_messages_prove_nothing_and_the_needed_number_does() -> None:
    """A hundred messages without a discordant one do not prove half a point."""
    right = np.ones(100, dtype=np.bool_)
    confidence = np.linspace(0.5, 1.0, 100)
    assert choose_threshold(confidence, right, right, right, 0.005) is None
    needed = messages_needed(confidence, right, right, right, 0.005)
    assert needed > 100
    many = np.ones(needed, dtype=np.bool_)
    assert choose_threshold(np.linspace(0.5, 1.0, needed), many, many, many, 0.005) is not None
