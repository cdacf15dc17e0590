"""Drift's metrics: the last full window of labels against the adapter's reference (docs/drift.md).

Absent where the adapter has none, and all but the thresholds until the first window is full.
"""

from __future__ import annotations

from typing import Literal, get_args

from worker.observe.metric import Metric, MetricLabel

Signal = Literal["labels", "off_label"]

WINDOW_RESULTS = ("stable", "drifted")
_SIGNAL = MetricLabel("signal", get_args(Signal))

DRIFT_PSI = Metric(
    "clerk_drift_label_psi",
    "gauge",
    "Population stability index of the labels in the last full window, against their shares of "
    "the training data.",
)
DRIFT_SHIFT = Metric(
    "clerk_drift_label_shift",
    "gauge",
    "The label's share of the last full window minus its share of the training data.",
    (MetricLabel("label"),),
)
DRIFT_OFF_LABEL = Metric(
    "clerk_drift_off_label_ratio",
    "gauge",
    "Share of the messages in the last full window whose off-label mass exceeds the 95 % quantile "
    "of validation.",
)
DRIFT_THRESHOLD = Metric(
    "clerk_drift_threshold",
    "gauge",
    "Value from which a window counts as drifted: a PSI (labels) or a ratio (off_label).",
    (_SIGNAL,),
)
DRIFT_CONSECUTIVE = Metric(
    "clerk_drift_consecutive_windows",
    "gauge",
    "Consecutive drifted windows up to the last full one; 0 when that one was stable.",
    (_SIGNAL,),
)
DRIFT_WINDOWS = Metric(
    "clerk_drift_windows_total",
    "counter",
    "Full windows, by signal and result.",
    (_SIGNAL, MetricLabel("result", WINDOW_RESULTS)),
)

DRIFT_METRICS = (
    DRIFT_PSI,
    DRIFT_SHIFT,
    DRIFT_OFF_LABEL,
    DRIFT_THRESHOLD,
    DRIFT_CONSECUTIVE,
    DRIFT_WINDOWS,
)
