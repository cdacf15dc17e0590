"""What a window is held against: an adapter's reference, and the levels that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

from worker.contract import Manifest
from worker.observe.drift.statistics import count_level, psi_level, share_bound

TOLERATED_PSI = 0.01
"""A shift that is none: the shares expected were themselves counted on so many messages."""

QUANTILE = 0.95
"""The off-label mass that 1 in 20 messages of validation exceeds."""

LEAST_MASS = 0.001
"""Below it a mass is rounding and no doubt, whatever the quantile is."""

_CONFIDENCE = 0.95
"""In the bound on the share that the quantile leaves above it: validation is a sample too."""


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How a window is judged. ``label_psi`` and ``off_label_share``: levels that somebody set in
    place of those worked out from ``false_alarm_share``, the share of windows without drift that
    may exceed one level or the other."""

    window: int
    false_alarm_share: float
    label_psi: float | None = None
    off_label_share: float | None = None
    sample_ids: int = 0


@dataclass(frozen=True, slots=True)
class DriftBaseline:
    """What a window of one adapter's answers is held against.

    ``shares`` are expected, by label; a PSI above ``psi_level`` is drift. A message counts as off
    label above ``mass``; a share of such messages at or above ``off_label_level`` is drift. Where
    the way of decoding tells no off-label mass, ``mass`` is None.
    """

    digest: str
    shares: Mapping[str, float]
    psi_level: float
    mass: float | None
    off_label_level: float


def make_yardstick(manifest: Manifest, policy: DriftPolicy) -> DriftBaseline | None:
    """Return what to hold an adapter's windows against; None where its manifest has no reference.

    Both signals share ``false_alarm_share`` in halves (Bonferroni); the labels have all of it where
    there is no off-label mass.
    """
    reference = manifest.reference
    if reference is None:
        return None
    quantile = reference.off_label_mass.get(f"{QUANTILE:g}")
    watched = 1 if quantile is None else 2
    alarms = policy.false_alarm_share / watched
    shares = {name: reference.label_shares.get(name, 0.0) for name in manifest.taxonomy.names}
    level = policy.label_psi
    if level is None:
        tolerated = TOLERATED_PSI + expected_errors(reference.confidence) ** 2
        level = psi_level(policy.window, len(shares), tolerated, alarms)
    off_label = policy.off_label_share
    if off_label is None:
        above = share_bound(1 - QUANTILE, manifest.calibration.examples, _CONFIDENCE)
        off_label = count_level(policy.window, above, alarms) / policy.window
    mass = None if quantile is None else max(quantile, LEAST_MASS)
    return DriftBaseline(manifest.digest, shares, level, mass, off_label)


def expected_errors(confidence: Mapping[str, float]) -> float:
    """Return the share of wrong labels that calibrated confidences foretell: one less their mean,
    from quantiles over validation, joined by straight lines from 0 to 1. 0 without any.

    An adapter that is wrong so often gives labels in other shares than the true ones, without any
    drift. Where a label gains or loses of its own messages about as large a part as is wrong
    overall, that is a PSI of the square of this.
    """
    if not confidence:
        return 0.0
    points = sorted((float(probability), value) for probability, value in confidence.items())
    points = [(0.0, 0.0), *points, (1.0, 1.0)]
    mean = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(points))
    return 1.0 - mean
