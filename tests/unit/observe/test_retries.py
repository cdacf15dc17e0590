"""Messages on the retry topic are counted separately until they end."""

import pytest
import structlog

from tests.support.rig import Clock, default_adapter
from tests.unit.observe.conftest import Scrape, finished, label
from worker.contract.records.headers import RETRY_REASONS
from worker.core.arms import TrafficSplit
from worker.core.events import Published
from worker.core.loop import LoopState
from worker.lifecycle.events import Serving
from worker.observe.listener import AdapterMetrics, MetricsListener, loop_samples
from worker.observe.metrics import OUTCOMES
from worker.observe.progress import LogListener
from worker.observe.registry import Registry
from worker.records.types import Postponed, Rejected, TopicPartition

POSTPONED = Postponed(Rejected("deadline_exceeded", "engine", "no answer within 60 s", 1), 2)
IN, RETRY = TopicPartition("in", 0), TopicPartition("retry", 3)


@pytest.fixture
def listener(registry: Registry) -> MetricsListener:
    adapters = AdapterMetrics(registry)
    adapters(Serving(TrafficSplit.all_to(default_adapter())))
    return MetricsListener(registry, adapters, Clock(1002.0), lambda: 1_700_000_010.0)


def test_they_are_counted_by_reason_and_in_no_other_count(
    registry: Registry, listener: MetricsListener, adapter: str
) -> None:
    page = Scrape(registry.page())
    assert [page("clerk_retried_records_total", reason=reason) for reason in RETRY_REASONS] == [
        0,
        0,
    ]
    listener(Published(finished(POSTPONED, POSTPONED, label()), 0.1))
    page = Scrape(registry.page())
    assert page("clerk_retried_records_total", reason="deadline_exceeded") == 2
    assert sum(page("clerk_records_total", outcome=outcome) or 0 for outcome in OUTCOMES) == 1
    by_adapter = (
        page("clerk_adapter_records_total", adapter=adapter, outcome=outcome) or 0
        for outcome in OUTCOMES
    )
    assert sum(by_adapter) == 1
    assert page("clerk_dead_letters_total", reason="deadline_exceeded") == 0
    assert page("clerk_end_to_end_seconds_count") == 1


def test_what_waits_is_no_lag(registry: Registry) -> None:
    """More workers would not help, so alerts and autoscaling by lag ignore it."""
    lag = {IN: 5, RETRY: 7}
    waits = LoopState(1.0, True, False, 0, 0, 0, 256, 0, {}, 0, 0.0,
                      retry_topic="retry", retry_due_ms=1_800_000_000_500)  # fmt: skip
    registry.at_scrape(lambda: loop_samples(waits, lag, {RETRY: 0}, 1.0, 1.0))
    page = Scrape(registry.page())
    assert page("clerk_consumer_lag_records", topic="in", partition="0") == 5
    assert page("clerk_consumer_lag_records", topic="retry", partition="3") is None
    assert page("clerk_consumer_lag_seconds", topic="retry", partition="3") is None
    assert page("clerk_retry_waiting_records", topic="retry", partition="3") == 7
    assert page("clerk_retry_due_timestamp_seconds") == 1_800_000_000.5


def test_each_is_logged_by_its_id_and_without_its_text() -> None:
    with structlog.testing.capture_logs() as logs:
        LogListener(Clock())(Published(finished(POSTPONED, value=b"my own words"), 0.1))
    (line,) = [log for log in logs if log["event"] == "record.postponed"]
    assert (line["id"], line["reason"], line["attempt"]) == ("in-3-0", "deadline_exceeded", 2)
    assert "my own words" not in str(logs)
