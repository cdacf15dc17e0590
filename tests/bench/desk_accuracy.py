"""Whether the desk's interval covers the true accuracy, and how soon it reports a fall.

    python -m tests.bench.desk_accuracy [--weeks 1000] [--years 1000] [--only coverage|broken|alert]

Coverage: weeks of several worlds with a known truth, one for each seed; for comparison the share of
the audited results found right, neither weighted nor corrected, with the usual normal interval.
Alert: years in which nothing happens, and falls of 3 and 5 points; judged once a day.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from desk.accuracy.estimate import (
    REFERENCE_DAYS,
    WINDOWS_DAYS,
    Counts,
    Doubled,
    Share,
    Stratum,
    accuracy,
    has_fallen,
    mistakes,
)

# Weeks of traffic with a known truth, audited by people who make mistakes.


LABELS = tuple(f"label_{n:02}" for n in range(11))
ADAPTERS = ("a" * 64, "b" * 64)
DOUBTFUL = 0.15

_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class World:
    """A desk's weeks. ``onto``: the probability that a mistaken reviewer chooses one particular
    wrong label (the model's, or another mistaken reviewer's): 0.1 if all ten are equally
    likely. ``hard``: how much more often reviewers are mistaken where the model is wrong.
    ``decided``: the share of the sample decided by the time of the estimate, for the two
    adapters."""

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
    """The desk's knowledge of a week, and the truth."""

    traffic: dict[Stratum, int]
    sample: dict[Stratum, Counts]
    doubled: Counter[Doubled]
    truth: float


def strata(world: World) -> list[tuple[Stratum, float, float]]:
    """Strata with their share of the traffic and their accuracy: uncertain results and the
    second adapter are worse, and the mean is the world's."""
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
    """Draw a week, and the double decisions of the weeks before."""
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
    """Let reviewers decide results of known correctness. Return their findings, the checked
    results, and the double decisions."""
    size = right.size
    twice = np.ones(size, bool) if always_twice else draw.random(size) < world.doubled
    chance = np.where(right, world.mistaken, min(0.9, world.mistaken * world.hard))
    # 0: the true label; 1: a wrong one (the machine's, if it is wrong); 2, 3: other wrong ones.
    verdicts = []
    for other in (2, 3):
        mistaken = draw.random(size) < chance
        certain = draw.random(size) < world.onto
        verdicts.append(np.where(mistaken, np.where(certain, 1, other), 0))
    first, second = verdicts
    machine = np.where(right, 0, 1)
    settled = np.where(twice & (first == second), first, 0)  # the adjudicator is right
    verdict = np.where(twice, settled == machine, first == machine)
    settled_right = settled == machine
    wrong_side = sum(((one == machine) != settled_right).astype(int) for one in verdicts)
    mistaken_of = sum((one != settled).astype(int) for one in verdicts)
    code = 100 * settled_right + 10 * wrong_side + mistaken_of
    values, counts = np.unique(code[twice], return_counts=True)
    doubled = Counter(
        {
            Doubled(value >= 100, value // 10 % 10, value % 10, 2): n
            for value, n in zip(values.tolist(), counts.tolist(), strict=True)
        }
    )
    return verdict, twice, doubled


TRAFFIC = ((2_000, 0.01), (10_000, 0.02), (50_000, 0.05))


@dataclass
class Tally:
    weeks: int = 0
    covered: int = 0
    naive: int = 0
    width: float = 0.0
    bias: float = 0.0
    naive_bias: float = 0.0


def coverage(world: World, weeks: int, *, first_seed: int = 0) -> Tally:
    """Simulate weeks, and count those whose interval covers the truth."""
    tally = Tally()
    for seed in range(first_seed, first_seed + weeks):
        week = simulate(world, seed)
        estimate = accuracy(week.sample, week.traffic, mistakes(week.doubled))
        tally.weeks += 1
        if estimate is None:  # nothing was drawn, so nothing is claimed
            continue
        half = 1.96 * math.sqrt(estimate.plain * (1 - estimate.plain) / estimate.verdicts)
        tally.covered += estimate.low <= week.truth <= estimate.high
        tally.naive += abs(estimate.plain - week.truth) <= half
        tally.width += estimate.high - estimate.low
        tally.bias += estimate.value - week.truth
        tally.naive_bias += estimate.plain - week.truth
    return tally


def worlds() -> Iterator[World]:
    """Worlds in which the method's assumptions hold."""
    for right in (0.8, 0.9, 0.95, 0.99):
        for results, share in TRAFFIC:
            for mistaken in (0.0, 0.05, 0.1):
                yield World(accuracy=right, results=results, share=share, mistaken=mistaken)


def broken_worlds() -> Iterator[World]:
    """Worlds in which they do not: reviewers are mistaken together, or far more often where the
    model is wrong."""
    for right in (0.8, 0.95):
        for mistaken in (0.05, 0.1):
            for onto, hard in ((0.1, 4.0), (1.0, 1.0), (1.0, 4.0)):
                yield World(
                    accuracy=right,
                    results=50_000,
                    share=0.02,
                    mistaken=mistaken,
                    onto=onto,
                    hard=hard,
                )


def years(
    weekly: int, right: float, fall: float, count: int, seed: int = 1
) -> tuple[float, list[int | None]]:
    """Simulate ``count`` times 119 quiet days and a year, from whose first day the accuracy is
    ``fall`` lower. Return the alarms that began in a year, and the days until the first one,
    or None."""
    draw = np.random.default_rng(seed)
    before = REFERENCE_DAYS + max(WINDOWS_DAYS)
    alarms = 0
    delays: list[int | None] = []
    for _ in range(count):
        chances = np.where(np.arange(before + 365) < before, right, right - fall)
        sizes = draw.poisson(weekly / 7, chances.size)
        n = np.concatenate([[0], np.cumsum(sizes)])
        x = np.concatenate([[0], np.cumsum(draw.binomial(sizes, chances))])
        on, first = False, None
        for day in range(before, before + 365):
            begin = day + 1 - max(WINDOWS_DAYS)
            reference = _share(n, x, begin - REFERENCE_DAYS, begin)
            rings = any(
                has_fallen(reference, _share(n, x, day + 1 - window, day + 1))
                for window in WINDOWS_DAYS
            )
            alarms += rings and not on
            if rings and first is None:
                first = day - before + 1
                if fall:
                    break
            on = rings
        delays.append(first)
    return alarms / count, delays


def _share(n: np.ndarray, x: np.ndarray, begin: int, end: int) -> Share:
    size = int(n[end] - n[begin])
    return Share(int(x[end] - x[begin]) / size if size else 0.0, float(size))


def _print_coverage(title: str, several: Iterator[World], weeks: int) -> None:
    print(f"\n{title}\n")
    print("| accuracy | results | share | mistakes | onto, hard | covered | width | bias | naive |")
    print("|---|---|---|---|---|---|---|---|---|")
    least = weeks
    for world in several:
        t = coverage(world, weeks)
        least = min(least, t.covered)
        print(
            f"| {world.accuracy:.0%} | {world.results:,} | {world.share:.0%} | {world.mistaken:.0%}"
            f" | {world.onto}, {world.hard:.0f} | {t.covered:,} | {100 * t.width / t.weeks:.1f} "
            f"| {100 * t.bias / t.weeks:+.2f} | {t.naive:,} "
            f"({100 * t.naive_bias / t.weeks:+.1f}) |",
            flush=True,
        )
    print(f"\nleast: {least:,} of {weeks:,}")


def _print_alert(count: int) -> None:
    print("\n| audited a week | accuracy | false alarms a year | 3 points: days | 5 points: days |")
    print("|---|---|---|---|---|")
    for weekly in (20, 100, 200, 500, 1000):
        for right in (0.9, 0.95):
            quiet, _ = years(weekly, right, 0.0, count)
            cells = []
            for fall in (0.03, 0.05):
                delays = years(weekly, right, fall, count // 2)[1]
                found = sorted(each for each in delays if each is not None)
                middle = len(delays) // 2
                median = str(found[middle]) if len(found) > middle else "never"
                cells.append(f"{median} (found: {len(found) / len(delays):.0%})")
            print(f"| {weekly} | {right:.0%} | {quiet:.2f} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--weeks", type=int, default=1000)
    parser.add_argument("--years", type=int, default=1000)
    parser.add_argument("--only", choices=("coverage", "broken", "alert"))
    args = parser.parse_args()
    if args.only in {None, "coverage"}:
        _print_coverage("What is assumed holds", worlds(), args.weeks)
    if args.only in {None, "broken"}:
        _print_coverage("What is assumed does not hold", broken_worlds(), args.weeks)
    if args.only in {None, "alert"}:
        _print_alert(args.years)


if __name__ == "__main__":
    main()
