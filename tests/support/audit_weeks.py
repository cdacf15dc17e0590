"""Weeks of traffic with a known truth, audited by people who make mistakes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from desk.accuracy.estimate import Counts, Doubled, Stratum

LABELS = tuple(f"label_{n:02}" for n in range(11))
ADAPTERS = ("a" * 64, "b" * 64)
DOUBTFUL = 0.15

_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """How a desk's weeks are.

    ``onto``: the probability with which a reviewer who is mistaken takes one particular wrong
    label (the machine's, or the one another mistaken reviewer took): 0.1 where each of ten is as
    likely. ``hard``: how many times as often reviewers are mistaken where the machine is wrong.
    ``decided``: the share of the sample that is decided by the time of the estimate, for the two
    adapters.
    """

    accuracy: float = 0.9
    share: float = 0.02
    results: int = 10_000
    mistaken: float = 0.05
    doubled: float = 0.2
    onto: float = 0.1
    hard: float = 1.0
    decided: tuple[float, float] = (0.95, 0.6)
    history_weeks: int = 12


@dataclass(frozen=True)
class Week:
    """What the desk knows of a week, and the truth."""

    traffic: dict[Stratum, int]
    sample: dict[Stratum, Counts]
    doubled: Counter[Doubled]
    truth: float


def strata(world: World) -> list[tuple[Stratum, float, float]]:
    """Strata with their part of the traffic and their accuracy: doubtful results and the second
    adapter are worse, the mean is the world's."""
    raw = []
    for at, label in enumerate(LABELS):
        for adapter, part in zip(ADAPTERS, (0.7, 0.3), strict=True):
            for doubtful in (False, True):
                weight = 0.8**at * part * (DOUBTFUL if doubtful else 1 - DOUBTFUL)
                worse = (4 if doubtful else 1) * (1 if adapter == ADAPTERS[0] else 1.8)
                raw.append((Stratum(label, adapter, doubtful), weight, worse))
    total = sum(weight for _, weight, _ in raw)
    mean = sum(weight * worse for _, weight, worse in raw) / total
    wrong = 1 - world.accuracy
    return [
        (stratum, weight / total, 1 - min(0.95, wrong * worse / mean))
        for stratum, weight, worse in raw
    ]


def simulate(world: World, seed: int) -> Week:
    """Draw a week, and the double decisions of the weeks before it."""
    draw = np.random.default_rng(seed)
    kinds = strata(world)
    results = draw.multinomial(world.results, [weight for _, weight, _ in kinds])
    right = draw.binomial(results, [accuracy for _, _, accuracy in kinds])
    finished = np.array(
        [world.share * world.decided[ADAPTERS.index(kind.adapter_digest)] for kind, _, _ in kinds]
    )
    seen_right = draw.binomial(right, finished)
    seen_wrong = draw.binomial(results - right, finished)
    at = np.concatenate([np.repeat(np.arange(len(kinds)), n) for n in (seen_right, seen_wrong)])
    seen = np.repeat([True, False], [seen_right.sum(), seen_wrong.sum()])
    verdict, twice, doubled = _review(world, draw, seen)
    size, found, checked = (
        np.bincount(at, weights=each, minlength=len(kinds)).astype(int).tolist()
        for each in (np.ones(seen.size), verdict, twice)
    )
    return Week(
        {stratum: n for (stratum, _, _), n in zip(kinds, results.tolist(), strict=True)},
        {
            stratum: Counts(size[n], found[n], checked[n], drawn_for=size[n] / world.share)
            for n, (stratum, _, _) in enumerate(kinds)
            if size[n]
        },
        doubled + _history(world, draw, kinds),
        int(right.sum()) / world.results,
    )


def _history(
    world: World, draw: np.random.Generator, kinds: list[tuple[Stratum, float, float]]
) -> Counter[Doubled]:
    several = world.history_weeks * world.results * world.share * world.doubled * 0.85
    sizes = draw.multinomial(draw.poisson(several), [weight for _, weight, _ in kinds])
    chances = np.repeat([accuracy for _, _, accuracy in kinds], sizes)
    seen = draw.random(chances.size) < chances
    return _review(world, draw, seen, always_twice=True)[2]


def _review(
    world: World, draw: np.random.Generator, right: _Bools, *, always_twice: bool = False
) -> tuple[_Bools, _Bools, Counter[Doubled]]:
    """Let people decide results of which it is known whether the machine was right. Return what
    they found, what was checked, and what was decided twice."""
    size = right.size
    twice = np.ones(size, bool) if always_twice else draw.random(size) < world.doubled
    chance = np.where(right, world.mistaken, min(0.9, world.mistaken * world.hard))
    # 0: the true label; 1: a wrong one (the machine's, where it is wrong); 2, 3: other wrong ones.
    said = []
    for other in (2, 3):
        mistaken = draw.random(size) < chance
        certain = draw.random(size) < world.onto
        said.append(np.where(mistaken, np.where(certain, 1, other), 0))
    first, second = said
    machine = np.where(right, 0, 1)
    settled = np.where(twice & (first == second), first, 0)  # the adjudicator is right
    verdict = np.where(twice, settled == machine, first == machine)
    settled_right = settled == machine
    wrong_side = sum(((one == machine) != settled_right).astype(int) for one in said)
    mistaken_of = sum((one != settled).astype(int) for one in said)
    code = 100 * settled_right + 10 * wrong_side + mistaken_of
    values, counts = np.unique(code[twice], return_counts=True)
    doubled = Counter(
        {
            Doubled(value >= 100, value // 10 % 10, value % 10, 2): n
            for value, n in zip(values.tolist(), counts.tolist(), strict=True)
        }
    )
    return verdict, twice, doubled
