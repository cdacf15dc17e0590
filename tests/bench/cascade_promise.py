"""How often a cascade keeps its promise for the messages that nobody checks.

    python -m tests.bench.cascade_promise [--trainings 2000]

Two simulated models with calibrated confidences, so that the truth of each rule is known: the mean
confidence of whichever stage answers, among the messages that the rule sends to nobody.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from trainer.cascade.table import Answers, Rule, StageRun, make_row
from worker.contract import Decision, Thresholds

Floats = NDArray[np.float64]

MARGIN = 0.03
POPULATION = 20_000


@dataclass(frozen=True)
class World:
    """Confidence of two models: for each a beta distribution, at least ``low``."""

    small: tuple[float, float]
    large: tuple[float, float]
    low: float = 0.3

    def confidences(self, rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
        """Draw the confidences of both models, (messages) each; a hard message is hard for both."""
        shared = rng.random(count)
        drawn = []
        for a, b in (self.small, self.large):
            own = np.where(rng.random(count) < 0.5, shared, rng.random(count))
            sure = np.quantile(rng.beta(a, b, 4_000), own).astype(np.float64)
            drawn.append(self.low + (1 - self.low) * sure)
        return drawn[0], drawn[1]


WORLDS = {
    "right 82 and 85 % of the time, as the shop's": World((1.6, 0.5), (2.2, 0.5)),
    "right 95 and 97 %": World((6.0, 0.45), (9.0, 0.4)),
    "right 75 and 90 %": World((1.0, 0.55), (4.0, 0.6)),
}


@dataclass(frozen=True)
class Found:
    """Of some trainings: how many bound a cascade, in how many of those the truth is below the
    promise, and the mean shares that the first stage answers and that go to review."""

    trainings: int
    bound: int
    broken: int
    first_share: float
    review_share: float


def simulate(world: World, promise: float, trainings: int, messages: int, seed: int) -> Found:
    """Choose a cascade on ``messages`` validation messages, ``runs`` times."""
    rng = np.random.default_rng(seed)
    truth = world.confidences(rng, POPULATION)
    broken, firsts, reviews = 0, [], []
    for _ in range(trainings):
        small, large = world.confidences(rng, messages)
        stages = _stage(small, rng), _stage(large, rng)
        _, rule = make_row(*stages, MARGIN, precision=promise)
        if rule is None:
            continue
        first, unseen, right = _truth_of(rule, truth)
        broken += right < promise
        firsts.append(first)
        reviews.append(1 - unseen)
    return Found(
        trainings,
        len(firsts),
        broken,
        float(np.mean(firsts)) if firsts else 0.0,
        float(np.mean(reviews)) if reviews else 1.0,
    )


def _stage(confidence: Floats, rng: np.random.Generator) -> StageRun:
    decisions = tuple(
        Decision("a" if right else "b", float(sure), {}, None)
        for sure, right in zip(confidence, rng.random(len(confidence)) < confidence, strict=True)
    )
    ids = tuple(map(str, range(len(decisions))))
    answers = Answers(ids, ("a",) * len(decisions), decisions)
    stage: Any = SimpleNamespace(
        manifest=SimpleNamespace(thresholds=Thresholds(0.5)),
        limits=Thresholds(None),
        validation=answers,
        messages_per_s=None,
    )
    return cast("StageRun", stage)


def _truth_of(rule: Rule, truth: tuple[Floats, Floats]) -> tuple[float, float, float]:
    """The shares that the first stage answers and that nobody reviews, and the accuracy of the
    latter; 1 if there are none."""
    small, large = truth
    first = small >= rule.sure_from
    least = rule.last.review_confidence
    assert least is not None
    unseen = first | (large >= least)
    right = np.where(first, small, large)[unseen]
    return float(first.mean()), float(unseen.mean()), float(right.mean()) if len(right) else 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainings", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=600)
    options = parser.parse_args()
    for name, world in WORLDS.items():
        for promise in (0.9, 0.95):
            found = simulate(world, promise, options.trainings, options.messages, seed=5)
            share = found.broken / found.trainings
            error = 2 * (share * (1 - share) / found.trainings) ** 0.5
            print(
                f"{name}, promise {promise:.0%}: broken in {share:.1%} (±{error:.1%}) of "
                f"{found.trainings}, {found.bound} bound; of these {found.first_share:.1%} by the "
                f"first stage, {found.review_share:.1%} to a person",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
