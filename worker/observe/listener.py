"""The loop's events as metrics; its state is read at scrape."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from worker.common.logs import dropped_lines
from worker.contract.records.headers import RETRY_REASONS
from worker.core.arms import MAIN, AdapterRouter, ShadowRequest, TrafficSplit
from worker.core.assignment import CompletedRecord
from worker.core.events import LoopEvent, PressureChanged, Published, Rebalanced, TransactionEnded
from worker.core.labeller import ServingAdapter
from worker.core.loop import LoopState
from worker.lifecycle.events import (
    AdapterEvent,
    AdapterEvents,
    Loaded,
    Refused,
    Serving,
    Stopped,
    Swapped,
)
from worker.observe import metrics as named
from worker.observe.registry import MetricSample, Registry
from worker.records.types import Classified, Outcome, Postponed, Rejected, TopicPartition

DIGEST_CHARS = 12
"""Length of a digest's prefix that identifies the adapter in metrics and logs."""

KEPT = 8
"""The number of adapters that keep their series. Older ones lose theirs: a worker that runs for
months would otherwise grow without a bound."""


class MetricsListener:
    """A listener of the loop. ``clock`` is the loop's; ``wall`` returns Unix seconds."""

    def __init__(
        self,
        registry: Registry,
        adapters: AdapterMetrics,
        clock: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._clock = clock
        self._wall = wall
        self._adapters = adapters
        self._records = registry.counter(named.RECORDS, *_each(named.OUTCOMES))
        self._dead_letters = registry.counter(named.DEAD_LETTERS, *_each(named.REASONS))
        self._retries = registry.counter(named.RETRIES, *_each(RETRY_REASONS))
        self._truncated = registry.counter(named.TRUNCATED)
        self._confidence = registry.histogram(named.CONFIDENCE)
        self._off_label_mass = registry.histogram(named.OFF_LABEL_MASS)
        self._end_to_end = registry.histogram(named.END_TO_END)
        self._queue = registry.histogram(named.QUEUE)
        self._engine = registry.histogram(named.ENGINE)
        self._commit_wait = registry.histogram(named.COMMIT_WAIT)
        self._rebalances = registry.counter(named.REBALANCES_TOTAL, *_each(named.REBALANCES))
        self._dropped = registry.counter(named.DROPPED)
        self._transactions = registry.counter(named.TRANSACTIONS_TOTAL, *_each(named.TRANSACTIONS))
        self._transaction_s = registry.histogram(named.TRANSACTION_SECONDS)
        self._backpressure = registry.counter(named.BACKPRESSURE, *_each(named.PRESSURES))

    def __call__(self, event: LoopEvent) -> None:
        """Count it."""
        match event:
            case TransactionEnded(result, seconds):
                self._transactions(1, result)
                self._transaction_s([seconds])
            case Published(batch):
                self._count(batch)
            case Rebalanced(kind, _, dropped):
                self._rebalances(1, kind)
                self._dropped(dropped)
            case PressureChanged(kind):
                self._backpressure(1, kind)

    def _count(self, batch: Sequence[CompletedRecord]) -> None:
        """Count records by outcome, and observe their durations.

        A record on the retry topic has not ended: it is counted as a retry now, and by its outcome
        when it ends.
        """
        now, wall = self._clock(), self._wall()
        self._adapters.published(batch)
        ended = [each for each in batch if not isinstance(each.outcome, Postponed)]
        self._commit_wait([max(0.0, now - each.finished_at) for each in ended])
        sent_ms = [each.record.timestamp_ms for each in ended]
        # max: the producer's clock may be ahead of ours.
        self._end_to_end([max(0.0, wall - at / 1000) for at in sent_ms if at is not None])
        self._observe([each.outcome for each in ended if isinstance(each.outcome, Classified)])
        outcomes = Counter(each.outcome.kind for each in ended)
        for kind, count in outcomes.items():
            self._records(count, kind)
        for each in batch:
            if isinstance(each.outcome, Rejected):
                self._dead_letters(1, each.outcome.reason)
            elif isinstance(each.outcome, Postponed):
                self._retries(1, each.outcome.rejected.reason)

    def _observe(self, labelled: Sequence[Classified]) -> None:
        self._truncated(sum(each.truncated for each in labelled))
        masses = [each.decision.off_label_mass for each in labelled]
        self._confidence([each.decision.confidence for each in labelled])
        self._off_label_mass([mass for mass in masses if mass is not None])
        self._queue([each.timing.queue_s for each in labelled])
        self._engine([each.timing.engine_s for each in labelled])


def loop_samples(
    state: LoopState,
    lag: Mapping[TopicPartition, int],
    oldest_ms: Mapping[TopicPartition, int],
    now: float,
    wall: float,
) -> Iterator[MetricSample]:
    """Yield the loop's state at ``now`` (the loop's clock; ``wall`` is the same in Unix seconds).
    ``lag`` and ``oldest_ms`` are the stream's."""
    yield named.IN_FLIGHT, [((), state.in_flight_records)]
    yield named.IN_FLIGHT_BYTES, [((), state.in_flight_bytes)]
    yield named.IN_ENGINE, [((), state.in_engine_records)]
    yield named.ENGINE_WINDOW, [((), state.engine_window)]
    yield named.WATERMARK_GAP, _by_partition(state.waiting)
    yield named.ASSIGNED, [((), len(state.waiting))]
    yield named.PAUSED, [((), state.paused_partitions)]
    outage_s = 0.0 if state.outage_since is None else max(0.0, now - state.outage_since)
    yield named.OUTAGE, [((), outage_s)]
    since = state.registry_away_since
    yield named.REGISTRY_AWAY, [((), 0.0 if since is None else max(0.0, now - since))]
    yield named.LOG_DROPPED, [((), dropped_lines())]
    if state.polled_at is not None:
        yield named.LAST_POLL, [((), wall - max(0.0, now - state.polled_at))]
    topic = state.retry_topic
    # Messages on the retry topic wait on purpose: counted as lag, they would scale workers up.
    yield named.LAG, _by_partition({at: count for at, count in lag.items() if at.topic != topic})
    # Without lag nothing waits: the age is 0, and not unknown as for a partition whose oldest
    # record has no timestamp.
    ages = {at: 0.0 for at, count in lag.items() if not count}
    ages |= {at: max(0.0, wall - ms / 1000) for at, ms in oldest_ms.items()}
    yield (
        named.LAG_SECONDS,
        _by_partition({at: age for at, age in ages.items() if at.topic != topic}),
    )
    waiting = {at: count for at, count in lag.items() if at.topic == topic}
    yield named.RETRY_WAITING, _by_partition(waiting)
    if state.retry_due_ms is not None:
        yield named.RETRY_DUE, [((), state.retry_due_ms / 1000)]
    yield named.SUSPECTS, [((), state.suspect_records)]
    yield named.PROMPT_TOKENS, [((), state.prompt_tokens)]
    yield named.ENGINE_BUSY, [((), state.engine_busy_s)]


def _by_partition(counts: Mapping[TopicPartition, float]) -> list[tuple[tuple[str, ...], float]]:
    return [((source.topic, str(source.partition)), count) for source, count in counts.items()]


def _each(values: Sequence[str]) -> list[tuple[str]]:
    return [(value,) for value in values]


class AdapterMetrics:
    """Counts swaps, refusals and stops of adapters, and committed records by adapter."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._known: dict[str, None] = {}  # the most recent last
        self._labels = registry.counter(named.LABELS)
        self._records = registry.counter(named.ADAPTER_RECORDS)
        self._confidence = registry.histogram(named.ADAPTER_CONFIDENCE)
        self._off_label_mass = registry.histogram(named.ADAPTER_OFF_LABEL_MASS)
        self._stage_records = registry.counter(named.STAGE_RECORDS)
        self._stage_s = registry.histogram(named.STAGE_SECONDS)
        self._disagreements = registry.counter(named.STAGE_DISAGREEMENTS)
        self._swaps = registry.counter(named.SWAPS_TOTAL, *_each(named.SWAPS))
        self._refusals = registry.counter(named.REFUSALS_TOTAL, *_each(named.REFUSALS))
        self._stops = registry.counter(named.CANARY_STOPS, *_each(named.STOPS))
        self._shadow = registry.counter(named.SHADOW)
        self._shadow_dropped = registry.counter(named.SHADOW_DROPPED, *_each(named.SHADOW_DROPS))
        self._load_s = registry.histogram(named.LOAD_SECONDS)

    def __call__(self, event: AdapterEvent) -> None:
        """Count it."""
        match event:
            case Serving(split):
                self._begin_series(split)
            case Swapped():
                self._swaps(1, "swapped")
            case Loaded(seconds):
                self._load_s([seconds])
            case Refused(role=role, reason=reason):
                self._refusals(1, reason)
                if role == MAIN.name:
                    self._swaps(1, "refused")
            case Stopped(reason=reason):
                self._stops(1, reason)

    def _begin_series(self, split: TrafficSplit) -> None:
        """Begin the series of new adapters at 0; drop those of adapters that served long ago."""
        for serving in split.adapters:
            adapter = serving.digest[:DIGEST_CHARS]
            self._known.pop(adapter, None)
            self._known[adapter] = None
            # From 0, so that a rate over the first minutes sees the first increase.
            for label in serving.manifest.taxonomy.names:
                for agrees in named.AGREES:
                    self._registry.begin(named.SHADOW, label, agrees)
                self._registry.begin(named.LABELS, label, adapter)
            for outcome in named.OUTCOMES:
                self._registry.begin(named.ADAPTER_RECORDS, adapter, outcome)
            self._registry.begin(named.ADAPTER_CONFIDENCE, adapter)
            self._registry.begin(named.ADAPTER_OFF_LABEL_MASS, adapter)
            for at in range(len(serving.manifest.stages)):
                for metric in (named.STAGE_RECORDS, named.STAGE_SECONDS, named.STAGE_DISAGREEMENTS):
                    self._registry.begin(metric, adapter, str(at + 1))
        while len(self._known) > KEPT:
            oldest = next(iter(self._known))
            del self._known[oldest]
            self._registry.forget("adapter", oldest)

    def published(self, batch: Sequence[CompletedRecord]) -> None:
        """Count each record for the adapter that it was accepted with."""
        by_adapter: dict[ServingAdapter, list[Outcome]] = {}
        for completed in batch:
            by_adapter.setdefault(completed.adapter, []).append(completed.outcome)
            for shadow in completed.shadows:
                self._compare(shadow, completed.outcome)
        for adapter, outcomes in by_adapter.items():
            self._count(adapter.digest[:DIGEST_CHARS], outcomes)
            if adapter.manifest.stages:
                self._count_stages(adapter.digest[:DIGEST_CHARS], outcomes)

    def _count_stages(self, adapter: str, outcomes: Sequence[Outcome]) -> None:
        labelled = [each for each in outcomes if isinstance(each, Classified)]
        answered = Counter(len(each.decision.earlier) + 1 for each in labelled)
        differing = Counter(
            len(each.decision.earlier) + 1
            for each in labelled
            if any(other.label != each.decision.label for other in each.decision.earlier)
        )
        for stage, count in answered.items():
            self._stage_records(count, adapter, str(stage))
        for stage, count in differing.items():
            self._disagreements(count, adapter, str(stage))
        for at in range(max(answered, default=0)):
            seconds = [each.timing.stages_s for each in labelled]
            self._stage_s([each[at] for each in seconds if at < len(each)], adapter, str(at + 1))

    def _count(self, adapter: str, outcomes: Sequence[Outcome]) -> None:
        decisions = [each.decision for each in outcomes if isinstance(each, Classified)]
        masses = [decision.off_label_mass for decision in decisions]
        self._confidence([decision.confidence for decision in decisions], adapter)
        self._off_label_mass([mass for mass in masses if mass is not None], adapter)
        for label, count in Counter(decision.label for decision in decisions).items():
            self._labels(count, label, adapter)
        ended = Counter(each.kind for each in outcomes if not isinstance(each, Postponed))
        for kind, count in ended.items():
            self._records(count, adapter, kind)

    def _compare(self, shadow: ShadowRequest, outcome: Outcome) -> None:
        if shadow.dropped is not None:
            self._shadow_dropped(1, shadow.dropped)
        elif shadow.result is not None and isinstance(outcome, Classified):
            label = outcome.decision.label
            self._shadow(1, label, "yes" if shadow.result.decision.label == label else "no")


def adapter_samples(router: AdapterRouter, events: AdapterEvents) -> Iterator[MetricSample]:
    """Yield the adapters that serve now, and those refused or stopped."""
    split = router.split
    manifest = split.main.manifest
    yield (
        named.ADAPTER_INFO,
        [((manifest.name, manifest.digest[:DIGEST_CHARS], manifest.taxonomy.version), 1)],
    )
    yield (
        named.STAGE_EXPECTED,
        [
            ((adapter.digest[:DIGEST_CHARS], str(at)), stage.share)
            for adapter in split.adapters
            for at, stage in enumerate(adapter.manifest.stages, 1)
        ],
    )
    yield (
        named.ADAPTER_TRAFFIC,
        [
            ((arm.adapter.digest[:DIGEST_CHARS], arm.role.name), ratio)
            for arm, ratio in zip(split.arms, split.ratios, strict=True)
        ],
    )
    refused = [((role,), float(role in events.refused)) for role in named.ROLES]
    yield named.ADAPTER_REFUSED, refused
    yield named.CANARY_STOPPED, [((), float(bool(events.stopped)))]
    since = events.store_away_since
    yield named.STORE_AWAY, [((), 0.0 if since is None else time.monotonic() - since)]
