"""Drift detection: do messages still resemble the training data? See docs/drift.md.

Each full window of an adapter's answers is compared with the reference in its manifest. Thresholds
are derived rather than chosen: a window of independent messages without drift exceeds them with at
most a given probability (``false_alarm_rate``).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import structlog

from worker.contract import Manifest
from worker.core.events import LoopEvent, Published
from worker.observe import metrics as named
from worker.observe.metrics import Signal
from worker.observe.registry import MetricSample
from worker.records.types import Classified

_log = structlog.get_logger("worker.drift")

_DIGITS = 4


# Labels are reported as moved until they account for this part of the PSI.
_MOST = 0.8

TOLERATED_PSI = 0.01
"""A shift that does not count: the expected shares are estimates from a finite sample too."""

QUANTILE = 0.95
"""Quantile of the off-label mass in validation; 1 in 20 of its messages exceeds it."""

LEAST_MASS = 0.001
"""Smallest off-label mass that counts, whatever the quantile: less is rounding."""

# Confidence of the bound on the share above the quantile, since validation is a sample.
_CONFIDENCE = 0.95

_NORMAL = NormalDist()
_HALVINGS = 60  # of [0, 1]: finer than a float


class DriftListener:
    """A listener of the loop that watches the answers of the main adapter (``main()``).

    A canary's answers do not count. A new main adapter begins a new window.

    Counts are those of this worker's partitions. ``metric_samples`` may be called from any thread.
    """

    def __init__(self, main: Callable[[], Manifest], policy: DriftPolicy | None = None) -> None:
        self._policy = policy or DriftPolicy()
        self._main = main
        self._digest: str | None = None
        self._detector: DriftDetector | None = None
        self._last: WindowReport | None = None
        self._windows: dict[tuple[Signal, str], int] = {}
        self._follow()

    def _follow(self) -> None:
        """Begin a window of the current main adapter, if it is new; without a reference nothing is
        watched."""
        manifest = self._main()
        if self._digest == manifest.digest:
            return
        self._digest = manifest.digest
        self._last = None
        baseline = make_baseline(manifest, self._policy)
        if baseline is None:
            self._detector = None
            _log.info(
                "drift.off",
                adapter=manifest.name,
                adapter_digest=manifest.digest[:12],
                why="the adapter's manifest has no reference",
            )
            return
        self._detector = DriftDetector(baseline, self._policy.window)
        signals: list[Signal] = ["labels"] if baseline.mass is None else ["labels", "off_label"]
        for signal in signals:
            for result in named.WINDOW_RESULTS:
                self._windows.setdefault((signal, result), 0)

    def __call__(self, event: LoopEvent) -> None:
        """Count published labels; judge a window when it is full."""
        if not isinstance(event, Published):
            return
        self._follow()
        detector = self._detector
        if detector is None:
            return
        for completed in event.batch:
            outcome = completed.outcome
            if isinstance(outcome, Classified) and completed.adapter.digest == self._digest:
                report = detector.add(outcome.decision.label, outcome.decision.misfit)
                if report is not None:
                    self._take(detector, report)

    def metric_samples(self) -> Iterator[MetricSample]:
        """Yield the thresholds, and the figures of the last full window."""
        detector, last = self._detector, self._last
        if detector is None:
            return
        baseline = detector.baseline
        thresholds: list[tuple[tuple[str, ...], float]] = [(("labels",), baseline.psi_threshold)]
        if baseline.mass is not None:
            thresholds.append((("off_label",), baseline.off_label_threshold))
        yield named.DRIFT_THRESHOLD, thresholds
        yield named.DRIFT_WINDOWS, [(key, count) for key, count in sorted(self._windows.items())]
        if last is None:
            return
        yield named.DRIFT_PSI, [((), last.psi)]
        yield (
            named.DRIFT_SHIFT,
            [((shift.label,), shift.share - shift.expected) for shift in last.shifts],
        )
        if last.off_label_ratio is not None:
            yield named.DRIFT_OFF_LABEL, [((), last.off_label_ratio)]
        yield (
            named.DRIFT_CONSECUTIVE,
            [((signal,), count) for signal, count in last.consecutive.items()],
        )

    def _take(self, detector: DriftDetector, report: WindowReport) -> None:
        before = self._last.consecutive if self._last is not None else {}
        self._last = report
        for signal, consecutive in report.consecutive.items():
            key = (signal, "drifted" if consecutive else "stable")
            self._windows[key] = self._windows.get(key, 0) + 1
            if consecutive:
                # Log the 1st, 2nd, 4th, 8th... of consecutive drifted windows.
                if consecutive & (consecutive - 1) == 0:
                    _warn(detector, report, signal, consecutive)
            elif lasted := before.get(signal, 0):
                _log.info("drift.ended", signal=signal, windows=lasted)


def _warn(detector: DriftDetector, report: WindowReport, signal: Signal, consecutive: int) -> None:
    fields: dict[str, Any] = {
        "adapter_digest": detector.baseline.digest[:12],
        "consecutive_windows": consecutive,
    }
    if signal == "labels":
        _log.warning(
            "drift.labels",
            psi=round(report.psi, _DIGITS),
            threshold=round(detector.baseline.psi_threshold, _DIGITS),
            moved=_shares(report.moved),
            **fields,
        )
    else:
        _log.warning(
            "drift.off_label",
            ratio=round(report.off_label_ratio or 0.0, _DIGITS),
            threshold=round(detector.baseline.off_label_threshold, _DIGITS),
            **fields,
        )


def _shares(shifts: Sequence[LabelShift]) -> dict[str, dict[str, float]]:
    return {
        shift.label: {
            "share": round(shift.share, _DIGITS),
            "expected": round(shift.expected, _DIGITS),
        }
        for shift in shifts
    }


@dataclass(frozen=True, slots=True)
class LabelShift:
    """A label's share of a window, its expected share, and its part of the window's PSI."""

    label: str
    share: float
    expected: float
    psi: float


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One full window. ``consecutive`` counts the drifted windows up to this one, by signal.

    ``moved`` are the labels that account for most of the PSI, largest part first.
    ``off_label_ratio`` is None without off-label mass.
    """

    psi: float
    shifts: Sequence[LabelShift]
    moved: Sequence[LabelShift]
    off_label_ratio: float | None
    consecutive: dict[Signal, int]


class DriftDetector:
    """Counts an adapter's answers and judges each window of ``window`` answers.

    Windows do not overlap, so they are independent: a second drifted one in a row is new evidence.
    """

    def __init__(self, baseline: DriftBaseline, window: int) -> None:
        self.baseline = baseline
        self._window = window
        self._consecutive: dict[Signal, int] = {"labels": 0}
        if baseline.mass is not None:
            self._consecutive["off_label"] = 0
        self._labels: Counter[str] = Counter()
        self._off_label = 0

    def add(self, label: str, off_label_mass: float | None) -> WindowReport | None:
        """Count an answer; return a report if it completes a window. A label of another adapter's
        taxonomy is not counted."""
        if label not in self.baseline.shares:
            return None
        limit = self.baseline.mass
        if limit is not None and off_label_mass is not None and off_label_mass > limit:
            self._off_label += 1
        self._labels[label] += 1
        if self._labels.total() < self._window:
            return None
        labels, off_label = self._labels, self._off_label
        self._labels, self._off_label = Counter(), 0
        return self._judge(labels, off_label)

    def _judge(self, counts: Counter[str], off_label: int) -> WindowReport:
        baseline, messages = self.baseline, self._window
        parts = psi_by_label(counts, baseline.shares)
        psi = sum(parts.values())
        shifts = [
            LabelShift(name, counts[name] / messages, expected, parts[name])
            for name, expected in baseline.shares.items()
        ]
        drifted: dict[Signal, bool] = {"labels": psi > baseline.psi_threshold}
        off_label_ratio = None
        if baseline.mass is not None:
            off_label_ratio = off_label / messages
            drifted["off_label"] = off_label_ratio >= baseline.off_label_threshold
        self._consecutive = {
            signal: self._consecutive[signal] + 1 if is_drifted else 0
            for signal, is_drifted in drifted.items()
        }
        return WindowReport(
            psi=psi,
            shifts=shifts,
            moved=_largest(shifts),
            off_label_ratio=off_label_ratio,
            consecutive=self._consecutive,
        )


def _largest(shifts: Sequence[LabelShift]) -> list[LabelShift]:
    """Return the fewest labels that account for most of the PSI of ``shifts``."""
    wanted = _MOST * sum(shift.psi for shift in shifts)
    found: list[LabelShift] = []
    so_far = 0.0
    for shift in sorted(shifts, key=lambda shift: -shift.psi):
        if so_far >= wanted:
            break
        found.append(shift)
        so_far += shift.psi
    return found


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """How a window of ``window`` messages is judged.

    ``false_alarm_rate`` is the share of windows without drift that may exceed either threshold.

    A window of 1000 detects 10 % of messages out of scope within two windows, and its threshold for
    labels is half of the usual 0.1. 500 detects less, 5000 detects later (measured in
    docs/drift.md). The alert needs two consecutive windows, so a rate of 0.01 fires it by chance
    once in ten thousand windows.
    """

    window: int = 1000
    false_alarm_rate: float = 0.01


@dataclass(frozen=True, slots=True)
class DriftBaseline:
    """What a window of one adapter's answers is compared with.

    ``shares`` are the expected shares by label; a PSI above ``psi_threshold`` is drift. A message
    is off-label if its off-label mass, or a head's out-of-scope score, is above ``mass``; a ratio
    of such messages from ``off_label_threshold`` on is drift. ``mass`` is None if the kind has
    neither.
    """

    digest: str
    shares: Mapping[str, float]
    psi_threshold: float
    mass: float | None
    off_label_threshold: float


def make_baseline(manifest: Manifest, policy: DriftPolicy) -> DriftBaseline | None:
    """Return an adapter's baseline; None if its manifest has no reference.

    Each signal gets half of ``false_alarm_rate`` (Bonferroni); without off-label mass the labels
    get all of it.
    """
    reference = manifest.reference
    if reference is None:
        return None
    quantile = reference.misfit.get(f"{QUANTILE:g}")
    signals = 1 if quantile is None else 2
    # Bonferroni: two signals at half the rate raise a false alarm no more often than one.
    alarm_rate = policy.false_alarm_rate / signals
    shares = {name: reference.label_shares.get(name, 0.0) for name in manifest.taxonomy.names}
    # The adapter's own errors shift the shares without any drift (expected_errors).
    tolerated = TOLERATED_PSI + expected_errors(reference.confidence) ** 2
    label_psi = psi_threshold(policy.window, len(shares), tolerated, alarm_rate)
    above = share_bound(1 - QUANTILE, manifest.calibration.examples, _CONFIDENCE)
    off_label = count_threshold(policy.window, above, alarm_rate) / policy.window
    # The least mass does not apply to an out-of-scope score, which has any sign and scale.
    mass = (
        max(quantile, LEAST_MASS) if quantile is not None and reference.off_label_mass else quantile
    )
    return DriftBaseline(manifest.digest, shares, label_psi, mass, off_label)


def expected_errors(confidence: Mapping[str, float]) -> float:
    """Return the error rate that calibrated confidences predict: 1 minus their mean; 0 without any.

    ``confidence`` has quantiles over validation by probability, interpolated linearly between them
    and to 0 and 1.

    An adapter with errors gives labels in other shares than the true ones, even without drift. If
    each label gains or loses about that part of its messages, the PSI between the two is about the
    square of the error rate.
    """
    if not confidence:
        return 0.0
    points = sorted((float(probability), value) for probability, value in confidence.items())
    points = [(0.0, 0.0), *points, (1.0, 1.0)]
    mean = sum((right - left) * (low + high) / 2 for (left, low), (right, high) in pairwise(points))
    return 1.0 - mean


def psi_by_label(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    """Return each label's part of the population stability index of a window; their sum is the PSI.

    PSI is the sum of (a - e) ln(a / e) over the labels, where a is the actual share and e the
    expected one (Siddiqi 2006, Credit Risk Scorecards, chapter 9): the Kullback-Leibler divergence
    in both directions (Jeffreys 1946). ``counts`` are the window's; ``shares`` are the expected
    shares by label and add up to 1. A label that is missing in either counts as 0 there.

    Half a message is added to each label's count and expected count, so that a label with an
    empty cell has a finite part.
    """
    labels = dict.fromkeys((*shares, *counts))
    messages = sum(counts.values())
    total = messages + len(labels) / 2
    parts = {}
    for label in labels:
        found = counts.get(label, 0) + 0.5
        expected = messages * shares.get(label, 0.0) + 0.5
        parts[label] = (found - expected) / total * math.log(found / expected)
    return parts


def psi_threshold(window: int, labels: int, tolerated: float, false_alarm_rate: float) -> float:
    """Return the PSI that a window of messages exceeds with probability ``false_alarm_rate`` if
    the true shares are off by a PSI of ``tolerated``.

    In a sample of n messages over k labels, n times the PSI approximately follows a chi-square
    distribution with k - 1 degrees of freedom (Yurdakul 2018, Statistical Properties of Population
    Stability Index); if the true shares have moved, with a noncentrality of n times their PSI. So
    the threshold falls with the window and grows with the number of labels, unlike the customary
    0.1 and 0.25.
    """
    if labels < 2:
        return math.inf  # one label has one share
    quantile = _chi_square(1 - false_alarm_rate, labels - 1, window * tolerated)
    return quantile / window


def share_bound(share: float, examples: int, confidence: float) -> float:
    """Return the upper confidence bound of a true share, given a ``share`` of ``examples`` draws
    (Clopper & Pearson 1934, one-sided)."""
    above = round(share * examples)
    if above >= examples:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # The probability of drawing more rises with the true share, so bisection works.
        if _binomial_tail(above + 1, examples, middle) < confidence:
            low = middle
        else:
            high = middle
    return high


def count_threshold(window: int, share: float, false_alarm_rate: float) -> int:
    """Return the smallest count that a window reaches with probability ``false_alarm_rate`` or less
    if each message counts with probability ``share``; window + 1 if there is none."""
    low, high = 0, window + 1
    while low < high:
        middle = (low + high) // 2
        if _binomial_tail(middle, window, share) <= false_alarm_rate:
            high = middle
        else:
            low = middle + 1
    return low


def _binomial_tail(least: int, trials: int, p: float) -> float:
    """Return the probability of at least ``least`` successes."""
    if least <= 0:
        return 1.0
    if least > trials or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    if least <= trials * p:  # most of the probability: less the other tail
        return 1.0 - _binomial_tail(trials - least + 1, trials, 1 - p)
    # The first term in logarithms, because binomial coefficients of a window of thousands overflow
    # a float. Each further term follows from the one before it, and they fall: an lgamma for each
    # term would hold up the loop for most of a second when a new adapter begins to serve.
    term = math.exp(
        math.lgamma(trials + 1)
        - math.lgamma(least + 1)
        - math.lgamma(trials - least + 1)
        + least * math.log(p)
        + (trials - least) * math.log1p(-p)
    )
    total, odds = 0.0, p / (1 - p)
    for successes in range(least, trials + 1):
        if total + term == total:
            break
        total += term
        term *= odds * (trials - successes) / (successes + 1)
    return min(1.0, total)


def _chi_square(probability: float, degrees: int, noncentrality: float) -> float:
    """Return a quantile of the noncentral chi-square distribution by Sankaran's last approximation
    (1963, Biometrika 50:199): 1 % below to 2.5 % above the exact value in these tails. SciPy has
    the exact one, but the worker's image does not have SciPy."""
    mean = degrees + noncentrality
    spread = degrees + 2 * noncentrality
    power = 1 - 2 * mean * (degrees + 3 * noncentrality) / (3 * spread**2)
    width = spread / mean**2
    bend = (power - 1) * (1 - 3 * power)
    center = 1 + power * width * (power - 1 - 0.5 * (2 - power) * bend * width)
    scale = power * math.sqrt(2 * width) * (1 + 0.5 * bend * width)
    return float(mean * (center + _NORMAL.inv_cdf(probability) * scale) ** (1 / power))
