"""The loop's events as metrics, and its state, read when the metrics page is requested."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from worker.contract.records.retry import RETRY_REASONS
from worker.core.assignment import CompletedRecord
from worker.core.events import (
    LoopEvent,
    PressureChanged,
    Published,
    Rebalanced,
    TransactionEnded,
)
from worker.core.state import LoopState
from worker.observe import metrics as named
from worker.observe.adapters import AdapterMetrics
from worker.observe.registry import MetricSample, Registry
from worker.records.types import Classified, Postponed, Rejected, TopicPartition


class MetricsListener:
    """A listener of the loop. ``clock`` is the loop's, ``wall`` gives Unix seconds."""

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
        """Count each record by its outcome, and observe where its time went.

        What is tried again later has not ended: it is counted apart, and again when it has.
        """
        now, wall = self._clock(), self._wall()
        self._adapters.published(batch)
        ended = [each for each in batch if not isinstance(each.outcome, Postponed)]
        self._commit_wait([max(0.0, now - each.finished_at) for each in ended])
        sent_ms = [each.record.timestamp_ms for each in ended]
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
    """Yield the loop's state at this moment: ``now`` by its own clock, ``wall`` in Unix seconds.

    ``lag`` and ``oldest_ms`` are the stream's.
    """
    yield named.IN_FLIGHT, [((), state.in_flight_records)]
    yield named.IN_FLIGHT_BYTES, [((), state.in_flight_bytes)]
    yield named.IN_ENGINE, [((), state.in_engine_records)]
    yield named.ENGINE_WINDOW, [((), state.engine_window)]
    yield named.WATERMARK_GAP, _by_partition(state.waiting)
    yield named.ASSIGNED, [((), len(state.waiting))]
    yield named.PAUSED, [((), state.paused_partitions)]
    away_s = 0.0 if state.outage_since is None else max(0.0, now - state.outage_since)
    yield named.OUTAGE, [((), away_s)]
    if state.polled_at is not None:
        yield named.LAST_POLL, [((), wall - max(0.0, now - state.polled_at))]
    topic = state.retry_topic
    yield named.LAG, _by_partition({at: count for at, count in lag.items() if at.topic != topic})
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
