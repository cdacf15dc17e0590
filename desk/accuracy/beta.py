"""The beta distribution's quantiles, and exact limits of a share that stand on them.

Written out because the desk has no SciPy; tested against published values.
"""

from __future__ import annotations

import math

_TINY = 1e-300
_ENOUGH = 1e-14
_MOST_STEPS = 10_000


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), for a and b above 0.

    By its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22), on the side
    of the mean where that converges fast, with Lentz's method (1976) as Thompson and Barnett (1986)
    gave it.
    """
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    if x > (a + 1) / (a + b + 2):
        return 1.0 - beta_cdf(1 - x, b, a)
    log_front = (
        math.lgamma(a + b)
        - math.lgamma(a)
        - math.lgamma(b)
        + a * math.log(x)
        + b * math.log1p(-x)
        - math.log(a)
    )
    return min(1.0, math.exp(log_front) * _fraction(x, a, b))


def beta_quantile(probability: float, a: float, b: float) -> float:
    """Return x with I_x(a, b) = ``probability``: Newton's steps, halving where one leaves the
    bracket."""
    low, high = 0.0, 1.0
    x = a / (a + b)
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    for _ in range(200):
        off = beta_cdf(x, a, b) - probability
        low, high = (low, x) if off > 0 else (x, high)
        density = math.exp((a - 1) * math.log(x) + (b - 1) * math.log1p(-x) - log_beta)
        after = x - off / density if density > 0 else low
        if not low < after < high:
            after = (low + high) / 2
        if abs(after - x) <= 1e-13:
            return after
        x = after
    return x


def exact_limits(share: float, size: float, level: float = 0.95) -> tuple[float, float]:
    """Return the limits of Clopper and Pearson (1934) for a share observed among ``size``, which
    need not be whole: with the effective size of a weighted sample they are those of Korn and
    Graubard (Confidence Intervals for Proportions with Small Expected Number of Positive Counts
    Estimated from Survey Data, 1998). Size 0 gives (0, 1)."""
    if size <= 0:
        return 0.0, 1.0
    tail = (1 - level) / 2
    hits = min(size, max(0.0, share * size))
    misses = size - hits
    low = beta_quantile(tail, hits, misses + 1) if hits > 1e-9 else 0.0
    high = beta_quantile(1 - tail, hits + 1, misses) if misses > 1e-9 else 1.0
    return low, high


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction's value."""
    c, d = 1.0, 1.0 / _off_zero(1.0 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, _MOST_STEPS):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1.0 / _off_zero(1.0 + numerator * d)
            c = _off_zero(1.0 + numerator / c)
            value *= c * d
        if abs(c * d - 1.0) < _ENOUGH:
            return value
    raise ArithmeticError(f"the incomplete beta function did not converge: a={a}, b={b}, x={x}")


def _off_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
