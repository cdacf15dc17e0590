"""Accuracy, F1 and AUROC; and whether two models differ on the same messages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy  # loads its parts at their first use

from trainer.statistics.calibration import Bools, Floats, Ints
from trainer.statistics.figures import Figures, LabelFigures


def measure(truth: Ints, predicted: Ints, labels: Sequence[str]) -> Figures:
    """Compute every figure of at least one message. Macro-F1 is the mean over the labels that
    occur in ``truth``."""
    from sklearn.metrics import (  # takes a second
        accuracy_score,
        confusion_matrix,
        precision_recall_fscore_support,
    )

    known = range(len(labels))
    confusion = confusion_matrix(truth, predicted, labels=known)
    columns = precision_recall_fscore_support(truth, predicted, labels=known, zero_division=0.0)
    per_label = tuple(
        LabelFigures(label, float(precision), float(recall), float(f1), int(support))
        for label, precision, recall, f1, support in zip(labels, *columns, strict=True)
    )
    _, _, f1, support = columns
    return Figures(
        examples=len(truth),
        accuracy=float(accuracy_score(truth, predicted)),
        interval=wilson(int(np.trace(confusion)), len(truth)),
        macro_f1=float(f1[support > 0].mean()),
        per_label=per_label,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def wilson(hits: int, total: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927); 0 to 1 of nothing."""
    if not total:
        return 0.0, 1.0
    interval = scipy.stats.binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def highest_share(hits: int, total: int, alpha: float) -> float:
    """Return the upper end of the exact one-sided interval of a share at ``1 - alpha`` (Clopper &
    Pearson 1934); 1.0 of nothing. It is below a floor exactly where the binomial test of "the share
    is at least the floor" rejects at ``alpha``."""
    return 1.0 if hits == total else float(scipy.stats.beta.isf(alpha, hits + 1, total - hits))


def auroc(low: Floats, high: Floats) -> float:
    """Return the chance that a value of ``high`` exceeds one of ``low``, ties counting half: the
    area under the ROC curve (Hanley & McNeil 1982)."""
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(low)), np.ones(len(high))])
    return float(roc_auc_score(truth, np.concatenate([low, high])))


RESAMPLES = 10_000
ALPHA = 0.05
POWER = 0.80


@dataclass(frozen=True, slots=True)
class Discordance:
    """On how many messages exactly one of two labellings is right, and out of how many."""

    a_only: int
    b_only: int
    total: int

    @property
    def difference(self) -> float:
        """Accuracy of a less accuracy of b."""
        return (self.a_only - self.b_only) / self.total

    @property
    def share(self) -> float:
        """Share of the messages on which the two differ in being right."""
        return (self.a_only + self.b_only) / self.total


def count_discordant(a: Bools, b: Bools) -> Discordance:
    """Count from two arrays (messages) that say where each labelling is right."""
    return Discordance(int((a & ~b).sum()), int((b & ~a).sum()), len(a))


def mcnemar_exact(found: Discordance) -> float:
    """Return the two-sided exact p-value of McNemar's test (McNemar 1947): under no difference
    the discordant messages fall to either side like a fair coin. 1.0 without any."""
    return binomial_test(found.a_only, found.a_only + found.b_only, 0.5)


def binomial_test(hits: int, trials: int, share: float) -> float:
    """Return the two-sided exact p-value of ``hits`` of ``trials`` under a chance of ``share``
    (Clopper & Pearson 1934), 1.0 without any trial."""
    return float(scipy.stats.binomtest(hits, trials, share).pvalue) if trials else 1.0


def binomial_tail(hits: int, trials: int, share: float) -> float:
    """Return the chance of ``hits`` or more of ``trials`` under a chance of ``share``: the
    one-sided exact p-value; 1.0 without any trial."""
    if not trials:
        return 1.0
    return float(scipy.stats.binomtest(hits, trials, share, alternative="greater").pvalue)


def bootstrap_difference(
    a: Bools, b: Bools, *, seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Return the percentile interval of accuracy(a) - accuracy(b) over paired resamples of the
    messages (Efron & Tibshirani 1993, chapter 13; for classifiers Koehn 2004).

    Only the counts of the three kinds of message matter, so that a resample is one multinomial
    draw: exactly the bootstrap's distribution, without drawing each message.
    """
    found = count_discordant(a, b)
    total = found.total
    shares = np.array([found.a_only, found.b_only, total - found.a_only - found.b_only]) / total
    counts = np.random.default_rng(seed).multinomial(total, shares, size=resamples)
    differences = (counts[:, 0] - counts[:, 1]) / total
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for testing the whole family (Holm 1979), in the given order."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[at]))
        adjusted[at] = highest
    return adjusted


def minimum_detectable_difference(
    discordance: float, total: int, *, alpha: float = ALPHA, power: float = POWER
) -> float:
    """Return the smallest difference of accuracy that McNemar's test of ``total`` messages finds
    with ``power`` at a two-sided ``alpha``, when a share ``discordance`` of them is discordant.

    Solves n = (z_alpha * sqrt(p) + z_power * sqrt(p - d^2))^2 / d^2 for d (Connor 1987, Biometrics
    43:207). A difference cannot exceed the discordance: where the solution would, the discordance
    is taken to be as large as the difference.
    """
    z_alpha, z_power = NormalDist().inv_cdf(1 - alpha / 2), NormalDist().inv_cdf(power)

    def is_found(d: float) -> bool:
        p = max(discordance, d)
        return d * math.sqrt(total) >= z_alpha * math.sqrt(p) + z_power * math.sqrt(p - d * d)

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high
