"""``python -m tests.bench.judges``: how often the trainer's judges are right, by a known truth.

One table: for each judge the worlds with a known truth (independent messages, messages in groups,
repeated proposals, few messages a label), how often it is wrong and how often right, and the
nominal rate. With ``--more`` also the duel, the gate and the threshold
in finer steps, and on resampled real predictions: those of a run folder's evaluation and duel
(``--run DIR``), else of cheap models on the demo's messages, out of fold. Each share has its
Monte-Carlo error (two standard errors).
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from tests.bench.judges_data import Joint, calibrate_again, load_joint, load_scores
from tests.bench.judges_table import print_table, told
from tests.bench.judges_worlds import GATE_MARGIN, PRECISION
from trainer.duel.verdict import PairedResult, decide
from trainer.statistics.figures import ThresholdRule
from trainer.statistics.metrics import (
    ALPHA,
    Discordance,
    holm,
    mcnemar_exact,
)
from trainer.statistics.noninferiority import non_inferiority_p, power, required_messages
from trainer.statistics.thresholds import review_threshold

ADAPTER, DISCORDANCE, MARGIN = 0.95, 0.05, 0.01


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.judges", description=__doc__)
    parser.add_argument("--run", type=Path, help="a run folder with evaluation/ and duel/")
    parser.add_argument("--runs", type=int, default=2000, help="simulations for each figure")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--more", action="store_true", help="also finer steps and real predictions")
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    began = time.perf_counter()
    print_table(given.runs, given.seed)
    if given.more:
        exact_level()
        duels_simulated(rng, given.runs)
        duels_resampled(rng, given.runs, load_joint(given.run))
        regressions(rng, given.runs)
        thresholds(rng, given.runs, given.run)
    print(f"\n{given.runs} simulations for each figure, {time.perf_counter() - began:.0f} s")
    return 0


def exact_level() -> None:
    """Sum over every outcome how often one that is worse by exactly the margin passes."""
    print("\nnon-inferiority test, exact level (wanted: 5 %), worst over the discordance")
    for total in (330, 800, 1501, 3200):
        for margin in (MARGIN, GATE_MARGIN):
            shares = [_level(total, margin, extra) for extra in (0.0, 0.005, 0.01, 0.03, 0.08)]
            print(f"  {total:5d} messages, {100 * margin:g} points: {max(shares):.2%}")


def _level(total: int, margin: float, extra: float) -> float:
    discordance = margin + extra
    low, high = (int(end) for end in binom.interval(1 - 1e-7, total, discordance))
    passed = 0.0
    for discordant in range(low, high + 1):
        first, last = 0, discordant + 1
        while first < last:
            middle = (first + last) // 2
            if _not_worse(middle, discordant - middle, total, margin) < ALPHA:
                last = middle
            else:
                first = middle + 1
        tail = float(binom.sf(first - 1, discordant, extra / 2 / discordance))
        passed += float(binom.pmf(discordant, total, discordance)) * tail
    return passed


@functools.cache
def _two_sided(a_only: int, b_only: int) -> float:
    return mcnemar_exact(Discordance(a_only, b_only, a_only + b_only))


@functools.cache
def _not_worse(a_only: int, b_only: int, total: int, margin: float) -> float:
    return non_inferiority_p(Discordance(a_only, b_only, total), margin)


Draw = Callable[[], tuple[list[tuple[int, int]], list[float], int]]
"""Draws a duel: for each baseline how often the adapter alone and it alone is right, its accuracy
on validation, and the adapter's hits."""


def duels_simulated(rng: np.random.Generator, runs: int) -> None:
    """Baselines whose errors are independent of one another, given the adapter's."""
    print(f"\nduel, margin 1 point, adapter right {ADAPTER:.0%}, discordance {DISCORDANCE:.0%}")
    enough = required_messages(DISCORDANCE, MARGIN)
    for messages in (800, 1501, enough):
        for worse in (0.02, 0.01, 0.0):
            for baselines in (1, 3, 6):
                draw = _independent(rng, messages, worse, baselines)
                _print_duels(draw, messages, worse, baselines, runs)
        said = power(messages, DISCORDANCE, MARGIN)
        print(f"  the power that is told for {messages} messages: {said:.1%}")
    print("  one of six exactly as good, the others 2 points worse:")
    for messages in (1501, enough):
        mixed = np.array([0.0, *[0.02] * 5])
        _print_duels(_independent(rng, messages, mixed, 6), messages, 0.02, 6, runs)


def _independent(
    rng: np.random.Generator, messages: int, worse: float | NDArray[np.float64], baselines: int
) -> Draw:
    lost = (DISCORDANCE + worse) / 2 / ADAPTER
    won = (DISCORDANCE - worse) / 2 / (1 - ADAPTER)

    def draw() -> tuple[list[tuple[int, int]], list[float], int]:
        hits = int(rng.binomial(messages, ADAPTER))
        a_only = rng.binomial(hits, lost, size=baselines)
        b_only = rng.binomial(messages - hits, won, size=baselines)
        validated = rng.binomial(800, ADAPTER - worse, size=baselines) / 800
        return list(zip(a_only.tolist(), b_only.tolist(), strict=True)), validated.tolist(), hits

    return draw


def duels_resampled(rng: np.random.Generator, runs: int, joint: Joint) -> None:
    """Real answers, drawn with weights under which each baseline is as much worse as is wanted."""
    print(f"\nduel on resampled real predictions: {joint.source}")
    for messages in (800, 1501):
        for worse in (0.02, 0.0):
            for baselines in sorted({1, min(3, joint.baselines), joint.baselines}):
                draw = _resampled(rng, joint, messages, worse, baselines)
                _print_duels(draw, messages, worse, baselines, runs)


def _resampled(
    rng: np.random.Generator, joint: Joint, messages: int, worse: float, baselines: int
) -> Draw:
    part = joint.first(baselines)
    weights = part.weights(worse)
    lost, won = part.adapter[:, None] & ~part.others, part.others & ~part.adapter[:, None]

    def draw() -> tuple[list[tuple[int, int]], list[float], int]:
        counts = rng.multinomial(messages, weights)
        validated = rng.multinomial(800, weights) @ part.others / 800
        pairs = zip((counts @ lost).tolist(), (counts @ won).tolist(), strict=True)
        return list(pairs), validated.tolist(), int(counts @ part.adapter)

    return draw


def _print_duels(draw: Draw, messages: int, worse: float, baselines: int, runs: int) -> None:
    now, undecided, holm_now = 0, 0, 0
    for _ in range(runs):
        pairs, validated, hits = draw()
        counts = [Discordance(a, b, messages) for a, b in pairs]
        p_values = holm([_two_sided(found.a_only, found.b_only) for found in counts])
        margins = [_not_worse(found.b_only, found.a_only, messages, MARGIN) for found in counts]
        results = [
            PairedResult(
                f"b{at}", "baseline", hits / messages - found.difference, on_validation, found, p, m
            )
            for at, (found, on_validation, p, m) in enumerate(
                zip(counts, validated, p_values, margins, strict=True)
            )
        ]
        name, conclusion = decide(results)
        now += name != "adapter"
        undecided += conclusion == "undecided"
        holm_now += min(holm(margins)) < ALPHA
    print(
        f"  {messages:5d} messages, {baselines} truly {100 * worse:g} points worse: shipped "
        f"{told(now, runs)}, too few to tell {undecided / runs:.1%}; if all were tested with "
        f"Holm's correction {told(holm_now, runs)}"
    )


def regressions(rng: np.random.Generator, runs: int) -> None:
    """The gate's row against the current adapter."""
    print(
        "\ngate, a new adapter against the current one: passes (margin 2 points), discordance 3 %"
    )
    for messages in (330, 800, 1501):
        for worse in (0.04, 0.02, 0.01, 0.0):
            discordance = max(0.03, worse)
            shares = [(discordance - worse) / 2, (discordance + worse) / 2, 1 - discordance]
            passed = 0
            for new, current, _ in rng.multinomial(messages, shares, size=runs).tolist():
                unclear = not (new < current and _two_sided(new, current) < ALPHA)
                passed += unclear and _not_worse(new, current, messages, GATE_MARGIN) < ALPHA
            print(
                f"  {messages:5d} messages, truly {100 * worse:g} points worse: "
                f"{told(passed, runs)}"
            )


def thresholds(rng: np.random.Generator, runs: int, run: Path | None) -> None:
    """Trainings in which the true precision of what is accepted is the promised one, and the
    share that goes to review."""
    print(f"\nreview threshold for {PRECISION:.0%}: promise kept, share to review")
    truth = np.sort(_confidences(rng, 1_000_000))[::-1]
    precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    known = int(np.flatnonzero(precision >= PRECISION)[-1]) + 1
    print(f"  calibrated, right {truth.mean():.1%}; if the truth were known "
          f"{1 - known / len(truth):.1%} would go to review")  # fmt: skip
    for rows in (200, 400, 800, 1600):
        found: dict[str, list[int]] = {"lower": [], "point": []}
        for _ in range(runs):
            chance = _confidences(rng, rows)
            correct = rng.random(rows) < chance
            for by in get_args(ThresholdRule):
                threshold = review_threshold(chance, correct, PRECISION, floor=0.0, by=by)
                found[by].append(int(np.searchsorted(-truth, -threshold, side="right")))
        for by, counts in found.items():
            kept = sum(count == 0 or precision[count - 1] >= PRECISION for count in counts)
            print(f"  {rows:5d} rows, by the {by}: kept {told(kept, runs)}, to review "
                  f"{1 - np.mean(counts) / len(truth):.1%}, all: {_none(counts)}")  # fmt: skip
    scores, fits = load_scores(run), max(1, runs // 4)
    print(f"  real scores, temperature fitted anew each time: {scores.source}")
    for rows in (200, 800):
        for by in get_args(ThresholdRule):
            kept, review, everything = calibrate_again(rng, scores, rows, by, PRECISION, fits)
            print(f"  {rows:5d} rows, by the {by}: kept {told(kept, fits)}, to review "
                  f"{review:.1%}, all: {everything:.1%}")  # fmt: skip


def _confidences(rng: np.random.Generator, rows: int) -> NDArray[np.float64]:
    surest, rest = rng.beta(30.0, 0.6, size=rows), rng.beta(3.0, 1.6, size=rows)
    return np.where(rng.random(rows) < 0.75, surest, rest)


def _none(counts: Sequence[int]) -> str:
    return f"{sum(count == 0 for count in counts) / len(counts):.1%}"


if __name__ == "__main__":
    raise SystemExit(main())
