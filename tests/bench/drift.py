"""How often the drift detector calls quiet traffic drifted, and how soon it sees a real change.

    python -m tests.bench.drift --run RUN [--window N] [--windows W] [--runs R]

RUN is a training run's folder with its evaluation (``clerk-trainer evaluate --engine both
--out-of-scope FILE``). Traffic is drawn, with replacement, from the recorded answers on the
hold-out, vLLM's where it was asked too: the natural mix of labels, the adapter's own mistakes, its
own off-label mass. The worker's code judges it.
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
    DriftBaseline,
    DriftDetector,
    DriftPolicy,
    make_baseline,
    psi_by_label,
    psi_threshold,
)

SEED = 1
SIZES = (200, 500, 1000, 5000)
SHARES_OUT_OF_SCOPE = (0.05, 0.1, 0.2)
FACTOR = 3
MOST_WINDOWS = 20


@dataclass(frozen=True, slots=True)
class Answer:
    """A recorded answer: the true label (None: no label fits), the given label, the off-label
    mass."""

    truth: str | None
    label: str
    mass: float


def main() -> None:
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
    quiet(manifest, known, policy, given.windows)
    changed(manifest, known, strange, policy, given.runs)


def read_answers(run: Path, *names: str) -> list[Answer]:
    """Read the first of these files of the evaluation that exists."""
    paths = [run / "evaluation" / f"{name}.jsonl" for name in names]
    path = next(one for one in paths if one.exists())
    print(f"answers: {path.name}")
    return [
        Answer(row["label"], row["predicted"], row["off_label_mass"]) for row in read_lines(path)
    ]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def quiet(manifest: Manifest, known: Sequence[Answer], policy: DriftPolicy, windows: int) -> None:
    """False alarms on unchanged traffic: by window size, by signal, and in pairs."""
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
    """Each window's PSI, and its number of messages above the mass."""
    kinds = [(name, odd) for name in baseline.shares for odd in (False, True)]
    above = math.inf if baseline.mass is None else baseline.mass
    found = [(one.label, one.mass > above) for one in answers]
    shares = np.array([found.count(kind) for kind in kinds]) / len(found)
    counts = draw.multinomial(size, shares, size=windows).reshape(windows, -1, 2)
    psis = [psi_of(row, baseline.shares) for row in counts.sum(axis=2)]
    return np.array(psis), counts[:, :, 1].sum(axis=1)


def changed(
    manifest: Manifest,
    known: Sequence[Answer],
    strange: Sequence[Answer],
    policy: DriftPolicy,
    runs: int,
) -> None:
    """Changed messages until a window is called drifted, and a second one in a row. The change
    starts anywhere in a window."""
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
    """Draw from both, with this share strange."""
    return lambda: draw.choice(strange if draw.random() < share else known)


def weighted(
    known: Sequence[Answer], weights: Sequence[float], draw: random.Random
) -> Callable[[], Answer]:
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
    """Changed messages until a drifted window, and until two in a row."""
    detector = DriftDetector(baseline, window)
    for one in draw.choices(known, k=draw.randrange(window)):
        detector.add(one.label, one.mass)
    first = math.inf
    for sent in range(1, MOST_WINDOWS * window + 1):
        one = traffic()
        found = detector.add(one.label, one.mass)
        if found is not None and any(found.consecutive.values()):
            first = min(first, sent)
            if max(found.consecutive.values()) >= 2:
                return first, sent
    return first, math.inf


def report(name: str, runs: Sequence[tuple[float, float]]) -> None:
    first = sorted(one for one, _ in runs)
    second = sorted(two for _, two in runs)
    seen = sum(math.isfinite(one) for one in second) / len(second)
    late = first[math.ceil(0.95 * len(first)) - 1]
    print(
        f"  {name:45s}  {statistics.median(first):5.0f}  {late:5.0f}  "
        f"{statistics.median(second):5.0f}  {seen:5.0%}"
    )


def psi_of(row: NDArray[np.int64], shares: Any) -> float:
    """The PSI of counts in the labels' order."""
    return sum(psi_by_label(dict(zip(shares, row.tolist(), strict=True)), shares).values())


def sure(baseline: DriftBaseline | None) -> DriftBaseline:
    assert baseline is not None
    return baseline


if __name__ == "__main__":
    main()
