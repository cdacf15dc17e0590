"""The loop's events as log lines, without message text."""

from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from tests.support.rig import Clock, toy_completed, toy_record
from worker.contract import Decision
from worker.core.assignment import CompletedRecord
from worker.core.events import PressureChanged, Published, PublishFailed, Rebalanced
from worker.errors import PublishAborted
from worker.observe import progress
from worker.observe.progress import LogListener
from worker.records.types import Classified, Outcome, Rejected, Timing, TopicPartition

SECRET = b"my card is 4111"


@pytest.fixture(autouse=True)
def fresh_logger(monkeypatch: pytest.MonkeyPatch) -> None:
    """A logger that no earlier test has configured and cached."""
    monkeypatch.setattr(progress, "_log", structlog.wrap_logger(None, []))
    monkeypatch.setattr(progress, "_log", structlog.get_logger("worker.loop"))


def label(*review: Any) -> Outcome:
    return Classified(Decision("a", 1.0, {"a": 1.0}, 0.0), None, False, review, Timing(0, 0))


def finished(*outcomes: Outcome) -> list[CompletedRecord]:
    return [
        toy_completed(toy_record(SECRET, offset=i), outcome) for i, outcome in enumerate(outcomes)
    ]


def test_a_summary_is_written_at_intervals_with_the_rate_since_the_last() -> None:
    clock = Clock()
    listener = LogListener(clock)
    with capture_logs() as logs:
        for _ in range(20):
            clock.advance(1.0)
            listener(Published(finished(label(), label("low_confidence")), 0.001))
    lines = [line for line in logs if line["event"] == "worker.progress"]
    assert [(line["output"], line["review"], line["records_per_s"]) for line in lines] == [
        (10, 10, 2.0),
        (20, 20, 2.0),
    ]


def test_each_rejected_record_is_logged_by_its_place_and_reason() -> None:
    listener = LogListener(Clock())
    with capture_logs() as logs:
        listener(Published(finished(Rejected("not_json", "decode", "at character 0")), 0.1))
    assert logs[0] == {
        "event": "record.rejected",
        "id": "in-3-0",
        "reason": "not_json",
        "stage": "decode",
        "detail": "at character 0",
        "log_level": "info",
    }


def test_a_rejected_record_is_logged_with_its_trace() -> None:
    """A header that is not one is not logged: it may hold anything."""
    good, bad = b"00-" + b"ab" * 16 + b"-" + b"cd" * 8 + b"-01", b"00-my password"
    listener = LogListener(Clock())
    rejected = Rejected("not_json", "decode", "at character 0")
    records = [
        toy_completed(toy_record(SECRET, offset=at, headers=(("traceparent", given),)), rejected)
        for at, given in enumerate((good, bad))
    ]
    with capture_logs() as logs:
        listener(Published(records, 0.1))
    assert [line.get("trace_id") for line in logs if "id" in line] == ["ab" * 16, None]


def test_no_line_holds_a_messages_text() -> None:
    listener = LogListener(Clock(tick=progress.INTERVAL_S))
    with capture_logs() as logs:
        listener(Published(finished(label(), Rejected("empty_message", "decode", "")), 0.1))
        listener(PublishFailed(2, 1, PublishAborted("broker away")))
        listener(Rebalanced("assigned", [TopicPartition("in", 0)], 0))
        listener(PressureChanged("paused", 256, 1000))
    assert len(logs) == 6
    for secret in ("4111", "customer-7", "trace"):
        assert secret not in repr(logs)
