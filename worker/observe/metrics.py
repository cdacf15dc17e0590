"""Every metric of the worker's own, by name, and what it tells.

Generated from this file: ``docs/metrics.md``, by ``make metrics``. Dashboards and alerts go by
these names: none is renamed, and none changes its labels, without a line in the changelog.
Label values are bounded: partitions held, the labels of the taxonomy, and sets that are fixed here.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal

from worker.core.arms import Role
from worker.core.events import PressureKind, RebalanceKind, TransactionResult
from worker.core.shadow import ShadowDrop
from worker.errors import Reason
from worker.lifecycle.events import StopReason
from worker.lifecycle.refusal import RefusalReason
from worker.observe.drift.detector import Signal

Kind = Literal["counter", "gauge", "histogram"]

OUTCOMES = ("output", "review", "dead_letter")
REASONS = typing.get_args(Reason)
REBALANCES = typing.get_args(RebalanceKind)
TRANSACTIONS = typing.get_args(TransactionResult)
PRESSURES = typing.get_args(PressureKind)
SIGNALS = typing.get_args(Signal)
WINDOW_RESULTS = ("stable", "drifted")
ROLES = typing.get_args(Role)
SWAPS = ("swapped", "refused")
REFUSALS = typing.get_args(RefusalReason)
AGREES = ("yes", "no")
SHADOW_DROPS = typing.get_args(ShadowDrop)
STOPS = typing.get_args(StopReason)

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
_MASSES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Milliseconds to minutes: the engine, and what waits for it.
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SHORT = (0.0001, 0.0005, 0.001, 0.0025, *_SECONDS)
# A backlog makes records hours old.
_AGES = (*_SECONDS[1:], 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name, what it tells, its labels, and a histogram's upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


# Records, counted when they are committed.

RECORDS = Metric(
    "clerk_records_total",
    "counter",
    "Records committed, by where they went: output, review or dead_letter.",
    ("outcome",),
)
LABELS = Metric(
    "clerk_labels_total",
    "counter",
    "Labels committed (output and review), by label and the first 12 characters of the "
    "adapter's digest.",
    ("label", "adapter"),
)
DEAD_LETTERS = Metric(
    "clerk_dead_letters_total",
    "counter",
    "Dead letters committed, by reason (docs/records.md).",
    ("reason",),
)
TRUNCATED = Metric(
    "clerk_truncated_messages_total",
    "counter",
    "Labelled messages that were shortened to be read.",
)
CONFIDENCE = Metric(
    "clerk_confidence", "histogram", "Calibrated probability of the chosen label.", (), _SHARES
)
OFF_LABEL_MASS = Metric(
    "clerk_off_label_mass",
    "histogram",
    "Raw probability that the model gave to anything but a label; high where none fits.",
    (),
    _MASSES,
)

ADAPTER_RECORDS = Metric(
    "clerk_adapter_records_total",
    "counter",
    "Records committed, by the adapter that they were accepted with (the first 12 characters of "
    "its digest) and where they went.",
    ("adapter", "outcome"),
)
ADAPTER_CONFIDENCE = Metric(
    "clerk_adapter_confidence",
    "histogram",
    "clerk_confidence by adapter, to compare a canary with the adapter it is to replace.",
    ("adapter",),
    _SHARES,
)
ADAPTER_OFF_LABEL_MASS = Metric(
    "clerk_adapter_off_label_mass",
    "histogram",
    "clerk_off_label_mass by adapter.",
    ("adapter",),
    _MASSES,
)

# Where the time went.

END_TO_END = Metric(
    "clerk_end_to_end_seconds",
    "histogram",
    "From the record's timestamp to its result's commit; the clocks of producer and worker differ.",
    (),
    _AGES,
)
QUEUE = Metric(
    "clerk_queue_seconds",
    "histogram",
    "From fetched to submitted to the engine, for records with a label.",
    (),
    _SHORT,
)
ENGINE = Metric(
    "clerk_engine_seconds",
    "histogram",
    "From submitted to answered, the engine's own queue included, for records with a label.",
    (),
    _SECONDS,
)
COMMIT_WAIT = Metric(
    "clerk_commit_wait_seconds",
    "histogram",
    "From answered (or rejected) to committed: the wait for older records, the interval, the "
    "transaction.",
    (),
    _SECONDS,
)

# What is held now, read when the page is.

IN_FLIGHT = Metric(
    "clerk_in_flight_records",
    "gauge",
    "Records fetched and not yet committed; see loop.max_in_flight.",
)
IN_FLIGHT_BYTES = Metric("clerk_in_flight_bytes", "gauge", "Bytes of those records.")
IN_ENGINE = Metric(
    "clerk_in_engine_records", "gauge", "Records that the engine has not answered yet."
)
WATERMARK_GAP = Metric(
    "clerk_watermark_gap_records",
    "gauge",
    "Records that are finished and wait behind an unfinished one.",
    ("topic", "partition"),
)
ASSIGNED = Metric("clerk_assigned_partitions", "gauge", "Partitions held; 0 for a spare worker.")
PAUSED = Metric(
    "clerk_paused_partitions", "gauge", "Partitions not fetched because enough is in flight."
)
POLL_AGE = Metric(
    "clerk_poll_age_seconds",
    "gauge",
    "Since the loop last polled Kafka; absent until it first has.",
)
LAG = Metric(
    "clerk_consumer_lag_records",
    "gauge",
    "Offsets from the next to be committed to the last stable one, as of the last fetch, renewed "
    "every 5 s. Transaction markers in the input count as records until a partition is done to its "
    "end, which is 0.",
    ("topic", "partition"),
)

# The group, Kafka, the engine.

REBALANCES_TOTAL = Metric(
    "clerk_rebalances_total",
    "counter",
    "Rebalances, by what happened to this worker's partitions: assigned, revoked or lost.",
    ("kind",),
)
DROPPED = Metric(
    "clerk_dropped_records_total",
    "counter",
    "Records given up when their partition went: their next owner does them again.",
)
TRANSACTIONS_TOTAL = Metric(
    "clerk_transactions_total",
    "counter",
    "Attempts to publish a batch: committed, aborted (it will be tried again) or unknown (the "
    "commit was not answered). With at_least_once, attempts without a transaction.",
    ("result",),
)
TRANSACTION_SECONDS = Metric(
    "clerk_transaction_seconds", "histogram", "Time of an attempt, however it ended.", (), _SECONDS
)
BACKPRESSURE = Metric(
    "clerk_backpressure_total",
    "counter",
    "Times that fetching was paused because enough was in flight, and resumed.",
    ("kind",),
)
PROMPT_TOKENS = Metric(
    "clerk_prompt_tokens_total",
    "counter",
    "Prompt tokens submitted to the engine, cached ones and repeated attempts included.",
)
ENGINE_BUSY = Metric(
    "clerk_engine_busy_seconds_total",
    "counter",
    "Wall time with at least one message in the engine: its rate is the share of busy time.",
)

# Drift: the last whole window of labels against the adapter's reference (docs/drift.md). Absent
# where the adapter has none, and all but the levels until the first window is full.

DRIFT_PSI = Metric(
    "clerk_drift_label_psi",
    "gauge",
    "Population stability index of the labels in the last whole window, against their shares in "
    "the training data.",
)
DRIFT_SHIFT = Metric(
    "clerk_drift_label_shift",
    "gauge",
    "The label's share of the last whole window, less its share in the training data.",
    ("label",),
)
DRIFT_OFF_LABEL = Metric(
    "clerk_drift_off_label_share",
    "gauge",
    "Share of the last whole window with more off-label mass than 95 % of validation had.",
)
DRIFT_LEVEL = Metric(
    "clerk_drift_level",
    "gauge",
    "What a window must exceed to count as drifted: a PSI (labels), a share (off_label).",
    ("signal",),
)
DRIFT_IN_A_ROW = Metric(
    "clerk_drift_windows_in_a_row",
    "gauge",
    "Drifted windows in a row up to the last whole one; 0 when that was stable.",
    ("signal",),
)
DRIFT_WINDOWS = Metric(
    "clerk_drift_windows_total",
    "counter",
    "Whole windows, by signal and result (stable, drifted).",
    ("signal", "result"),
)

# What this worker is.

WORKER_INFO = Metric(
    "clerk_worker_info",
    "gauge",
    "1, with the worker's version, delivery, way of serving and base model.",
    ("version", "delivery", "serving", "base"),
)
ADAPTER_INFO = Metric(
    "clerk_adapter_info",
    "gauge",
    "1, with the adapter's name, the first 12 characters of its digest, and the version of its "
    "taxonomy.",
    ("name", "digest", "taxonomy_version"),
)
ADAPTER_SHARE = Metric(
    "clerk_adapter_share",
    "gauge",
    "Share of the traffic that an adapter serves now, by its role: main and canary share the "
    "labelling, a shadow labels its share too, for show.",
    ("adapter", "role"),
)
ADAPTER_REFUSED = Metric(
    "clerk_adapter_refused",
    "gauge",
    "1 while what the store (or adapters.shadow) names for a role is refused by this worker.",
    ("role",),
)
CANARY_STOPPED = Metric(
    "clerk_adapter_canary_stopped",
    "gauge",
    "1 while this worker gives the store's canary no messages because it did worse.",
)
SWAPS_TOTAL = Metric(
    "clerk_adapter_swaps_total",
    "counter",
    "Times that another adapter became current while the worker ran: swapped (between two "
    "records) or refused (the old one goes on).",
    ("result",),
)
REFUSALS_TOTAL = Metric(
    "clerk_adapter_refusals_total",
    "counter",
    "Adapters refused while the worker ran, in any role, by reason (docs/adapters.md).",
    ("reason",),
)
CANARY_STOPS = Metric(
    "clerk_adapter_canary_stops_total",
    "counter",
    "Canaries that this worker stopped, by reason: review, confidence or engine.",
    ("reason",),
)
SHADOW = Metric(
    "clerk_shadow_total",
    "counter",
    "Records that the shadow adapter labelled too, by the real label and whether it agrees.",
    ("label", "agrees"),
)
SHADOW_DROPPED = Metric(
    "clerk_shadow_dropped_total",
    "counter",
    "Records of the shadow's share without its label, by reason: busy (too many in flight), late "
    "(not answered when the result was published), failed, no_label (the record is a dead letter), "
    "not_published (the batch was tried again without it).",
    ("reason",),
)
LOAD_SECONDS = Metric(
    "clerk_adapter_load_seconds",
    "histogram",
    "Time to verify, load and try an adapter beside the one in service.",
    (),
    (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
READY = Metric("clerk_ready", "gauge", "1 when /readyz says so, else 0.")

GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Records, counted when they are committed",
        (RECORDS, LABELS, DEAD_LETTERS, TRUNCATED, CONFIDENCE, OFF_LABEL_MASS),
    ),
    (
        "The same by adapter",
        (ADAPTER_RECORDS, ADAPTER_CONFIDENCE, ADAPTER_OFF_LABEL_MASS),
    ),
    ("Where the time went, in seconds", (END_TO_END, QUEUE, ENGINE, COMMIT_WAIT)),
    (
        "What is held now",
        (IN_FLIGHT, IN_FLIGHT_BYTES, IN_ENGINE, WATERMARK_GAP, ASSIGNED, PAUSED, POLL_AGE, LAG),
    ),
    (
        "The group, Kafka, the engine",
        (
            REBALANCES_TOTAL,
            DROPPED,
            TRANSACTIONS_TOTAL,
            TRANSACTION_SECONDS,
            BACKPRESSURE,
            PROMPT_TOKENS,
            ENGINE_BUSY,
        ),
    ),
    (
        "Drift, window by window",
        (
            DRIFT_PSI,
            DRIFT_SHIFT,
            DRIFT_OFF_LABEL,
            DRIFT_LEVEL,
            DRIFT_IN_A_ROW,
            DRIFT_WINDOWS,
        ),
    ),
    (
        "Adapters that come and go",
        (
            ADAPTER_SHARE,
            SWAPS_TOTAL,
            LOAD_SECONDS,
            ADAPTER_REFUSED,
            REFUSALS_TOTAL,
            CANARY_STOPPED,
            CANARY_STOPS,
            SHADOW,
            SHADOW_DROPPED,
        ),
    ),
    ("What this worker is", (WORKER_INFO, ADAPTER_INFO, READY)),
)
METRICS: tuple[Metric, ...] = tuple(one for _, group in GROUPS for one in group)
