"""How often a canary that is as good is stopped, and how soon one that is worse.

    python -m tests.bench.canary

Simulated labels, through the comparison that the worker makes. Minutes.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable

from worker.lifecycle.canary_watch import Comparison, WatchPolicy

TRIALS = 400
MESSAGES = 20_000
POLICY = WatchPolicy(min_messages=200, false_stops=0.01)

Chance = Callable[[float], float]
"""The chance of a review at a time of the trial, from 0 to 1."""


def main() -> int:
    """Measure and print."""
    print(f"{TRIALS} trials of up to {MESSAGES} messages, false_stops {POLICY.false_stops:g}")
    print("as good: how many were ever stopped")
    for name, chance in (
        ("a tenth for review", lambda _: 0.1),
        ("2 % for review", lambda _: 0.02),
        ("2 to 40 % by the hour", lambda t: 0.21 + 0.19 * math.sin(t * 40)),
    ):
        for share in (0.05, 0.25, 0.5):
            stops = [trial(seed, share, chance, chance) for seed in range(TRIALS)]
            found = sum(one is not None for one in stops)
            print(f"  {name}, share {share:g}: {found} of {TRIALS}", flush=True)
    print("worse: how many were stopped, after how many of the canary's labels (median)")
    for worse in (0.13, 0.15, 0.2, 0.3):
        for share in (0.05, 0.25):
            stops = [
                trial(seed, share, lambda _: 0.1, lambda _, worse=worse: worse)  # type: ignore[misc]
                for seed in range(TRIALS // 4)
            ]
            counts = [one for one in stops if one is not None]
            after = f"{statistics.median(counts):.0f}" if counts else "-"
            print(
                f"  {worse:.0%} against 10 % for review, share {share:g}: "
                f"{len(counts)} of {len(stops)}, {after}",
                flush=True,
            )
    return 0


def trial(seed: int, share: float, main_chance: Chance, canary_chance: Chance) -> int | None:
    """Canary labels until it was stopped, None where it never was.

    A label for review has a confidence below 0.6, any other one above.
    """
    rng = random.Random(seed)
    comparison = Comparison(POLICY)
    for number in range(MESSAGES):
        canary = rng.random() < share
        chance = (canary_chance if canary else main_chance)(number / MESSAGES)
        review = rng.random() < chance
        confidence = rng.uniform(0.2, 0.6) if review else 1 - 0.4 * rng.random() ** 3
        comparison.add(
            number.to_bytes(8, "big"), canary=canary, review=review, confidence=confidence
        )
        if number % 20 == 19 and comparison.worse:
            return comparison.messages
    return None


if __name__ == "__main__":
    sys.exit(main())
