"""Accuracy, F1 and AUROC, their intervals, and tests of two models on the same messages.

Messages of a thread, or near-copies, tend to be right or wrong together. A hundred of them prove
less than a hundred independent messages, and a test that counts them all passes too often. The
design effect is how many of them count as one (Kish 1965); tests use counts divided by it (Rao and
Scott 1992, Biometrics 48:577).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from trainer.statistics.figures import Figures, LabelFigures

_DOUBT = 0.5
"""Weight of the added group. Chosen by simulation (``python -m tests.bench.judges``): without it, a
few differing messages that happen to be in different groups look independent, and the tests pass up
to twice as often as they should."""

Groups = NDArray[np.int64]
"""The group number of each message, (messages,); an independent message has its own number."""


def as_groups(numbers: Sequence[int | None]) -> Groups | None:
    """Return groups from numbers (None: independent); None if all are independent."""
    if all(number is None for number in numbers):
        return None
    free = max(number for number in numbers if number is not None) + 1
    found = [free + at if number is None else number for at, number in enumerate(numbers)]
    # Numbered without gaps: bincount allocates an element for each number up to the largest.
    return np.unique(np.array(found, dtype=np.int64), return_inverse=True)[1].astype(np.int64)


def design_effect(values: NDArray[np.generic], groups: Groups | None) -> float:
    """Return how many messages count as one in a mean of ``values``, (messages), between -1 and 1:
    the variance of the mean by groups over that of independent messages, at least 1; 1.0 without
    groups.

    Half a group of typical size whose messages agree is added to the data. If few values differ,
    the data does not show how they cluster, and the effect is then near its upper limit, the size
    of an average message's group.
    """
    if groups is None or not len(values):
        return 1.0
    sizes = np.bincount(groups)
    limit = float((sizes**2).sum() / len(groups))
    found = values.astype(np.float64)
    rest = found - found.mean()
    together = float((np.bincount(groups, rest) ** 2).sum()) + _DOUBT * limit**2
    alone = float((rest**2).sum()) + _DOUBT * limit
    return min(limit, max(1.0, together / alone))


Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def measure(
    truth: Ints, predicted: Ints, labels: Sequence[str], groups: Groups | None = None
) -> Figures:
    """Compute the figures of one or more messages. Macro-F1 is the mean over the labels in
    ``truth``. ``groups`` says which messages belong together."""
    from sklearn.metrics import (  # takes a second
        accuracy_score,
        confusion_matrix,
        precision_recall_fscore_support,
    )

    known = range(len(labels))
    confusion = confusion_matrix(truth, predicted, labels=known)
    columns = precision_recall_fscore_support(truth, predicted, labels=known, zero_division=0.0)
    right = truth == predicted
    effect = design_effect(right, groups)
    effects = [
        1.0 if groups is None else design_effect(right[truth == at], groups[truth == at])
        for at in known
    ]
    per_label = tuple(
        LabelFigures(label, float(precision), float(recall), float(f1), int(support), own)
        for label, precision, recall, f1, support, own in zip(
            labels, *columns, effects, strict=True
        )
    )
    _, _, f1, support = columns
    return Figures(
        examples=len(truth),
        accuracy=float(accuracy_score(truth, predicted)),
        interval=interval_of(right, groups),
        # Not scikit-learn's macro average, which counts a label without examples as 0.
        macro_f1=float(f1[support > 0].mean()),
        per_label=per_label,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
        effect=effect,
    )


_RESAMPLES = 2000


def macro_f1_interval(
    confusion: Sequence[Sequence[int]], effect: float = 1.0
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of macro-F1 (percentiles; Efron & Tibshirani 1993): the
    messages of a confusion matrix are drawn again; ``effect`` messages count as one."""
    counts = np.array(confusion, dtype=np.float64)
    total = int(counts.sum())
    if not total:
        return 0.0, 1.0
    size = max(1, round(total / effect))
    cells = (counts / total).ravel()
    # One multinomial draw of the cells is a bootstrap of the messages, which need not be kept.
    drawn = np.random.default_rng(0).multinomial(size, cells, size=_RESAMPLES)
    drawn = drawn.reshape(_RESAMPLES, *counts.shape)
    hits = drawn.diagonal(axis1=1, axis2=2)
    support, given = drawn.sum(axis=2), drawn.sum(axis=1)
    f1 = 2 * hits / np.maximum(support + given, 1)
    means = (f1 * (support > 0)).sum(axis=1) / np.maximum((support > 0).sum(axis=1), 1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def interval_of(right: Bools, groups: Groups | None) -> tuple[float, float]:
    """Return the 95 % Wilson interval of the share of right messages, which may be grouped."""
    effect = design_effect(right, groups)
    return wilson(right.sum() / effect, len(right) / effect)


def wilson(hits: float, total: float) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); 0 to 1 without messages.
    Counts, divided by a design effect, need not be integers."""
    if not total:
        return 0.0, 1.0
    share, z = hits / total, NormalDist().inv_cdf(0.975)
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total)
    half *= math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    # Exactly 0 or 1 at the ends, where rounding would leave 1e-17 more or less.
    low = 0.0 if hits <= 0 else max(0.0, middle - half)
    return low, 1.0 if hits >= total else min(1.0, middle + half)


def share_interval(share: float, total: float, effect: float = 1.0) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share of ``total`` messages; ``effect`` messages count
    as one."""
    return wilson(share * total / effect, total / effect)


_MOST_MESSAGES = 100_000


def messages_to_show(share: float, floor: float, effect: float = 1.0) -> int | None:
    """Return how many messages with this share of hits have a 95 % interval (``share_interval``)
    at or above the floor; None if a hundred thousand are too few. ``effect`` count as one."""

    def shows(messages: int) -> bool:
        return share_interval(share, messages, effect)[0] >= floor

    if not shows(_MOST_MESSAGES):
        return None
    return bisect_left(range(_MOST_MESSAGES), True, key=shows)


def highest_share(hits: float, total: float, alpha: float) -> float:
    """Return the upper end of the exact one-sided interval of a share at ``1 - alpha`` (Clopper &
    Pearson 1934); 1.0 without messages. It is below a floor if and only if the binomial test of
    "the share is at least the floor" rejects at ``alpha``. Counts, divided by a design effect, need
    not be integers (Korn and Graubard 1998, Survey Methodology 24:193)."""
    return 1.0 if hits >= total else float(scipy.stats.beta.isf(alpha, hits + 1, total - hits))


def lowest_share(hits: float, total: float, alpha: float) -> float:
    """Return the lower end of the exact one-sided interval of a share at ``1 - alpha``; 0.0 without
    messages. See ``highest_share``."""
    return 0.0 if hits <= 0 else float(scipy.stats.beta.ppf(alpha, hits, total - hits + 1))


def auroc(low: Floats, high: Floats) -> float:
    """Return the probability that a value of ``high`` exceeds one of ``low``, ties counting half:
    the area under the ROC curve (Hanley & McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(low)), np.ones(len(high))])
    return float(roc_auc_score(truth, np.concatenate([low, high])))


ALPHA = 0.05
POWER = 0.80


@dataclass(frozen=True, slots=True)
class Discordance:
    """How many of ``total`` messages only labelling a, or only labelling b, has right. ``effect``
    is the design effect: so many messages count as one."""

    a_only: int
    b_only: int
    total: int
    effect: float = 1.0

    @property
    def independent(self) -> float:
        """The number of independent messages that they are worth."""
        return self.total / self.effect

    @property
    def turned(self) -> Discordance:
        """The same with a and b swapped."""
        return Discordance(self.b_only, self.a_only, self.total, self.effect)

    @property
    def difference(self) -> float:
        """The accuracy of a minus the accuracy of b."""
        return (self.a_only - self.b_only) / self.total

    @property
    def share(self) -> float:
        """The share of messages on which exactly one of them is right."""
        return (self.a_only + self.b_only) / self.total


def count_discordant(a: Bools, b: Bools, groups: Groups | None = None) -> Discordance:
    """Count from two arrays, (messages), that say where each labelling is right; ``groups`` says
    which messages belong together."""
    effect = design_effect(a.astype(np.int64) - b.astype(np.int64), groups)
    return Discordance(int((a & ~b).sum()), int((b & ~a).sum()), len(a), effect)


def mcnemar_exact(found: Discordance) -> float:
    """Return the two-sided exact p-value of McNemar's test (McNemar 1947): without a difference,
    discordant messages fall on either side with probability 1/2. 1.0 without any."""
    a, b = found.a_only / found.effect, found.b_only / found.effect
    return min(1.0, 2 * binomial_tail(max(a, b), a + b, 0.5))


def binomial_tail(hits: float, trials: float, share: float) -> float:
    """Return the probability of ``hits`` or more of ``trials`` with probability ``share``: the
    one-sided exact p-value; 1.0 without hits. Counts, divided by a design effect, need not be
    integers: the beta distribution has the same tail and interpolates between them."""
    return float(scipy.special.betainc(hits, trials - hits + 1, share)) if hits > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def minimum_detectable_difference(discordance: float, total: float) -> float:
    """Return the smallest difference of accuracy that McNemar's test on ``total`` messages finds
    with ``POWER`` at a two-sided ``ALPHA``, if a share ``discordance`` of them is discordant.

    Solves n = (z_alpha * sqrt(p) + z_power * sqrt(p - d^2))^2 / d^2 for d (Connor 1987, Biometrics
    43:207). A difference cannot exceed the discordance, so the discordance is at least d.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - ALPHA / 2), NormalDist().inv_cdf(POWER)

    def is_found(d: float) -> bool:
        p = max(discordance, d)
        return d * math.sqrt(total) >= z_alpha * math.sqrt(p) + z_power * math.sqrt(p - d * d)

    low, high = 0.0, 1.0
    # Sixty halvings reach the last digit of a float.
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high


def weighted_accuracy(
    right: NDArray[np.bool_], rows: NDArray[np.int64], groups: Groups | None = None
) -> tuple[float, tuple[float, float]]:
    """Return the share of rows that are right, and its 95 % interval, if message i occurred
    ``rows[i]`` times (1 or more). ``groups`` says which messages belong together.

    Copies of a message are right or wrong together, so they are not additional evidence. The
    interval is Wilson's for the number of messages with the variance of this ratio (linearized;
    Cochran 1977, 6.3), but at most Kish's effective number. Each alone contains the truth in 87 to
    92 % of some simulated hold-outs, both together in 93 to 99 %
    (``tests/unit/trainer/statistics/test_traffic.py``).
    """
    weights = rows / rows.sum()
    share = float((weights * right).sum())
    effective = 1 / float((weights**2).sum())
    variance = float((weights**2 * (right - share) ** 2).sum())
    if 0 < share < 1 and variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    # Of the weighted deviations: a frequent message outweighs its group.
    effect = design_effect(rows / rows.mean() * (right - share), groups)
    # Rounded down: too wide rather than too narrow.
    size = max(1, math.floor(effective / effect))
    return share, wilson(round(share * size), size)
