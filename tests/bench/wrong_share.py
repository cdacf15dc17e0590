"""How often ``check``'s interval for the share of wrong labels holds the truth, planted here.

    python -m tests.bench.wrong_share [--draws 2000] [--desks 100]

First models whose probabilities are right but for a temperature, ``--draws`` times for each share
of wrong labels; then real models on folds, which err, ``--desks`` times for each world.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from trainer.check.suspects import assign_folds, cross_val_predict, unit_rows
from trainer.statistics.calibration import Floats, Ints
from trainer.statistics.label_errors import WrongShare, wrong_share

# Labels with known errors, and the predictions of models that did not learn the errors.


@dataclass(frozen=True, slots=True)
class Desk:
    """A world. ``apart`` is the distance of the labels' centres in standard deviations (3:
    models err on about 20 %, 5: on few), ``wrong`` the share of wrong labels. ``borderline``
    puts them where two labels are alike, ``lopsided`` all under the first two labels."""

    name: str
    wrong: float
    apart: float = 4.0
    rows: int = 800
    labels: int = 8
    borderline: bool = False
    lopsided: bool = False


DESKS = (
    Desk("well separated, none wrong", 0.0, apart=5.0),
    Desk("hardly separated, none wrong", 0.0, apart=3.0),
    Desk("1 % wrong", 0.01),
    Desk("5 % wrong", 0.05),
    Desk("15 % wrong", 0.15),
    Desk("hardly separated, 5 % wrong", 0.05, apart=3.0),
    Desk("5 % wrong, between labels that are alike", 0.05, borderline=True),
    Desk("5 % wrong, all under two labels", 0.05, lopsided=True),
    Desk("300 messages, 5 % wrong", 0.05, rows=300),
)


def judge_desk(desk: Desk, seed: int) -> tuple[float, WrongShare]:
    """The true share of wrong labels in one draw of a world, and its estimate."""
    rng = np.random.default_rng(seed)
    dimensions = 24
    centres = rng.normal(size=(desk.labels, dimensions))
    centres *= desk.apart / np.sqrt(2 * dimensions)
    truth = rng.permutation(np.arange(desk.rows) % desk.labels)
    points = centres[truth] + rng.normal(size=(desk.rows, dimensions))
    distance = np.linalg.norm(points[:, None] - centres, axis=2)
    distance[np.arange(desk.rows), truth] = np.inf
    second = distance.argmin(axis=1)
    chance = np.full(desk.rows, desk.wrong)
    if desk.borderline:
        own = np.linalg.norm(points - centres[truth], axis=1)
        closeness = np.exp(own - distance.min(axis=1))
        chance = np.minimum(0.95, closeness * desk.wrong / closeness.mean())
    if desk.lopsided:
        chance = np.where(truth < 2, min(0.95, desk.wrong * desk.labels / 2), 0.0)
    others = (truth + rng.integers(1, desk.labels, desk.rows)) % desk.labels
    is_wrong = rng.random(desk.rows) < chance
    given = np.where(is_wrong, second if desk.borderline else others, truth)
    features = unit_rows(points.astype(np.float32))
    folds = assign_folds(given, np.arange(desk.rows), seed % 1000)
    found = cross_val_predict(features, given, folds, desk.labels)
    found = np.maximum(found, 1e-9)
    found /= found.sum(axis=1, keepdims=True)
    return float(is_wrong.mean()), wrong_share(given, found)


def draw_answers(
    wrong: float, temperature: float, *, rows: int, seed: int, classes: int = 6
) -> tuple[Ints, Floats]:
    """Labels (rows) of which a share ``wrong`` are slips, and answers of models that know the
    text's true distribution but are overconfident (below 1) or underconfident."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3.0, (rows, classes))
    true = softmax(logits, axis=1)
    labels = (true.cumsum(axis=1) > rng.random((rows, 1))).argmax(axis=1)
    slips = rng.random(rows) < wrong
    given = np.where(slips, (labels + rng.integers(1, classes, rows)) % classes, labels)
    return given, np.maximum(softmax(logits / temperature, axis=1), 1e-9)


def judge_answers(
    wrong: float, temperature: float, *, rows: int, seed: int
) -> tuple[float, WrongShare]:
    """The requested share of slips, and the estimate from one draw."""
    return wrong, wrong_share(*draw_answers(wrong, temperature, rows=rows, seed=seed))


DRAWN = ((0.0, 1.0), (0.02, 1.0), (0.05, 1.6), (0.15, 0.7))


def main() -> None:
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
