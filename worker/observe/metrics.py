"""Every metric of the worker, in the order of ``docs/metrics.md`` (``make metrics``).

Dashboards and alerts rely on names and labels: a change needs a line in the changelog. Names follow
Prometheus' practice (https://prometheus.io/docs/practices/naming/): base units, ``_total`` for a
counter, ``_ratio`` for a part of a whole, ``_info`` for a constant 1 whose labels carry the
information, ``_timestamp_seconds`` for a time. A probability or an index has no unit and no suffix.
Label values are bounded: assigned partitions, labels of the taxonomy, and sets fixed here.
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
# Milliseconds to minutes: the engine and its queue.
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
    """A label of a metric. ``values`` are all possible values; empty if they are not fixed."""

    name: str
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric; ``buckets`` are a histogram's upper bounds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[MetricLabel, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """In order."""
        return tuple(label.name for label in self.labels)


_ADAPTER, _LABEL = MetricLabel("adapter"), MetricLabel("label")
_TOPIC, _PARTITION = MetricLabel("topic"), MetricLabel("partition")
_OUTCOME, _ROLE = MetricLabel("outcome", OUTCOMES), MetricLabel("role", ROLES)

# Records, counted when they are committed.

RECORDS = Metric(
    "clerk_records_total",
    "counter",
    "Records committed, by outcome; skipped and forwarded ones are tombstones.",
    (_OUTCOME,),
)
LABELS = Metric(
    "clerk_labels_total",
    "counter",
    "Labels committed, those to review included.",
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
    "Records written to the retry topic, by the reason of the failure; other counters include "
    "them only when they end.",
    (MetricLabel("reason", RETRY_REASONS),),
)
TRUNCATED = Metric(
    "clerk_truncated_messages_total",
    "counter",
    "Labelled messages that were shortened to the adapter's budget.",
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
    "Raw probability that the model gave to anything but a label; high if no label fits.",
    buckets=MASSES,
)

ADAPTER_RECORDS = Metric(
    "clerk_adapter_records_total",
    "counter",
    "Records committed, by the adapter that they were accepted with.",
    (_ADAPTER, _OUTCOME),
)
ADAPTER_CONFIDENCE = Metric(
    "clerk_adapter_confidence",
    "histogram",
    "clerk_confidence by adapter, to compare a canary with main.",
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
    "Labels committed from a cascade, by the stage that answered.",
    (_ADAPTER, _STAGE),
)
STAGE_SECONDS = Metric(
    "clerk_stage_seconds",
    "histogram",
    "Time of a record in a stage, including its engine's queue.",
    (_ADAPTER, _STAGE),
    DURATIONS,
)
STAGE_DISAGREEMENTS = Metric(
    "clerk_stage_disagreements_total",
    "counter",
    "Labels on which an earlier stage disagreed, by the stage that answered.",
    (_ADAPTER, _STAGE),
)
STAGE_EXPECTED = Metric(
    "clerk_stage_expected_ratio",
    "gauge",
    "Share of the validation set that a stage answered.",
    (_ADAPTER, _STAGE),
)

# Where the time went.

END_TO_END = Metric(
    "clerk_end_to_end_seconds",
    "histogram",
    "Time from the record's timestamp, by the producer's clock, to the commit of its result.",
    buckets=AGES,
)
QUEUE = Metric(
    "clerk_queue_seconds",
    "histogram",
    "Time from fetching a labelled record to submitting it to the engine.",
    buckets=SHORT_DURATIONS,
)
ENGINE = Metric(
    "clerk_engine_seconds",
    "histogram",
    "Time from submitting a labelled record to its answer, including the engine's own queue.",
    buckets=DURATIONS,
)
COMMIT_WAIT = Metric(
    "clerk_commit_wait_seconds",
    "histogram",
    "Time from the answer (or rejection) to the commit.",
    buckets=DURATIONS,
)

# The loop's state, read at scrape.

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
    "Most records that may be in the engine: 256 or max_num_seqs, fewer if answers would take "
    "longer than a quarter of loop.deadline_s.",
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
    "Partitions not fetched because enough records are in flight.",
)
SUSPECTS = Metric(
    "clerk_suspect_records",
    "gauge",
    "Records held or tried alone because an engine or a worker died with them.",
)
OUTAGE = Metric(
    "clerk_kafka_outage_seconds",
    "gauge",
    "Time since Kafka was found unreachable, to read or to publish; 0 while it is reachable.",
)
STORE_AWAY = Metric(
    "clerk_store_away_seconds",
    "gauge",
    "Time since the bucket of the adapter store does not answer; 0 while it does.",
)
REGISTRY_AWAY = Metric(
    "clerk_registry_away_seconds",
    "gauge",
    "Time since messages wait for the Schema Registry; 0 while it answers.",
)
LOG_DROPPED = Metric(
    "clerk_log_dropped_lines_total",
    "counter",
    "Log lines dropped because the reader of standard error stalls.",
)
LAST_POLL = Metric(
    "clerk_last_poll_timestamp_seconds",
    "gauge",
    "Unix time of the loop's last poll of Kafka; absent until the first.",
)
LAG = Metric(
    "clerk_consumer_lag_records",
    "gauge",
    "Offsets from the next one to be committed to the last stable one, as of the last fetch, "
    "updated every 5 s; 0 for a partition processed to its end.",
    (_TOPIC, _PARTITION),
)

LAG_SECONDS = Metric(
    "clerk_consumer_lag_seconds",
    "gauge",
    "Age of the oldest record that was fetched and is not committed; 0 if nothing waits, absent "
    "if unknown.",
    (_TOPIC, _PARTITION),
)
RETENTION = Metric(
    "clerk_topic_retention_seconds",
    "gauge",
    "retention.ms of an input topic when the worker started; absent if endless or not readable "
    "(DescribeConfigs).",
    (_TOPIC,),
)

RETRY_WAITING = Metric(
    "clerk_retry_waiting_records",
    "gauge",
    "Unfinished records of the retry topic, as of the last fetch; they are not lag.",
    (_TOPIC, _PARTITION),
)
RETRY_DUE = Metric(
    "clerk_retry_due_timestamp_seconds",
    "gauge",
    "Unix time at which this worker's next waiting record is due; absent if none waits.",
)

# The group, Kafka, the engine.

REBALANCES_TOTAL = Metric(
    "clerk_rebalances_total",
    "counter",
    "Rebalances, by their effect on this worker's partitions.",
    (MetricLabel("kind", REBALANCES),),
)
DROPPED = Metric(
    "clerk_dropped_records_total",
    "counter",
    "Records dropped because their partition was revoked or lost; its next owner repeats them.",
)
TRANSACTIONS_TOTAL = Metric(
    "clerk_transactions_total",
    "counter",
    "Attempts to publish a batch: committed, aborted (it will be retried) or unknown (the commit "
    "was not answered).",
    (MetricLabel("result", TRANSACTIONS),),
)
TRANSACTION_SECONDS = Metric(
    "clerk_transaction_seconds",
    "histogram",
    "Duration of an attempt to publish a batch.",
    buckets=DURATIONS,
)
BACKPRESSURE = Metric(
    "clerk_backpressure_events_total",
    "counter",
    "Times that partitions were paused or resumed for backpressure.",
    (MetricLabel("kind", PRESSURES),),
)
PROMPT_TOKENS = Metric(
    "clerk_prompt_tokens_total",
    "counter",
    "Prompt tokens submitted to the engine, cached ones and repeated attempts included.",
)
ENGINE_BUSY = Metric(
    "clerk_engine_busy_seconds_total",
    "counter",
    "Wall time with a message in the engine; its rate is the engine's utilisation.",
)

_SIGNAL = MetricLabel("signal", get_args(Signal))

# Drift. Absent if the adapter has no reference; all but the thresholds until the first window is
# full.
DRIFT_PSI = Metric(
    "clerk_drift_label_psi",
    "gauge",
    "Population stability index of the last full window's labels, against the training data.",
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
    "Share of the last full window whose off-label mass exceeds the 95 % quantile of validation.",
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
    "Consecutive drifted windows up to the last full one.",
    (_SIGNAL,),
)
DRIFT_WINDOWS = Metric(
    "clerk_drift_windows_total",
    "counter",
    "Full windows, by signal and result.",
    (_SIGNAL, MetricLabel("result", WINDOW_RESULTS)),
)

# The adapters that serve.

ADAPTER_TRAFFIC = Metric(
    "clerk_adapter_traffic_ratio",
    "gauge",
    "Share of the traffic of an adapter, by role; a shadow's is in addition.",
    (_ADAPTER, _ROLE),
)
ADAPTER_REFUSED = Metric(
    "clerk_adapter_refused",
    "gauge",
    "1 while this worker refuses the adapter that the store (or adapters.shadow) has for a role.",
    (_ROLE,),
)
CANARY_STOPPED = Metric(
    "clerk_adapter_canary_stopped",
    "gauge",
    "1 while this worker has stopped the store's canary as worse.",
)
SWAPS_TOTAL = Metric(
    "clerk_adapter_swaps_total",
    "counter",
    "Changes of the current adapter while the worker ran: swapped, or refused (the previous one "
    "continues).",
    (MetricLabel("result", SWAPS),),
)
REFUSALS_TOTAL = Metric(
    "clerk_adapter_refusals_total",
    "counter",
    "Adapters refused, in any role, by reason (docs/adapters.md).",
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
    "Records that the shadow labelled too, by the committed label and whether the shadow agrees.",
    (_LABEL, MetricLabel("agrees", AGREES)),
)
SHADOW_DROPPED = Metric(
    "clerk_shadow_dropped_records_total",
    "counter",
    "Records of the shadow's share without a label from it: busy (too many in flight), late (no "
    "answer when the result was published), failed, no_label (a dead letter), not_published (the "
    "batch was retried without it).",
    (MetricLabel("reason", SHADOW_DROPS),),
)
LOAD_SECONDS = Metric(
    "clerk_adapter_load_seconds",
    "histogram",
    "Time to load and test an adapter while another one serves.",
    buckets=LOAD_DURATIONS,
)

# About this worker.

BUILD_INFO = Metric(
    "clerk_build_info",
    "gauge",
    "1, with the version of the worker and of its Python.",
    (MetricLabel("version"), MetricLabel("python_version")),
)
CONFIG_INFO = Metric(
    "clerk_config_info",
    "gauge",
    "1, with delivery guarantee, serving mode and base model.",
    (MetricLabel("delivery"), MetricLabel("serving"), MetricLabel("base")),
)
ADAPTER_INFO = Metric(
    "clerk_adapter_info",
    "gauge",
    "1, with the main adapter's name, digest and taxonomy version.",
    (MetricLabel("name"), MetricLabel("adapter"), MetricLabel("taxonomy_version")),
)
READY = Metric("clerk_ready", "gauge", "1 while /readyz answers 200, else 0.")

METRICS: tuple[Metric, ...] = tuple(
    named for named in tuple(globals().values()) if isinstance(named, Metric)
)
