"""What a window is compared with: an adapter's reference and the thresholds derived from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from worker.contract import Manifest
from worker.observe.drift.statistics import count_threshold, psi_threshold, share_bound

TOLERATED_PSI = 0.01
"""A shift that counts as none: the expected shares are themselves counts over a finite sample."""

QUANTILE = 0.95
"""Quantile of the off-label mass in validation; 1 in 20 of its messages exceeds it."""

LEAST_MASS = 0.001
"""Smallest mass that counts as doubt, whatever the quantile is: less is rounding."""

_CONFIDENCE = 0.95
"""Confidence of the bound on the share above the quantile: validation is a sample too."""


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How a window of ``window`` messages is judged.

    ``false_alarm_rate`` is the share of windows without drift that may exceed one threshold or the
    other. ``sample_ids`` record ids are reported with a drifted window.

    A window of 1000 finds a tenth of messages out of scope within two windows, and its threshold
    for labels is half of the usual 0.1; 500 finds less, 5000 finds it later (docs/drift.md has the
    measurements). The alert waits for two consecutive windows, so a rate of 0.01 fires it by chance
    in one of ten thousand.
    """

    window: int = 1000
    false_alarm_rate: float = 0.01
    sample_ids: int = 5


@dataclass(frozen=True, slots=True)
class DriftBaseline:
    """What a window of one adapter's answers is compared with.

    ``shares`` are the expected ones, by label; a PSI above ``psi_threshold`` is drift. A message
    counts as off-label where its off-label mass, or with a head its out-of-scope score, is above
    ``mass``; a ratio of such messages at or above ``off_label_threshold`` is drift. ``mass`` is
    None where the way of decoding yields neither.
    """

    digest: str
    shares: Mapping[str, float]
    psi_threshold: float
    mass: float | None
    off_label_threshold: float


def make_baseline(manifest: Manifest, policy: DriftPolicy) -> DriftBaseline | None:
    """Return what to compare an adapter's windows with; None where its manifest has no reference.

    Each signal gets half of ``false_alarm_rate`` (Bonferroni); the labels get all of it where there
    is no off-label mass.
    """
    reference = manifest.reference
    if reference is None:
        return None
    quantile = reference.misfit.get(f"{QUANTILE:g}")
    signals = 1 if quantile is None else 2
    alarm_rate = policy.false_alarm_rate / signals
    shares = {name: reference.label_shares.get(name, 0.0) for name in manifest.taxonomy.names}
    tolerated = TOLERATED_PSI + expected_errors(reference.confidence) ** 2
    label_psi = psi_threshold(policy.window, len(shares), tolerated, alarm_rate)
    above = share_bound(1 - QUANTILE, manifest.calibration.examples, _CONFIDENCE)
    off_label = count_threshold(policy.window, above, alarm_rate) / policy.window
    # An out-of-scope score has no least value: it is of any sign and size.
    mass = (
        max(quantile, LEAST_MASS) if quantile is not None and reference.off_label_mass else quantile
    )
    return DriftBaseline(manifest.digest, shares, label_psi, mass, off_label)


def expected_errors(confidence: Mapping[str, float]) -> float:
    """Return the error rate that calibrated confidences predict: 1 minus their mean.

    ``confidence`` holds quantiles over validation, by probability; between them, and to 0 and 1, it
    is interpolated linearly. 0 without any.

    An adapter with this error rate gives labels in other shares than the true ones, without any
    drift. Where each label gains or loses about that part of its own messages, the PSI between the
    two is about the square of it.
    """
    if not confidence:
        return 0.0
    points = sorted((float(probability), value) for probability, value in confidence.items())
    points = [(0.0, 0.0), *points, (1.0, 1.0)]
    mean = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(points))
    return 1.0 - mean
