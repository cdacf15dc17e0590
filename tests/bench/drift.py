"""How often the drift detector calls quiet traffic drifted, and how soon it sees a real change.

    python -m tests.bench.drift --run RUN [--window N] [--windows W] [--runs R]

RUN is a training run's folder with its evaluation (``clerk-trainer evaluate --engine both
--out-of-scope FILE``), DATASET the dataset it was trained on. Traffic is drawn, with replacement,
from the recorded answers on the hold-out, as served where vLLM was asked too: the natural mix of
labels, the adapter's own mistakes, its own off-label mass. What judges it is the worker's code.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worker.contract import Manifest, read_manifest
from worker.observe.drift import (
    LEAST_MASS,
    TOLERATED_PSI,
    DriftBaseline,
    DriftDetector,
    DriftPolicy,
    count_threshold,
    expected_errors,
    make_baseline,
    psi_by_label,
    psi_threshold,
    share_bound,
)

SEED = 1
SIZES = (200, 500, 1000, 5000)
FEW = (0.01, 0.02, 0.03, 0.05, 0.1)
SHARES_OUT_OF_SCOPE = (0.05, 0.1, 0.2)
FACTOR = 3
MOST_WINDOWS = 20
DIRECTIONS = 10


@dataclass(frozen=True, slots=True)
class Answer:
    """One recorded answer: the true label (None: no label fits), the one given, the mass."""

    truth: str | None
    label: str
    mass: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--window", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=200)
    given = parser.parse_args()
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    manifest = read_manifest(given.run / "adapter")
    known = read_answers(given.run, "vllm_predictions", "predictions")
    strange = read_answers(given.run, "out_of_scope_predictions")
    policy = DriftPolicy(given.window, 0.01)
    print(f"{manifest.name}: {len(known)} answers on the hold-out, {len(strange)} out of scope")
    confusion(manifest, known)
    quiet(manifest, known, policy, given.windows)
    quantiles(manifest, known, strange, policy, given.windows)
    taxonomies(given.windows // 4)
    changed(manifest, known, strange, policy, given.runs)


def read_answers(run: Path, *names: str) -> list[Answer]:
    """Read the first of these files of the evaluation that is there."""
    paths = [run / "evaluation" / f"{name}.jsonl" for name in names]
    path = next(one for one in paths if one.exists())
    print(f"answers: {path.name}")
    return [
        Answer(row["label"], row["predicted"], row["off_label_mass"]) for row in read_lines(path)
    ]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read JSON lines."""
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def confusion(manifest: Manifest, known: Sequence[Answer]) -> None:
    """How far labels given are from labels true, and whether that would look like drift."""
    shares = reference_shares(manifest)
    given = {name: sum(one.label == name for one in known) for name in shares}
    true = {name: sum(one.truth == name for one in known) for name in shares}
    right = sum(one.label == one.truth for one in known) / len(known)
    print(f"\nConfusion: accuracy {right:.3f}")
    print(f"  PSI of true shares against the prior   {total(true, shares):.4f}")
    print(f"  PSI of given shares against the prior  {total(given, shares):.4f}")
    assert manifest.reference is not None
    wrong = expected_errors(manifest.reference.confidence)
    print(f"  tolerated: {TOLERATED_PSI} and the square of {wrong:.3f}, the errors foretold")
    print(f"  expected of {len(known)} messages by chance   {(len(shares) - 1) / len(known):.4f}")


def quiet(manifest: Manifest, known: Sequence[Answer], policy: DriftPolicy, windows: int) -> None:
    """False alarms on traffic that does not change: by window size, by signal, and in pairs."""
    print(f"\nQuiet traffic, {windows} windows each: share of windows called drifted")
    print("  window  PSI limit  labels  off-label limit  off label  either  untolerant labels")
    draw = np.random.default_rng(SEED)
    for size in sorted({*SIZES, policy.window}):
        baseline = sure(make_baseline(manifest, replace(policy, window=size)))
        strict = psi_threshold(size, len(baseline.shares), 0.0, policy.false_alarm_rate / 2)
        psis, strange = draw_windows(baseline, known, size, windows, draw)
        moved, odd = psis > baseline.psi_threshold, strange >= baseline.off_label_threshold * size
        print(
            f"  {size:6d}  {baseline.psi_threshold:9.4f}  {moved.mean():6.4f}  "
            f"{baseline.off_label_threshold:15.4f}  {odd.mean():9.4f}  "
            f"{(moved | odd).mean():6.4f}  {(psis > strict).mean():6.4f}"
        )


def draw_windows(
    baseline: DriftBaseline,
    answers: Sequence[Answer],
    size: int,
    windows: int,
    draw: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return each window's PSI and its number of messages above the mass."""
    kinds = [(name, odd) for name in baseline.shares for odd in (False, True)]
    above = math.inf if baseline.mass is None else baseline.mass
    found = [(one.label, one.mass > above) for one in answers]
    shares = np.array([found.count(kind) for kind in kinds]) / len(found)
    counts = draw.multinomial(size, shares, size=windows).reshape(windows, -1, 2)
    psis = [psi_of(row, baseline.shares) for row in counts.sum(axis=2)]
    return np.array(psis), counts[:, :, 1].sum(axis=1)


def quantiles(
    manifest: Manifest,
    known: Sequence[Answer],
    strange: Sequence[Answer],
    policy: DriftPolicy,
    windows: int,
) -> None:
    """Would another quantile of validation's off-label mass find more?"""
    assert manifest.reference is not None
    examples = manifest.calibration.examples
    wrong = [one for one in known if one.label != one.truth]
    print(
        "\nQuantiles of off-label mass: shares above, of the hold-out, of what is wrong in it and"
    )
    print(f"of strangers; and share of windows of {policy.window} drifted with so many strangers")
    print("  quantile  hold-out  wrong  strangers  " + "  ".join(f"{few:4.0%}" for few in FEW))
    draw = np.random.default_rng(SEED)
    for name in ("0.9", "0.95", "0.99"):
        mass = max(manifest.reference.off_label_mass[name], LEAST_MASS)
        bound = share_bound(1 - float(name), examples, 0.95)
        threshold = count_threshold(policy.window, bound, policy.false_alarm_rate / 2)
        above = [
            statistics.mean(one.mass > mass for one in part) for part in (known, wrong, strange)
        ]
        mixes = [(1 - few) * above[0] + few * above[2] for few in FEW]
        found = [(draw.binomial(policy.window, one, windows) >= threshold).mean() for one in mixes]
        told = "  ".join(f"{one:4.2f}" for one in found)
        print(f"  {name:8s}  {above[0]:8.3f}  {above[1]:5.3f}  {above[2]:9.3f}  {told}")


def taxonomies(windows: int) -> None:
    """The threshold holds for other numbers of labels and other mixes: without a shift, and with
    the largest one that is tolerated, in directions drawn by chance."""
    alarms = 0.005
    print(f"\nOther taxonomies, {windows} windows each; {alarms:.1%} of them may be drifted")
    print("  labels  mix      window  no shift  tolerated shift (worst direction)")
    draw = np.random.default_rng(SEED)
    for labels in (3, 11, 30, 77):
        for mix, weights in (
            ("even", np.ones(labels)),
            ("1/rank", 1 / np.arange(1, labels + 1)),
        ):
            prior = weights / weights.sum()
            for size in SIZES:
                threshold = psi_threshold(size, labels, TOLERATED_PSI, alarms)
                over = share_over(prior, prior, size, threshold, windows, draw)
                moved = [
                    share_over(
                        shifted(prior, TOLERATED_PSI, draw), prior, size, threshold, windows, draw
                    )
                    for _ in range(DIRECTIONS)
                ]
                print(
                    f"  {labels:6d}  {mix:7s}  {size:6d}  {over:8.4f}  "
                    f"{statistics.mean(moved):8.4f} ({max(moved):.4f})"
                )


def share_over(
    shares: NDArray[np.float64],
    prior: NDArray[np.float64],
    size: int,
    threshold: float,
    windows: int,
    draw: np.random.Generator,
) -> float:
    """Share of windows over a threshold, in the vectorized form of ``psi_by_label``."""
    found = draw.multinomial(size, shares, size=windows) + 0.5
    expected = size * prior + 0.5
    psi = ((found - expected) * np.log(found / expected)).sum(axis=1) / (size + len(prior) / 2)
    return float((psi > threshold).mean())


def shifted(
    prior: NDArray[np.float64], psi: float, draw: np.random.Generator
) -> NDArray[np.float64]:
    """Tilt the shares in a direction drawn by chance until their PSI is this one."""
    direction = draw.standard_normal(len(prior))
    low, high = 0.0, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        tilted = np.asarray(prior * np.exp(middle * direction))
        tilted /= tilted.sum()
        if float(((tilted - prior) * np.log(tilted / prior)).sum()) < psi:
            low = middle
        else:
            high = middle
    return tilted


def changed(
    manifest: Manifest,
    known: Sequence[Answer],
    strange: Sequence[Answer],
    policy: DriftPolicy,
    runs: int,
) -> None:
    """After how many changed messages a window is called drifted, and a second one in a row. The
    change comes at any place of a window."""
    print(
        f"\nChanged traffic, {runs} runs each, windows of {policy.window}: messages until drifted"
    )
    print(
        "  change                                    seen in  first: median  95 %  second: median"
    )
    baseline = sure(make_baseline(manifest, policy))
    draw = random.Random(SEED)
    for share in SHARES_OUT_OF_SCOPE:
        report(
            f"{share:.0%} out of scope",
            [
                detect(baseline, policy.window, known, mixed(known, strange, share, draw), draw)
                for _ in range(runs)
            ],
        )
    counts = {name: sum(one.truth == name for one in known) for name in baseline.shares}
    for name, count in sorted(counts.items(), key=lambda one: one[1]):
        share = count / len(known)
        weight = FACTOR * (1 - share) / (1 - FACTOR * share)
        weights = [weight if one.truth == name else 1.0 for one in known]
        report(
            f"{name} {share:.1%} to {FACTOR * share:.1%}",
            [
                detect(baseline, policy.window, known, weighted(known, weights, draw), draw)
                for _ in range(runs)
            ],
        )


def mixed(
    known: Sequence[Answer], strange: Sequence[Answer], share: float, draw: random.Random
) -> Callable[[], Answer]:
    """Draw from both, so much of it strange."""
    return lambda: draw.choice(strange if draw.random() < share else known)


def weighted(
    known: Sequence[Answer], weights: Sequence[float], draw: random.Random
) -> Callable[[], Answer]:
    """Draw some more often than others."""
    waiting: list[Answer] = []

    def one() -> Answer:
        if not waiting:
            waiting.extend(draw.choices(known, weights, k=1000))
        return waiting.pop()

    return one


def detect(
    baseline: DriftBaseline,
    window: int,
    known: Sequence[Answer],
    traffic: Callable[[], Answer],
    draw: random.Random,
) -> tuple[float, float]:
    """Return after how many changed messages there was a drifted window, and two in a row."""
    detector = DriftDetector(baseline, window, 0, draw)
    for one in draw.choices(known, k=draw.randrange(window)):
        detector.add(one.label, one.mass, "")
    first = math.inf
    for sent in range(1, MOST_WINDOWS * window + 1):
        one = traffic()
        found = detector.add(one.label, one.mass, "")
        if found is not None and any(found.consecutive.values()):
            first = min(first, sent)
            if max(found.consecutive.values()) >= 2:
                return first, sent
    return first, math.inf


def report(name: str, runs: Sequence[tuple[float, float]]) -> None:
    """Print one line."""
    first = sorted(one for one, _ in runs)
    second = sorted(two for _, two in runs)
    seen = sum(math.isfinite(one) for one in second) / len(second)
    late = first[math.ceil(0.95 * len(first)) - 1]
    print(
        f"  {name:45s}  {statistics.median(first):5.0f}  {late:5.0f}  "
        f"{statistics.median(second):5.0f}  {seen:5.0%}"
    )


def reference_shares(manifest: Manifest) -> dict[str, float]:
    """The labels' shares in the training data."""
    assert manifest.reference is not None
    return dict(manifest.reference.label_shares)


def total(counts: dict[str, int], shares: dict[str, float]) -> float:
    """The whole PSI."""
    return sum(psi_by_label(counts, shares).values())


def psi_of(row: NDArray[np.int64], shares: Any) -> float:
    """The PSI of counts in the labels' order."""
    return sum(psi_by_label(dict(zip(shares, row.tolist(), strict=True)), shares).values())


def sure(baseline: DriftBaseline | None) -> DriftBaseline:
    """The baseline; there is a reference."""
    assert baseline is not None
    return baseline


if __name__ == "__main__":
    main()
