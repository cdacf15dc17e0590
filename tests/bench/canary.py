"""How often a canary that is as good is stopped, and how soon one that is worse.

    python -m tests.bench.canary                        simulated labels; minutes
    python -m tests.bench.canary MAIN.jsonl OTHER.jsonl ...    labels that were really given

Both go through the comparison that the worker makes. The files are what `clerk-worker classify
--input FILE.jsonl` prints with one adapter and the other, for the same messages: the other ones are
canaries to the first. Messages are drawn with replacement, each as of a customer of its own.
"""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from worker.lifecycle.canary_judge import ArmComparison, JudgePolicy

TRIALS = 400
MESSAGES = 20_000
POLICY = JudgePolicy()

Chance = Callable[[float], float]
"""The chance of a review at a time of the trial, from 0 to 1."""


Label = tuple[str, float, bool]
"""A label, its confidence, and whether it is for review."""


def main() -> int:
    """Measure and print."""
    if sys.argv[1:]:
        return replay(*map(Path, sys.argv[1:]))
    rate = POLICY.false_positive_rate
    print(f"{TRIALS} trials of up to {MESSAGES} messages, false_positive_rate {rate:g}")
    print("as good: how many were ever stopped")
    for name, chance in (
        ("a tenth for review", lambda _: 0.1),
        ("2 % for review", lambda _: 0.02),
        ("2 to 40 % by the hour", lambda t: 0.21 + 0.19 * math.sin(t * 40)),
    ):
        for share in (0.05, 0.25, 0.5):
            stops = [trial(seed, share, chance, chance) for seed in range(TRIALS)]
            found = sum(stop is not None for stop in stops)
            print(f"  {name}, share {share:g}: {found} of {TRIALS}", flush=True)
    print("worse: how many were stopped, after how many of the canary's labels (median)")
    for worse in (0.13, 0.15, 0.2, 0.3):
        for share in (0.05, 0.25):
            stops = [
                trial(seed, share, lambda _: 0.1, lambda _, worse=worse: worse)  # type: ignore[misc]
                for seed in range(TRIALS // 4)
            ]
            counts = [stop for stop in stops if stop is not None]
            after = f"{statistics.median(counts):.0f}" if counts else "-"
            print(
                f"  {worse:.0%} against 10 % for review, share {share:g}: "
                f"{len(counts)} of {len(stops)}, {after}",
                flush=True,
            )
    print("rejected: how many were stopped, after how many of the canary's answers (median)")
    for main_rate, canary_rate in ((0.0, 1.0), (0.0, 0.2), (0.0, 0.05), (0.2, 0.2), (1.0, 1.0)):
        for share in (0.05, 0.25, 0.5):
            trials = TRIALS if main_rate == canary_rate else TRIALS // 4
            stops = [
                trial(seed, share, lambda _: 0.1, lambda _: 0.1, (main_rate, canary_rate))
                for seed in range(trials)
            ]
            counts = [stop for stop in stops if stop is not None]
            after = f"{statistics.median(counts):.0f}" if counts else "-"
            print(
                f"  {canary_rate:.0%} against {main_rate:.0%} rejected, share {share:g}: "
                f"{len(counts)} of {trials}, {after}",
                flush=True,
            )
    return 0


def trial(
    seed: int,
    share: float,
    main_chance: Chance,
    canary_chance: Chance,
    rejected: tuple[float, float] = (0.0, 0.0),
) -> int | None:
    """Canary labels until it was stopped, None where it never was.

    A label for review has a confidence below 0.6, any other one above; ``rejected`` is the chance
    that an answer is rejected, by the main adapter and by the canary.
    """
    rng = random.Random(seed)
    comparison = ArmComparison(POLICY)
    for number in range(MESSAGES):
        canary = rng.random() < share
        chance = (canary_chance if canary else main_chance)(number / MESSAGES)
        review = rng.random() < chance
        confidence: float | None = rng.uniform(0.2, 0.6) if review else 1 - 0.4 * rng.random() ** 3
        if any(rejected) and rng.random() < rejected[canary]:
            confidence = None
        comparison.add(
            number.to_bytes(8, "big"), canary=canary, review=review, confidence=confidence
        )
        if number % 20 == 19 and comparison.worse:
            return comparison.messages
    return None


def replay(main: Path, *others: Path) -> int:
    """Put the others' labels on trial against those of ``main``."""
    labels = read(main)
    for path in others:
        found = read(path)
        if len(found) != len(labels):
            print(f"{path}: {len(found)} messages, {main} has {len(labels)}", file=sys.stderr)
            return 2
        agree = sum(a[0] == b[0] for a, b in zip(labels, found, strict=True)) / len(labels)
        confidence = [
            statistics.mean(confidence for _, confidence, _ in arm) for arm in (labels, found)
        ]
        review = [
            statistics.mean(for_review for _, _, for_review in arm) for arm in (labels, found)
        ]
        print(
            f"{path.name}: {agree:.1%} of {len(labels)} labelled alike; mean confidence "
            f"{confidence[1]:.3f} against {confidence[0]:.3f}, for review {review[1]:.1%} "
            f"against {review[0]:.1%}"
        )
        for share in (0.05, 0.25):
            stops = [drawn(seed, share, labels, found) for seed in range(TRIALS // 4)]
            counts = [stop for stop in stops if stop is not None]
            after = f"; after {statistics.median(counts):.0f} labels (median)" if counts else ""
            print(f"  share {share:g}: stopped in {len(counts)} of {len(stops)} trials{after}")
    return 0


def read(path: Path) -> list[Label]:
    """Take in the labels that `clerk-worker classify` printed."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["label"], row["confidence"], bool(row["review"])) for row in rows]


def drawn(seed: int, share: float, main: list[Label], canary: list[Label]) -> int | None:
    """Canary labels until it was stopped, None where it never was."""
    rng = random.Random(seed)
    comparison = ArmComparison(POLICY)
    for number in range(MESSAGES):
        by_canary = rng.random() < share
        _, confidence, review = (canary if by_canary else main)[rng.randrange(len(main))]
        comparison.add(
            number.to_bytes(8, "big"), canary=by_canary, review=review, confidence=confidence
        )
        if number % 20 == 19 and comparison.worse:
            return comparison.messages
    return None


if __name__ == "__main__":
    sys.exit(main())
