"""How often ``check``'s share of wrong labels holds the truth, which is planted here.

    python -m tests.bench.wrong_share [--draws 2000] [--desks 100]

First models whose probabilities are right but for a temperature, ``--draws`` times for each share
of slips; then real models on folds, which err, ``--desks`` times for each world.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable

import numpy as np

from tests.support.wrong_labels import DESKS, judge_answers, judge_desk
from trainer.statistics.label_errors import WrongShare

DRAWN = ((0.0, 1.0), (0.02, 1.0), (0.05, 1.6), (0.15, 0.7))


def main() -> None:
    """Print a line for each world."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--desks", type=int, default=100)
    given = parser.parse_args()
    print(
        f"{'world':44} {'wrong':>6} {'slips':>6} {'in interval':>11} {'most':>6} {'below most':>10}"
    )
    for wrong, temperature in DRAWN:
        name = f"drawn, {wrong:.0%} slips, temperature {temperature:g}"
        runs = range(given.draws)
        tell(name, (judge_answers(wrong, temperature, rows=300, seed=seed) for seed in runs))
    for desk in DESKS:
        tell(desk.name, (judge_desk(desk, seed) for seed in range(given.desks)))


def tell(name: str, runs: Iterable[tuple[float, WrongShare]]) -> None:
    """Print the means of the truth, the estimate and the bound, and how often each bound holds."""
    found = np.array(
        [
            (x, share.value, share.low <= x <= share.high, share.most, x <= share.most)
            for x, share in runs
        ],
        dtype=float,
    )
    if len(found):
        wrong, slips, held, most, below = found.mean(axis=0)
        print(
            f"{name:44} {wrong:6.1%} {slips:6.1%} {held:11.1%} {most:6.1%} {below:10.1%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
