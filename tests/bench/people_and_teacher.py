"""``python -m tests.bench.people_and_teacher``: accuracy against people, with a teacher's help.

Worlds with a known accuracy. People decide a random sample of about so many messages, and a teacher
labels ten times as many. A row has how often the 95 % intervals hold the truth (the sample alone,
the trainer's, and PPI++'s normal one), the trainer's mean width next to the sample's, and how often
it is more than 1.1 times as wide. The size of a sample varies by a tenth: for one size and one
truth the coverage of any interval of counts swings by two points.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.prediction_powered import Counts, plain_accuracy, powered_accuracy

SAMPLES = (50, 130, 300)
_POOL = 10
_NEW_MISTAKE = 0.15  # of the answers that differ where the teacher is wrong


@dataclass(frozen=True, slots=True)
class World:
    """Shares of messages: the student agrees and is right, agrees and is wrong, differs and is
    right, differs and is wrong; then right and wrong where the teacher gave no label."""

    name: str
    shares: tuple[float, ...]
    hostile: bool = False

    @property
    def accuracy(self) -> float:
        """The truth."""
        return sum(self.shares[::2])

    @property
    def agreement(self) -> float:
        """The share of the teacher's labels that the student gives."""
        return sum(self.shares[:2]) / sum(self.shares[:4])


def taught(student: float, teacher: float, copied: float, silent: float = 0.0) -> World:
    """A student that repeats a share ``copied`` of its teacher's mistakes. The teacher gives no
    label for a share ``silent``, where seven of ten answers are right."""
    missed = 1 - teacher
    both, own = missed * copied, missed * (1 - copied) * _NEW_MISTAKE
    better = missed * (1 - copied) * (1 - _NEW_MISTAKE)
    alone = max(0.0, 1 - student - both - own)
    shares = [1 - both - own - better - alone, both, better, own + alone]
    kept = [share * (1 - silent) for share in shares]
    name = f"student {student:.0%}, teacher {teacher:.0%}, repeats {copied:.0%} of its mistakes"
    if silent:
        name += f"; no label for {silent:.0%}"
    return World(name, (*kept, 0.7 * silent, 0.3 * silent))


def unrelated(student: float, agreement: float) -> World:
    """A teacher whose labels say nothing about being right."""
    shares = (
        student * agreement, (1 - student) * agreement,
        student * (1 - agreement), (1 - student) * (1 - agreement),
    )  # fmt: skip
    name = f"student {student:.0%}, teacher at random, agrees with {agreement:.0%}"
    return World(name, (*shares, 0.0, 0.0), hostile=True)


GOOD = [
    taught(0.93, 0.95, 0.0),
    taught(0.93, 0.95, 0.5),
    taught(0.93, 0.95, 1.0),
    taught(0.97, 0.95, 0.0),
    taught(0.90, 0.95, 0.5),
    taught(0.90, 0.95, 0.5, silent=0.09),
]
WORLDS = [
    *GOOD,
    taught(0.90, 0.90, 0.5),
    taught(0.95, 0.90, 0.2),
    taught(0.98, 0.98, 0.5),
    taught(0.99, 0.99, 0.3),
    unrelated(0.85, 1 / 11),
    unrelated(0.93, 1 / 11),
    unrelated(0.97, 1 / 11),
    unrelated(0.93, 0.5),
    World("student 93%, teacher agrees where it is wrong", (0.28, 0.063, 0.65, 0.007, 0, 0), True),
    World("student 93%, teacher copies the student", (0.93, 0.07, 0, 0, 0, 0), True),
]


@dataclass(frozen=True, slots=True)
class Found:
    """Shares of runs whose interval holds the truth; ``width`` is the trainer's mean width over the
    sample's, ``wider`` the share of runs in which it is more than 1.1 times as wide."""

    plain: float
    powered: float
    reference: float
    width: float
    wider: float


def draw(world: World, size: int, draws: np.random.Generator) -> tuple[NDArray[np.int64], int, int]:
    """Return the sample's counts in the order of the shares, and the pool: agreeing, and all."""
    near = draws.integers(math.ceil(0.9 * size), math.floor(1.1 * size) + 1)
    counts = draws.multinomial(near, world.shares)
    pool = _POOL * size
    return counts, int(draws.binomial(pool, world.agreement)), pool


def as_counts(counts: NDArray[np.int64], agree: int, pool: int) -> Counts:
    """The trainer's form."""
    parts = [(float(right), float(right + wrong)) for right, wrong in counts.reshape(3, 2)]
    return Counts(*parts, pool=(float(agree), float(pool)))  # type: ignore[misc]


def reference_mean(
    counts: NDArray[np.int64], agree: int, pool: int, weight: float | None = None
) -> tuple[float, float]:
    """PPI++'s mean and its standard error (arXiv 2311.01453, with the weight clipped to 0 and 1 as
    in ppi_py 0.2, which gives the same numbers). Messages without a teacher's label count as not
    agreeing, and so does their share of the pool."""
    n, silent = int(counts.sum()), int(counts[4:].sum())
    y = np.repeat([1.0, 0, 1, 0, 1, 0], counts)
    f = np.repeat([1.0, 1, 0, 0, 0, 0], counts)
    whole = round(pool * n / (n - silent))
    share, every = agree / whole, n + whole
    if weight is None:
        seen = float(f.sum() + agree) / every
        spread = seen * (1 - seen) * every / (every - 1)
        covariance = float(((y - y.mean()) * (f - f.mean())).mean())
        weight = min(1.0, max(0.0, covariance / ((1 + n / whole) * spread))) if spread else 0.0
    value = float(weight * share + (y - weight * f).mean())
    error = math.sqrt(weight**2 * share * (1 - share) / whole + float((y - weight * f).var()) / n)
    return value, error


def simulate(world: World, size: int, runs: int, seed: int) -> Found:
    """Count over ``runs`` samples of about ``size`` messages."""
    draws = np.random.default_rng(seed)
    z, truth = NormalDist().inv_cdf(0.975), world.accuracy
    held = np.zeros(3)
    widths, wider = np.zeros(2), 0
    for _ in range(runs):
        drawn = draw(world, size, draws)
        value, error = reference_mean(*drawn)
        counts = as_counts(*drawn)
        plain, powered = plain_accuracy(counts).interval, powered_accuracy(counts).interval
        intervals = (plain, powered, (value - z * error, value + z * error))
        held += [low - 1e-9 <= truth <= high + 1e-9 for low, high in intervals]
        two = np.array([high - low for low, high in (plain, powered)])
        widths += two
        wider += bool(two[1] > 1.1 * two[0])
    plain_, powered_, reference_ = (float(share) for share in held / runs)
    return Found(plain_, powered_, reference_, float(widths[1] / widths[0]), wider / runs)


def rows(runs: int, seed: int) -> Iterator[tuple[World, int, Found]]:
    """Every world with every size."""
    for world in WORLDS:
        for size in SAMPLES:
            yield world, size, simulate(world, size, runs, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print("| world | sample | alone | with the teacher | PPI++, normal | width | over 1.1 |")
    print("|---|---|---|---|---|---|---|")
    for world, size, found in rows(given.runs, given.seed):
        print(
            f"| {world.name} | {size} | {found.plain:.1%} | {found.powered:.1%} | "
            f"{found.reference:.1%} | {found.width:.2f} | {found.wider:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
