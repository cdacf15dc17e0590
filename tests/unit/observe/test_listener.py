"""The loop's events on the metrics page."""

from dataclasses import replace

import pytest
from prometheus_client import REGISTRY, Counter

from tests.support.rig import Clock, default_adapter, make_loop_policy, started
from tests.support.toy_adapter import cascade_of, small_manifest, toy_manifest, toy_serving_adapter
from tests.unit.observe.conftest import Scrape, finished, label, rejected
from worker.contract import Decision
from worker.core.arms import TrafficSplit
from worker.core.events import (
    PressureChanged,
    Published,
    PublishFailed,
    Publishing,
    Rebalanced,
    TransactionEnded,
)
from worker.core.loop import LoopState
from worker.errors import PublishAborted
from worker.lifecycle.events import Serving
from worker.observe.listener import AdapterMetrics, MetricsListener, loop_samples
from worker.observe.metrics import METRICS, OUTCOMES, REASONS
from worker.observe.registry import Registry
from worker.records.types import Classified, Timing, Tombstone, TopicPartition

WALL = 1_700_000_010.123  # ten seconds after the toy record's timestamp


@pytest.fixture
def listener(registry: Registry) -> MetricsListener:
    adapters = AdapterMetrics(registry)
    adapters(Serving(TrafficSplit.all_to(default_adapter())))
    return MetricsListener(registry, adapters, Clock(1002.0), lambda: WALL)


def scrape(registry: Registry) -> Scrape:
    return Scrape(registry.page())


@pytest.mark.usefixtures("listener")
def test_counters_begin_at_zero_for_all_that_can_be_known(registry: Registry, adapter: str) -> None:
    """The first dead letter must be an increase, not a new series."""
    page = scrape(registry)
    for outcome in OUTCOMES:
        assert page("clerk_records_total", outcome=outcome) == 0
    for reason in REASONS:
        assert page("clerk_dead_letters_total", reason=reason) == 0
    for name in small_manifest().taxonomy.names:
        assert page("clerk_labels_total", label=name, adapter=adapter) == 0
    for result in ("committed", "aborted", "unknown"):
        assert page("clerk_transactions_total", result=result) == 0
    for kind in ("assigned", "revoked", "lost"):
        assert page("clerk_rebalances_total", kind=kind) == 0
    for kind in ("paused", "resumed"):
        assert page("clerk_backpressure_events_total", kind=kind) == 0


def test_every_record_is_counted_where_it_ended(
    registry: Registry, listener: MetricsListener, adapter: str
) -> None:
    batch = finished(
        label("billing"),
        label("billing", "low_confidence", truncated=True),
        label("other"),
        rejected("not_json"),
        rejected("tombstone"),
        rejected("not_json"),
    )
    listener(Published(batch, 0.1))
    passed, skipped = Tombstone(forwarded=True), Tombstone(forwarded=False)
    listener(Published(finished(label("other"), skipped, passed, skipped), 0.1))
    page = scrape(registry)
    found = {outcome: page("clerk_records_total", outcome=outcome) for outcome in OUTCOMES}
    assert found == {"output": 3, "review": 1, "dead_letter": 3, "skipped": 2, "forwarded": 1}
    assert page("clerk_labels_total", label="billing", adapter=adapter) == 2
    assert page("clerk_labels_total", label="other", adapter=adapter) == 2
    assert page("clerk_dead_letters_total", reason="not_json") == 2
    assert page("clerk_dead_letters_total", reason="tombstone") == 1
    assert page("clerk_truncated_messages_total") == 1


def test_durations_are_observed(registry: Registry, listener: MetricsListener) -> None:
    listener(Published(finished(label(), rejected(), at=1000.0), 0.1))
    page = scrape(registry)
    assert page("clerk_end_to_end_seconds_count") == 2
    assert page("clerk_end_to_end_seconds_sum") == pytest.approx(20.0)
    assert page("clerk_queue_seconds_sum") == 0.25
    assert page("clerk_engine_seconds_sum") == 0.5
    assert page("clerk_engine_seconds_count") == 1
    assert page("clerk_commit_wait_seconds_sum") == pytest.approx(4.0)


def test_transactions_rebalances_and_pauses_are_counted(
    registry: Registry, listener: MetricsListener
) -> None:
    listener(Publishing(finished(label())))
    listener(TransactionEnded("aborted", 2.0))
    listener(PublishFailed(1, 1, PublishAborted("away")))
    listener(TransactionEnded("committed", 1.0))
    listener(Rebalanced("assigned", [TopicPartition("in", 0)], 0))
    listener(Rebalanced("revoked", [TopicPartition("in", 0)], 7))
    listener(PressureChanged("paused", 256, 1000))
    page = scrape(registry)
    assert page("clerk_transactions_total", result="aborted") == 1
    assert page("clerk_transactions_total", result="committed") == 1
    assert page("clerk_transaction_seconds_sum") == 3.0
    assert page("clerk_rebalances_total", kind="revoked") == 1
    assert page("clerk_dropped_records_total") == 7
    assert page("clerk_backpressure_events_total", kind="paused") == 1
    assert page("clerk_backpressure_events_total", kind="resumed") == 0


def test_the_state_of_the_loop_is_read_when_the_page_is(registry: Registry) -> None:
    rig = started("m0", "m1", partitions=2, policy=make_loop_policy(revoke_drain_s=0))
    registry.at_scrape(
        lambda: loop_samples(rig.loop.state, rig.stream.lag(), {}, rig.clock.now, WALL)
    )
    rig.answer("m1")
    rig.clock.advance(4.0)
    page = scrape(registry)
    assert page("clerk_in_flight_records") == 2
    assert page("clerk_in_flight_bytes") == 4
    assert page("clerk_in_engine_records") == 1
    assert page("clerk_assigned_partitions") == 2
    assert page("clerk_paused_partitions") == 0
    assert page("clerk_last_poll_timestamp_seconds") == WALL - 4.0
    assert page("clerk_watermark_gap_records", topic="in", partition="0") == 1
    assert page("clerk_consumer_lag_records", topic="in", partition="0") == 2
    assert page("clerk_consumer_lag_records", topic="in", partition="1") == 0
    assert page("clerk_prompt_tokens_total") == rig.loop.state.prompt_tokens > 0
    assert page("clerk_engine_busy_seconds_total") == 5.0
    rig.stream.revoke(0)
    page = scrape(registry)
    assert page("clerk_watermark_gap_records", topic="in", partition="0") is None
    assert page("clerk_consumer_lag_records", topic="in", partition="0") is None
    assert page("clerk_watermark_gap_records", topic="in", partition="1") == 0
    assert page("clerk_assigned_partitions") == 1


def test_the_lag_in_seconds_is_the_age_of_the_oldest_message_that_waits(
    registry: Registry,
) -> None:
    lag = {TopicPartition("in", number): count for number, count in enumerate((3, 0, 2, 1))}
    at_ms = int(WALL * 1000)
    oldest = {TopicPartition("in", 0): at_ms - 2500, TopicPartition("in", 3): at_ms + 9}
    state = LoopState(1.0, True, False, 0, 0, 0, 256, 0, {}, 0, 0.0)
    registry.at_scrape(lambda: loop_samples(state, lag, oldest, 5.0, WALL))
    page = scrape(registry)
    found = [page("clerk_consumer_lag_seconds", topic="in", partition=str(n)) for n in range(4)]
    assert found == [2.5, 0, None, 0]


def test_only_vllms_own_metrics_are_on_the_page_too(registry: Registry) -> None:
    mine = Counter("vllm:toy_requests", "x", ["model_name"], registry=REGISTRY)
    other = Counter("somebody_elses", "x", registry=REGISTRY)
    try:
        mine.labels("m").inc(3)
        other.inc()
        page = scrape(registry)
        assert page("vllm:toy_requests_total", model_name="m") == 3
        assert "somebody_elses" not in registry.page().decode()
        assert "python_info" not in registry.page().decode()
    finally:
        REGISTRY.unregister(mine)
        REGISTRY.unregister(other)


def test_the_page_holds_nothing_of_a_message(registry: Registry, listener: MetricsListener) -> None:
    batch = finished(label(), rejected(), value=b"my card is 4111")
    listener(Published(batch, 0.1))
    text = registry.page().decode()
    for secret in ("4111", "customer-7", "trace"):
        assert secret not in text


def test_a_cascade_is_counted_by_stage(registry: Registry) -> None:
    manifest = cascade_of(small_manifest(), toy_manifest(name="large"))
    cascade = toy_serving_adapter(manifest=manifest)
    adapters = AdapterMetrics(registry)
    adapters(Serving(TrafficSplit.all_to(cascade)))
    adapters(Serving(TrafficSplit.all_to(default_adapter())))
    digest = manifest.digest[:12]

    def answered(*thought: str, seconds: tuple[float, ...]) -> Classified:
        earlier = tuple(Decision(name, 0.5, {name: 0.5}, None) for name in thought)
        decision = Decision("billing", 0.9, {"billing": 0.9}, None, None, earlier)
        return Classified(decision, None, False, (), Timing(0.0, 1.0, seconds))

    page = scrape(registry)
    assert page("clerk_stage_records_total", adapter=digest, stage="1") == 0
    batch = finished(
        answered(seconds=(0.01,)),
        answered("billing", seconds=(0.01, 0.5)),
        answered("other", seconds=(0.01, 0.5)),
        rejected("invalid_answer"),
    )
    adapters.published([replace(each, adapter=cascade) for each in batch])
    adapters.published(finished(label("billing")))
    page = scrape(registry)
    assert page("clerk_stage_records_total", adapter=digest, stage="1") == 1
    assert page("clerk_stage_records_total", adapter=digest, stage="2") == 2
    assert page("clerk_stage_disagreements_total", adapter=digest, stage="2") == 1
    assert page("clerk_stage_seconds_count", adapter=digest, stage="1") == 3
    assert page("clerk_stage_seconds_sum", adapter=digest, stage="2") == pytest.approx(1.0)
    assert default_adapter().digest[:12] not in {
        dict(labels).get("adapter")
        for name, labels in page.series
        if name.startswith("clerk_stage")
    }


def test_no_metric_has_a_label_that_is_not_bounded(
    registry: Registry, listener: MetricsListener
) -> None:
    listener(Published(finished(label(), rejected()), 0.1))
    before = len(scrape(registry).series)
    for number in range(1000):
        listener(Published(finished(label(), rejected(), key=b"%d" % number), 0.1))
    assert len(scrape(registry).series) == before
    allowed = {
        "outcome", "label", "adapter", "reason", "topic", "partition", "kind", "result", "signal",
        "version", "python_version", "delivery", "serving", "base", "name",
        "taxonomy_version", "role", "agrees", "stage",
    }  # fmt: skip
    assert {label for metric in METRICS for label in metric.label_names} == allowed
