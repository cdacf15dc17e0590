"""The accuracy in service: weighted, corrected for reviewers' mistakes, with a 95 % interval.

The audit sample is weighted to all traffic (``weighted_share``), corrected for reviewers' mistakes
(``mistakes``), and given an interval (``accuracy``); ``judge`` says whether the accuracy fell. The
beta distribution and Krippendorff's alpha are implemented here because the desk does not install
SciPy, and scikit-learn has no alpha. Both are tested against published values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

_TINY = 1e-300
_ENOUGH = 1e-14
_MOST_STEPS = 10_000


def beta_cdf(x: float, a: float, b: float) -> float:
    """Return the regularized incomplete beta function I_x(a, b), for a and b above 0.

    By its continued fraction (NIST Digital Library of Mathematical Functions, 8.17.22), on the side
    of the mean where it converges fast, evaluated by Lentz's method (1976) in the form of Thompson
    and Barnett (1986).
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
    """Return x with I_x(a, b) = ``probability``, by Newton's method; a step that leaves the bracket
    is replaced by bisection."""
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


def exact_limits(share: float, size: float) -> tuple[float, float]:
    """Return the 95 % limits of Clopper and Pearson (1934) for a share observed among ``size``.

    The size may be fractional. With the effective size of a weighted sample, the limits are those
    of Korn and Graubard (Confidence Intervals for Proportions with Small Expected Number of
    Positive Counts Estimated from Survey Data, 1998). Size 0 gives (0, 1).
    """
    if size <= 0:
        return 0.0, 1.0
    hits = min(size, max(0.0, share * size))
    misses = size - hits
    # By rounding, share * size may miss 0 or the size by a little; beta's parameters are above 0.
    low = beta_quantile(0.025, hits, misses + 1) if hits > 1e-9 else 0.0
    high = beta_quantile(0.975, hits + 1, misses) if misses > 1e-9 else 1.0
    return low, high


def _fraction(x: float, a: float, b: float) -> float:
    """Return the value of the continued fraction."""
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
    # Lentz's method divides by these values.
    return value if abs(value) > _TINY else _TINY


LEAST = 5
"""A stratum with fewer verdicts is merged with its neighbours. A share of three verdicts is mostly
noise, and the stratum's weight would carry that noise into the total."""


class Stratum(NamedTuple):
    """The parts that traffic is counted by: the model's label, the adapter's digest, and whether
    the worker sent the result to review (``doubtful``)."""

    label: str
    adapter_digest: str
    doubtful: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Verdicts of a stratum: how many, how many found the model right, and how many were checked,
    by a second reviewer who agreed or by an adjudicator. ``drawn_for`` is the number of results
    that the sample represents (the sum of 1/share)."""

    verdicts: int
    right: int
    checked: int = 0
    drawn_for: float = 0.0

    def __add__(self, other: Counts) -> Counts:
        """Add two strata's counts."""
        return Counts(
            self.verdicts + other.verdicts,
            self.right + other.right,
            self.checked + other.checked,
            self.drawn_for + other.drawn_for,
        )


@dataclass(frozen=True, slots=True)
class Share:
    """A share, and its effective size: a simple sample of so many verdicts is as precise."""

    value: float
    size: float


@dataclass(frozen=True, slots=True)
class _Cell:
    traffic: float
    counts: Counts


_LEVELS: tuple[Callable[[Stratum], Hashable], ...] = (
    lambda stratum: stratum,
    lambda stratum: (stratum.adapter_digest, stratum.doubtful),
    lambda stratum: stratum.doubtful,
)


def weighted_share(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int]
) -> Share | None:
    """Return the share of all traffic on which the model was found right; None without verdicts.

    Post-stratification (Cochran, Sampling Techniques, 1977, section 5A.9): each stratum's share is
    weighted by its traffic. So the sample's share may change, and one adapter's items may be
    decided sooner than another's. Undecided items are assumed to be like the rest of their
    stratum. Strata with fewer than ``LEAST`` verdicts are merged: first the labels of an adapter,
    then adapters, and doubtful results with others last. A stratum without traffic (results of a
    replay) is weighted by its probability of being drawn.

    The size is the effective one of Korn and Graubard, share * (1 - share) / variance, and at most
    the number of verdicts. In the variance each stratum's share is shrunk a little towards the
    total's: five right of five do not prove that nothing goes wrong there.
    """
    groups = _groups(_cells(sample, traffic))
    verdicts = sum(group.counts.verdicts for group in groups)
    if not verdicts:
        return None
    # Never 0 or 1, or the variance below would be 0.
    whole = (sum(group.counts.right for group in groups) + 0.5) / (verdicts + 1)
    total = sum(group.traffic for group in groups)
    value = drawn = variance = 0.0
    for group in groups:
        weight, counts = group.traffic / total, group.counts
        value += weight * counts.right / counts.verdicts
        # Two verdicts of the total's share: without them five right of five have variance 0.
        share = (counts.right + 2 * whole) / (counts.verdicts + 2)
        drawn += weight * share
        variance += weight**2 * share * (1 - share) / counts.verdicts
    value = min(1.0, max(0.0, value))
    return Share(value, min(float(verdicts), drawn * (1 - drawn) / variance))


def _cells(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int]
) -> dict[Stratum, _Cell]:
    nothing = Counts(0, 0)
    found = {}
    for stratum in sorted({*sample, *traffic}):
        counts = sample.get(stratum, nothing)
        results = float(traffic.get(stratum, 0))
        if not results:  # a replay's results are not counted as traffic
            results = max(counts.drawn_for, float(counts.verdicts))
        if results:
            found[stratum] = _Cell(max(results, float(counts.verdicts)), counts)
    return found


def _groups(cells: Mapping[Stratum, _Cell]) -> Sequence[_Cell]:
    """Merge strata until each group has enough verdicts. The rest joins the group with the most
    traffic, of its kind if there is one."""
    left = dict(cells)
    done: list[tuple[bool, _Cell]] = []
    for level in _LEVELS:
        by_key: dict[Hashable, list[Stratum]] = {}
        for stratum in left:
            by_key.setdefault(level(stratum), []).append(stratum)
        for strata in by_key.values():
            merged = _merge([left[stratum] for stratum in strata])
            if merged.counts.verdicts >= LEAST:
                done.append((strata[0].doubtful, merged))
                for stratum in strata:
                    del left[stratum]
    if not left:
        return [group for _, group in done]
    if not done:
        return [_merge(list(left.values()))]
    for stratum, cell in left.items():
        kin = [at for at, (doubtful, _) in enumerate(done) if doubtful == stratum.doubtful]
        at = max(kin or range(len(done)), key=lambda at: done[at][1].traffic)
        done[at] = (done[at][0], _merge([done[at][1], cell]))
    return [group for _, group in done]


def _merge(cells: Sequence[_Cell]) -> _Cell:
    return _Cell(
        sum(cell.traffic for cell in cells),
        sum((cell.counts for cell in cells), Counts(0, 0)),
    )


FILL = 20
"""If there are fewer opinions than this on results where the model was wrong, the rate of all
mistakes fills them up. Right after the start there may be none."""


class Doubled(NamedTuple):
    """An audit item with several opinions: whether the model was right by the settled label, how
    many opinions were on the wrong side of that, and how many there were.

    The wrong side is another label than the model's where it was right, and the model's label where
    it was wrong. Two reviewers with different wrong labels, neither the model's, do not bias the
    accuracy. ``mistaken`` counts every opinion that was not the settled label.
    """

    machine_right: bool
    wrong_side: int
    mistaken: int
    opinions: int


@dataclass(frozen=True, slots=True)
class Mistakes:
    """Error rates of a single reviewer.

    ``rejects``: how often they call the model wrong where it is right; ``accepts``: right where it
    is wrong; ``any``: how often their label is not the settled one.
    """

    rejects: Share
    accepts: Share
    any: Share
    items: int


def mistakes(doubled: Mapping[Doubled, int]) -> Mistakes | None:
    """Estimate reviewers' mistakes from the number of items of each kind; None without items.

    The settled label is taken as the truth: two reviewers agreed blind, or an adjudicator decided.
    The same mistake by both goes unseen; if mistakes are independent, it is as rare as the square
    of their rate. Opinions on a hard item are not independent, so the effective size comes from the
    spread between items.
    """
    items = sum(doubled.values())
    if not items:
        return None
    every = _rate((kind.mistaken, kind.opinions, n) for kind, n in doubled.items())
    rejects = _rate(
        (kind.wrong_side, kind.opinions, n) for kind, n in doubled.items() if kind.machine_right
    )
    accepts = _rate(
        (kind.wrong_side, kind.opinions, n) for kind, n in doubled.items() if not kind.machine_right
    )
    return Mistakes(_filled(rejects, every), _filled(accepts, every), every, items)


def _rate(kinds: Iterable[tuple[int, int, int]]) -> Share:
    """Return a share of opinions from (hits, opinions, items) of each kind of item."""
    kinds = list(kinds)
    items = sum(n for _, _, n in kinds)
    opinions = sum(each * n for _, each, n in kinds)
    if not opinions:
        return Share(0.0, 0.0)
    rate = sum(hits * n for hits, _, n in kinds) / opinions
    # The variance of a ratio between clusters (Cochran 1977, section 9A.1).
    spread = sum(n * (hits - rate * each) ** 2 for hits, each, n in kinds)
    if items < 2 or spread <= 0:  # no spread to estimate from: take opinions as independent
        return Share(rate, float(opinions))
    variance = spread * items / (items - 1) / opinions**2
    return Share(rate, min(float(opinions), rate * (1 - rate) / variance))


def _filled(rate: Share, every: Share) -> Share:
    missing = max(0.0, FILL - rate.size)
    if not missing or not every.size:
        return rate
    missing = min(missing, every.size)
    size = rate.size + missing
    return Share((rate.value * rate.size + every.value * missing) / size, size)


def krippendorffs_alpha(units: Iterable[Sequence[Hashable]]) -> float | None:
    """Return the agreement of any number of reviewers. A unit holds the labels of one item.

    K. Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011, for nominal data. Units with
    one label are ignored. None if alpha is not defined: no item has two labels, or all labels are
    the same.
    """
    paired = [unit for unit in units if len(unit) > 1]
    totals: Counter[Hashable] = Counter(value for unit in paired for value in unit)
    n = totals.total()
    disagreed = sum(
        sum(here * (len(unit) - here) for here in Counter(unit).values()) / (len(unit) - 1)
        for unit in paired
    )
    by_chance = sum(count * (n - count) for count in totals.values())
    if not by_chance:
        return None
    return 1 - (n - 1) * disagreed / by_chance


_LEAST_SENSE = 0.05
"""The least 1 - rejects - accepts: below it reviewers are hardly better than a coin."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The share of all traffic that was labelled correctly, with its 95 % interval.

    It rests on so many ``verdicts``. ``observed`` is the weighted share before the correction,
    ``plain`` neither weighted nor corrected. ``corrected`` is False if reviewers' mistakes are not
    known yet.
    """

    value: float
    low: float
    high: float
    verdicts: int
    observed: float
    plain: float
    corrected: bool


def accuracy(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int], mistakes: Mistakes | None
) -> Accuracy | None:
    """Estimate the accuracy over ``traffic``; None without verdicts.

    For a single verdict, P(found right) = a (1 - rejects) + (1 - a) accepts, where a is the
    accuracy; this is solved for a (Rogan and Gladen, Estimating Prevalence from the Results of a
    Screening Test, 1978). Both rates are estimated separately, so reviewers may make the model's
    mistakes more often than others. A verdict that a second reviewer or an adjudicator checked is
    taken to be right, so the rates apply to the share of the other verdicts.

    The limits are those of Korn and Graubard for the observed share and of Clopper and Pearson for
    the two rates, each carried through the formula alone and combined by the square root of the sum
    of squares (MOVER: Zou and Donner, Construction of Confidence Limits about Effect Measures,
    2008). Bayer, Fay and Graubard (2023) combine the same three by melding, which takes thousands
    of draws for each figure.
    """
    observed = weighted_share(sample, traffic)
    if observed is None:
        return None
    total = sum(sample.values(), Counts(0, 0))
    unchecked = 1 - total.checked / total.verdicts
    exact = Share(0.0, math.inf)
    rejects, accepts = (mistakes.rejects, mistakes.accepts) if mistakes else (exact, exact)
    value, low, high = _limits(observed, rejects, accepts, unchecked)
    return Accuracy(
        value=min(1.0, max(0.0, value)),
        low=min(1.0, max(0.0, low)),
        high=min(1.0, max(0.0, high)),
        verdicts=total.verdicts,
        observed=observed.value,
        plain=total.right / total.verdicts,
        corrected=mistakes is not None,
    )


def _limits(
    observed: Share, rejects: Share, accepts: Share, unchecked: float
) -> tuple[float, float, float]:
    """Return the estimate and its limits, not yet cut to [0, 1]."""

    def solve(share: float, rejected: float, accepted: float) -> float:
        sense = max(_LEAST_SENSE, 1 - unchecked * (rejected + accepted))
        return (share - unchecked * accepted) / sense

    points = (observed.value, rejects.value, accepts.value)
    value = solve(*points)
    below = above = 0.0
    for at, share in enumerate((observed, rejects, accepts)):
        if math.isinf(share.size):  # mistakes are not known, and taken as none
            continue
        ends = []
        for limit in exact_limits(share.value, share.size):
            moved = list(points)
            moved[at] = limit
            ends.append(solve(*moved))
        below += max(0.0, value - min(ends)) ** 2
        above += max(0.0, max(ends) - value) ** 2
    return value, value - math.sqrt(below), value + math.sqrt(above)


WINDOWS_DAYS = (7, 28)
"""A large fall shows within a week; a small one, or one with few audited results, in four."""

REFERENCE_DAYS = 91
"""The windows are compared with so many days before the longest window, so that a fall does not
soon become part of its own reference."""

SIGMAS = 3.5
"""Standard deviations for an alert. docs/desk.md has the rate of false alarms."""

LEAST_REFERENCE = 50
LEAST_WINDOW = 20
"""With fewer verdicts there is no alert."""


@dataclass(frozen=True, slots=True)
class Fall:
    """The last days compared with the days before: weighted shares, None without verdicts. They are
    not corrected, because reviewers' mistakes are on both sides. ``fell``: lower, and not by
    chance."""

    window_days: int
    before: Share | None
    lately: Share | None
    fell: bool


def has_fallen(before: Share, lately: Share) -> bool:
    """Whether a share is lower than before: the interval of the difference lies above 0 (Newcombe,
    Interval Estimation for the Difference between Independent Proportions, 1998, method 10, from
    Wilson's limits)."""
    if before.size < LEAST_REFERENCE or lately.size < LEAST_WINDOW:
        return False
    low, _ = wilson_limits(before, SIGMAS)
    _, high = wilson_limits(lately, SIGMAS)
    difference = before.value - lately.value
    return difference > math.hypot(before.value - low, high - lately.value)


def wilson_limits(share: Share, sigmas: float) -> tuple[float, float]:
    """Return Wilson's score limits (1927)."""
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
