"""Every metric of the worker's own, by name, and what it tells.

Generated from this file: ``docs/metrics.md``, by ``make metrics``. Dashboards and alerts rely on
these names: none is renamed, and none changes its labels, without a line in the changelog. They
follow Prometheus' practice (https://prometheus.io/docs/practices/naming/): base units, ``_total``
for a counter, ``_ratio`` for a part of a whole, ``_info`` for a constant 1 that tells by its
labels, ``_timestamp_seconds`` for a moment. A probability and an index have no unit and no suffix.
Values of labels are bounded: partitions assigned, labels of the taxonomy, and sets fixed here.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import Literal, get_args

from worker.contract.errors import RejectReason
from worker.contract.manifest import MOST_STAGES
from worker.contract.records.headers import RETRY_REASONS
from worker.core.arms import Role, ShadowDrop
from worker.core.events import PressureKind, RebalanceKind, TransactionResult
from worker.lifecycle.events import RefusalReason, StopReason
from worker.records.types import OutcomeKind

Kind = Literal["counter", "gauge", "histogram"]


# Upper bounds of the histograms' buckets: probabilities, then seconds.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MASSES = (0.001, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
# Milliseconds to minutes: the engine, and what waits for it.
DURATIONS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SHORT_DURATIONS = (0.0001, 0.0005, 0.001, 0.0025, *DURATIONS)
LOAD_DURATIONS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
# A backlog makes records hours old.
AGES = (*DURATIONS[1:], 120.0, 300.0, 600.0, 1800.0, 3600.0, 21600.0, 86400.0)
Signal = Literal["labels", "off_label"]
WINDOW_RESULTS = ("stable", "drifted")
OUTCOMES = typing.get_args(OutcomeKind)
REASONS = typing.get_args(RejectReason)
REBALANCES = typing.get_args(RebalanceKind)
TRANSACTIONS = typing.get_args(TransactionResult)
PRESSURES = typing.get_args(PressureKind)
ROLES = typing.get_args(Role)
SWAPS = ("swapped", "refused")
REFUSALS = typing.get_args(RefusalReason)
AGREES = ("yes", "no")
SHADOW_DROPS = typing.get_args(ShadowDrop)
STOPS = typing.get_args(StopReason)


@dataclass(frozen=True, slots=True)
class MetricLabel:
    """A label of a metric. ``values`` are all that it can have; empty where they are not fixed."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its full name, what it tells, its labels, and a histogram's upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[MetricLabel, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """The names of the labels, in order."""
        return tuple(label.name for label in self.labels)


_SIGNAL = MetricLabel("signal", get_args(Signal))

# Drift: absent where the adapter has no reference, and all but the thresholds until the first
# window is full.
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

_ADAPTER, _LABEL = MetricLabel("adapter"), MetricLabel("label")
_TOPIC, _PARTITION = MetricLabel("topic"), MetricLabel("partition")
_OUTCOME, _ROLE = MetricLabel("outcome", OUTCOMES), MetricLabel("role", ROLES)

# Records, counted when they are committed.

RECORDS = Metric(
    "clerk_records_total",
    "counter",
    "Records committed, by outcome: the topic they were written to, or skipped (a tombstone that "
    "was left out).",
    (_OUTCOME,),
)
LABELS = Metric(
    "clerk_labels_total",
    "counter",
    "Labels committed (output and review), by label and by adapter (the first 12 characters of "
    "its digest).",
    (_LABEL, _ADAPTER),
)
DEAD_LETTERS = Metric(
    "clerk_dead_letters_total",
    "counter",
    "Dead letters committed, by reason (docs/records.md).",
    (MetricLabel("reason", REASONS),),
)
RETRIES = Metric(
    "clerk_retried_records_total",
    "counter",
    "Records put on the retry topic, by the reason of the failure. They are in no other count of "
    "records until they end.",
    (MetricLabel("reason", RETRY_REASONS),),
)
TRUNCATED = Metric(
    "clerk_truncated_messages_total",
    "counter",
    "Labelled messages that were longer than the adapter's budget and therefore shortened.",
)
CONFIDENCE = Metric(
    "clerk_confidence",
    "histogram",
    "Calibrated probability of the chosen label.",
    buckets=SHARES,
)
OFF_LABEL_MASS = Metric(
    "clerk_off_label_mass",
    "histogram",
    "Raw probability that the model assigned to anything but a label; high where no label fits.",
    buckets=MASSES,
)

ADAPTER_RECORDS = Metric(
    "clerk_adapter_records_total",
    "counter",
    "Records committed, by the adapter that they were accepted with (the first 12 characters of "
    "its digest) and by outcome.",
    (_ADAPTER, _OUTCOME),
)
ADAPTER_CONFIDENCE = Metric(
    "clerk_adapter_confidence",
    "histogram",
    "clerk_confidence by adapter, to compare a canary with the adapter that it may replace.",
    (_ADAPTER,),
    SHARES,
)
ADAPTER_OFF_LABEL_MASS = Metric(
    "clerk_adapter_off_label_mass",
    "histogram",
    "clerk_off_label_mass by adapter.",
    (_ADAPTER,),
    MASSES,
)

_STAGE = MetricLabel("stage", tuple(str(at + 1) for at in range(MOST_STAGES)))

STAGE_RECORDS = Metric(
    "clerk_stage_records_total",
    "counter",
    "Labels committed of a cascade, by the cascade and by the stage that answered, from 1.",
    (_ADAPTER, _STAGE),
)
STAGE_SECONDS = Metric(
    "clerk_stage_seconds",
    "histogram",
    "Time that a stage of a cascade took for a record, including its engine's queue, whether it "
    "answered or passed the record on.",
    (_ADAPTER, _STAGE),
    DURATIONS,
)
STAGE_DISAGREEMENTS = Metric(
    "clerk_stage_disagreements_total",
    "counter",
    "Labels committed of a cascade that an earlier stage would have given otherwise, by the stage "
    "that answered.",
    (_ADAPTER, _STAGE),
)
STAGE_EXPECTED = Metric(
    "clerk_stage_expected_ratio",
    "gauge",
    "Share of the labels that a stage of a cascade in service gave on validation.",
    (_ADAPTER, _STAGE),
)

# Where the time went.

END_TO_END = Metric(
    "clerk_end_to_end_seconds",
    "histogram",
    "Time from the record's timestamp to the commit of its result; the clocks of producer and "
    "worker may differ.",
    buckets=AGES,
)
QUEUE = Metric(
    "clerk_queue_seconds",
    "histogram",
    "Time from fetching a record to submitting it to the engine, for records with a label.",
    buckets=SHORT_DURATIONS,
)
ENGINE = Metric(
    "clerk_engine_seconds",
    "histogram",
    "Time from submitting a record to the engine to its answer, including the engine's own queue, "
    "for records with a label.",
    buckets=DURATIONS,
)
COMMIT_WAIT = Metric(
    "clerk_commit_wait_seconds",
    "histogram",
    "Time from the answer (or rejection) to the commit: waiting for older records, for the "
    "publish interval and for the transaction.",
    buckets=DURATIONS,
)

# The loop's state, read when the page is.

IN_FLIGHT = Metric(
    "clerk_in_flight_records",
    "gauge",
    "Records fetched and not yet committed; bounded by loop.max_in_flight.",
)
IN_FLIGHT_BYTES = Metric("clerk_in_flight_bytes", "gauge", "Total size of the records in flight.")
IN_ENGINE = Metric(
    "clerk_in_engine_records", "gauge", "Records that the engine has not answered yet."
)
ENGINE_WINDOW = Metric(
    "clerk_engine_window_records",
    "gauge",
    "Records that the engine may be given at a time: at most 256 or max_num_seqs, fewer where "
    "they would take it longer than a quarter of loop.deadline_s.",
)
WATERMARK_GAP = Metric(
    "clerk_watermark_gap_records",
    "gauge",
    "Completed records that wait for an older one of their partition to complete.",
    (_TOPIC, _PARTITION),
)
ASSIGNED = Metric(
    "clerk_assigned_partitions", "gauge", "Partitions assigned to this worker; 0 for a spare one."
)
PAUSED = Metric(
    "clerk_paused_partitions",
    "gauge",
    "Partitions that are not fetched because enough records are in flight.",
)
SUSPECTS = Metric(
    "clerk_suspect_records",
    "gauge",
    "Records held or tried apart because the engine, or a worker that was killed, died with them.",
)
OUTAGE = Metric(
    "clerk_kafka_outage_seconds",
    "gauge",
    "For how long results have waited for a Kafka that cannot be reached; 0 while it can.",
)
LAST_POLL = Metric(
    "clerk_last_poll_timestamp_seconds",
    "gauge",
    "Unix time at which the loop last polled Kafka; absent until the first poll.",
)
LAG = Metric(
    "clerk_consumer_lag_records",
    "gauge",
    "Offsets from the next one to be committed to the last stable one, as of the last fetch, "
    "updated every 5 s. Transaction markers in the input count as records, except in a partition "
    "that has been processed to its end, whose lag is 0.",
    (_TOPIC, _PARTITION),
)

LAG_SECONDS = Metric(
    "clerk_consumer_lag_seconds",
    "gauge",
    "Age of the oldest record that was fetched and is not committed, by its timestamp and the "
    "worker's clock; 0 where nothing waits, absent where its age is not known.",
    (_TOPIC, _PARTITION),
)
RETENTION = Metric(
    "clerk_topic_retention_seconds",
    "gauge",
    "retention.ms of an input topic, as it was when the worker started; absent where messages are "
    "kept for ever or the worker may not read it (DescribeConfigs).",
    (_TOPIC,),
)

RETRY_WAITING = Metric(
    "clerk_retry_waiting_records",
    "gauge",
    "Records of a partition of the retry topic that are not done, as of the last fetch: they wait "
    "for their time, or for the engine. They are no lag.",
    (_TOPIC, _PARTITION),
)
RETRY_DUE = Metric(
    "clerk_retry_due_timestamp_seconds",
    "gauge",
    "Unix time at which the first of this worker's waiting records is due; absent if none waits.",
)

# The group, Kafka, the engine.

REBALANCES_TOTAL = Metric(
    "clerk_rebalances_total",
    "counter",
    "Rebalances, by what happened to this worker's partitions.",
    (MetricLabel("kind", REBALANCES),),
)
DROPPED = Metric(
    "clerk_dropped_records_total",
    "counter",
    "Records dropped because their partition was revoked or lost; its next owner processes them "
    "again.",
)
TRANSACTIONS_TOTAL = Metric(
    "clerk_transactions_total",
    "counter",
    "Attempts to publish a batch, by result: committed, aborted (it will be retried) or unknown "
    "(the commit was not answered). With at_least_once, attempts without a transaction.",
    (MetricLabel("result", TRANSACTIONS),),
)
TRANSACTION_SECONDS = Metric(
    "clerk_transaction_seconds",
    "histogram",
    "Duration of an attempt to publish a batch, whatever its result.",
    buckets=DURATIONS,
)
BACKPRESSURE = Metric(
    "clerk_backpressure_events_total",
    "counter",
    "Times that a partition was paused because enough of its records were in flight, and resumed.",
    (MetricLabel("kind", PRESSURES),),
)
PROMPT_TOKENS = Metric(
    "clerk_prompt_tokens_total",
    "counter",
    "Prompt tokens submitted to the engine, including cached ones and repeated attempts.",
)
ENGINE_BUSY = Metric(
    "clerk_engine_busy_seconds_total",
    "counter",
    "Wall time with at least one message in the engine; its rate is the engine's utilisation.",
)

# The adapters that serve.

ADAPTER_TRAFFIC = Metric(
    "clerk_adapter_traffic_ratio",
    "gauge",
    "Share of the traffic that an adapter serves now, by role: main and canary divide the records "
    "between them; a shadow labels its share in addition, and its labels are not acted on.",
    (_ADAPTER, _ROLE),
)
ADAPTER_REFUSED = Metric(
    "clerk_adapter_refused",
    "gauge",
    "1 while this worker refuses the adapter that the store (or adapters.shadow) names for a role.",
    (_ROLE,),
)
CANARY_STOPPED = Metric(
    "clerk_adapter_canary_stopped",
    "gauge",
    "1 while this worker sends the store's canary no messages because it did worse.",
)
SWAPS_TOTAL = Metric(
    "clerk_adapter_swaps_total",
    "counter",
    "Times that another adapter became current while the worker ran: swapped (between two "
    "records) or refused (the previous one continues).",
    (MetricLabel("result", SWAPS),),
)
REFUSALS_TOTAL = Metric(
    "clerk_adapter_refusals_total",
    "counter",
    "Adapters refused while the worker ran, in any role, by reason (docs/adapters.md).",
    (MetricLabel("reason", REFUSALS),),
)
CANARY_STOPS = Metric(
    "clerk_adapter_canary_stops_total",
    "counter",
    "Canaries that this worker stopped, by reason.",
    (MetricLabel("reason", STOPS),),
)
SHADOW = Metric(
    "clerk_shadow_records_total",
    "counter",
    "Records that the shadow adapter labelled too, by the label that was committed and whether "
    "the shadow agrees.",
    (_LABEL, MetricLabel("agrees", AGREES)),
)
SHADOW_DROPPED = Metric(
    "clerk_shadow_dropped_records_total",
    "counter",
    "Records of the shadow's share that have no label from it, by reason: busy (too many in "
    "flight), late (not answered when the result was published), failed, no_label (the record is a "
    "dead letter), not_published (the batch was retried without it).",
    (MetricLabel("reason", SHADOW_DROPS),),
)
LOAD_SECONDS = Metric(
    "clerk_adapter_load_seconds",
    "histogram",
    "Time to verify, load and test an adapter while another one serves.",
    buckets=LOAD_DURATIONS,
)

# What this worker is.

BUILD_INFO = Metric(
    "clerk_build_info",
    "gauge",
    "1, with the version of the worker and of the Python that runs it.",
    (MetricLabel("version"), MetricLabel("python_version")),
)
CONFIG_INFO = Metric(
    "clerk_config_info",
    "gauge",
    "1, with the worker's delivery guarantee, serving mode and base model.",
    (MetricLabel("delivery"), MetricLabel("serving"), MetricLabel("base")),
)
ADAPTER_INFO = Metric(
    "clerk_adapter_info",
    "gauge",
    "1, with the main adapter's name, the first 12 characters of its digest, and the version of "
    "its taxonomy.",
    (MetricLabel("name"), MetricLabel("adapter"), MetricLabel("taxonomy_version")),
)
READY = Metric("clerk_ready", "gauge", "1 while /readyz answers 200, else 0.")

METRICS: tuple[Metric, ...] = tuple(
    named for named in tuple(globals().values()) if isinstance(named, Metric)
)
