"""Whether the accuracy fell: the last days against those before them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from desk.accuracy.weighting import Share

WINDOWS_DAYS = (7, 28)
"""A large fall shows in a week; a small one, or one where little is audited, in four."""

REFERENCE_DAYS = 91
"""How many days it is compared with: those before the longest window, for all windows, so that a
fall is not soon a part of what it is measured against."""

SIGMAS = 3.5
"""How sure it must be; the false alarms that this leaves are in docs/desk.md."""

LEAST_REFERENCE = 50
LEAST_WINDOW = 20
"""Verdicts without which nothing is said."""


@dataclass(frozen=True, slots=True)
class Fall:
    """A window of the last days beside what came before it: shares found right, weighted, not
    corrected (a reviewer's mistakes are on both sides). ``fell``: it is lower, and not by chance.
    None where there were no verdicts."""

    window_days: int
    before: Share | None
    lately: Share | None
    fell: bool


def has_fallen(before: Share, lately: Share, sigmas: float = SIGMAS) -> bool:
    """Tell whether a share is lower than it was: whether the interval of the difference lies above
    0 (Newcombe, Interval Estimation for the Difference between Independent Proportions, 1998,
    method 10, from Wilson's limits)."""
    if before.size < LEAST_REFERENCE or lately.size < LEAST_WINDOW:
        return False
    low, _ = wilson_limits(before, sigmas)
    _, high = wilson_limits(lately, sigmas)
    difference = before.value - lately.value
    return difference > math.hypot(before.value - low, high - lately.value)


def wilson_limits(share: Share, sigmas: float) -> tuple[float, float]:
    """Return Wilson's score limits (1927) of a share."""
    n, z = share.size, sigmas
    middle = (share.value + z * z / (2 * n)) / (1 + z * z / n)
    spread = share.value * (1 - share.value) / n + z * z / (4 * n * n)
    half = z / (1 + z * z / n) * math.sqrt(spread)
    return min(share.value, max(0.0, middle - half)), max(share.value, min(1.0, middle + half))


def judge(before: Share | None, lately: Mapping[int, Share | None]) -> tuple[Fall, ...]:
    """Judge the share of each window, by its length in days, against the one before them."""
    return tuple(
        Fall(
            days,
            before,
            share,
            before is not None and share is not None and has_fallen(before, share),
        )
        for days, share in sorted(lately.items())
    )
