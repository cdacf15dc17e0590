"""Traces, as a collector receives them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support.collector import Collector, attributes
from tests.support.rig import toy_completed, toy_record
from tests.unit.observe.conftest import label, rejected
from worker.contract.records import Headers
from worker.core.assignment import CompletedRecord
from worker.core.events import Publishing, TransactionEnded
from worker.core.publisher import TopicRouter
from worker.errors import SettingsError
from worker.observe.tracing import Tracing, start_tracing
from worker.records.types import Outcome

pytestmark = pytest.mark.slow

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{TRACE}-{PARENT}-01".encode()
SECRET = b"my card is 4111"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    yield made
    made.close()


@pytest.fixture
def tracing(collector: Collector) -> Tracing:
    return start_tracing(
        topic="in",
        group="clerks",
        max_links=500,
        server="kafka-1:9093,kafka-2:9093",
        client_id="filing-clerk",
    )


def finished(*given: tuple[Outcome, Headers]) -> list[CompletedRecord]:
    """Records fetched two seconds ago and answered one second ago."""
    now = time.monotonic()
    return [
        toy_completed(
            toy_record(SECRET, offset=n, headers=headers), outcome, False, now - 2, now - 1
        )
        for n, (outcome, headers) in enumerate(given)
    ]


def headers(context: bytes = CONTEXT) -> Headers:
    return (("trace", b"\xff"), ("traceparent", context), ("tracestate", b"shop=1"))


def sent(tracing: Tracing, collector: Collector) -> Collector:
    tracing.close()
    return collector


def test_a_published_batch_is_a_span_linked_to_its_messages(
    tracing: Tracing, collector: Collector
) -> None:
    batch = finished((label(), headers()), (label(), ()), (rejected(), headers()))
    tracing(Publishing(batch))
    tracing(TransactionEnded("committed", 0.1))
    [span] = sent(tracing, collector).named("process in")
    assert span.kind == Span.SPAN_KIND_CONSUMER
    assert not span.parent_span_id
    assert attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "in",
        "messaging.consumer.group.name": "clerks",
        "messaging.client.id": "filing-clerk",
        "server.address": "kafka-1",
        "server.port": 9093,
        "messaging.batch.message_count": 3,
    }
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [
        (TRACE, PARENT)
    ] * 2
    assert [attributes(link)["messaging.kafka.offset"] for link in span.links] == [0, 2]
    assert attributes(span.links[0])["messaging.destination.partition.id"] == "3"
    assert (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9 == pytest.approx(2, abs=0.5)
    assert span.end_time_unix_nano / 1e9 == pytest.approx(time.time(), abs=10)
    assert span.status.code == 0


def test_a_message_with_a_context_has_its_span_in_the_senders_trace(
    tracing: Tracing, collector: Collector
) -> None:
    tracing(Publishing(finished((label("billing", "low_confidence"), headers()), (label(), ()))))
    tracing(TransactionEnded("committed", 0.1))
    [batch] = sent(tracing, collector).named("process in")
    [span] = collector.named("label in")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert [link.span_id for link in span.links] == [bytes.fromhex(PARENT), batch.span_id]
    assert attributes(span) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "label",
        "messaging.destination.name": "in",
        "messaging.destination.partition.id": "3",
        "messaging.consumer.group.name": "clerks",
        "messaging.client.id": "filing-clerk",
        "server.address": "kafka-1",
        "server.port": 9093,
        "messaging.kafka.offset": 0,
        "messaging.message.body.size": len(SECRET),
        "clerk.label": "billing",
        "clerk.outcome": "review",
    }
    times = [(event.name, event.time_unix_nano) for event in span.events]
    assert [name for name, _ in times] == ["submitted", "answered"]
    assert (times[1][1] - times[0][1]) / 1e9 == pytest.approx(0.5, abs=0.01)
    assert (times[1][1] - span.start_time_unix_nano) / 1e9 == pytest.approx(1.0, abs=0.01)


def test_an_output_carries_the_context_of_its_messages_span(
    tracing: Tracing, collector: Collector
) -> None:
    [completed] = finished((label(), headers()))
    tracing(Publishing([completed]))
    carried = tracing.propagate_headers(completed)
    tracing(TransactionEnded("committed", 0.1))
    [span] = sent(tracing, collector).named("label in")
    assert carried == (
        ("trace", b"\xff"),
        ("traceparent", f"00-{TRACE}-{span.span_id.hex()}-01".encode()),
        ("tracestate", b"shop=1"),
    )


@pytest.mark.parametrize(
    "given",
    [
        (),
        (("traceparent", b"nonsense"),),
        (("traceparent", None),),
        (("traceparent", b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"),),
        (("traceparent", b"\xff\xfe"), ("tracestate", b"\xff")),
    ],
)
def test_a_message_without_a_context_goes_on_in_the_batchs_trace(
    tracing: Tracing, collector: Collector, given: Headers
) -> None:
    """Also with an invalid context."""
    [completed] = finished((label(), given))
    tracing(Publishing([completed]))
    carried = tracing.propagate_headers(completed)
    tracing(TransactionEnded("committed", 0.1))
    [span] = sent(tracing, collector).spans
    assert span.name == "process in"
    assert not span.links
    [(name, value)] = carried
    assert name == "traceparent"
    assert value is not None
    ids = f"00-{span.trace_id.hex()}-{span.span_id.hex()}"
    assert re.fullmatch(rf"{ids}-0[13]", value.decode())  # sampled, by random numbers or not


def test_what_the_sender_does_not_sample_has_no_span(
    tracing: Tracing, collector: Collector
) -> None:
    [completed] = finished((label(), headers(CONTEXT[:-2] + b"00")))
    tracing(Publishing([completed]))
    carried = dict(tracing.propagate_headers(completed))
    tracing(TransactionEnded("committed", 0.1))
    assert sent(tracing, collector).named("label in") == []
    assert re.fullmatch(rf"00-{TRACE}-[0-9a-f]{{16}}-00", (carried["traceparent"] or b"").decode())


def test_an_aborted_attempt_is_an_error_and_its_messages_are_traced_once(
    tracing: Tracing, collector: Collector
) -> None:
    """Nobody can have seen the spans named in its outputs."""
    batch = finished((label(), headers()))
    tracing(Publishing(batch))
    tracing(TransactionEnded("aborted", 0.1))
    tracing(Publishing(batch))
    carried = dict(tracing.propagate_headers(batch[0]))
    tracing(TransactionEnded("committed", 0.1))
    first, second = sent(tracing, collector).named("process in")
    assert attributes(first)["error.type"] == "aborted"
    assert (first.status.code, second.status.code) == (2, 0)
    [span] = collector.named("label in")
    assert span.span_id.hex() in (carried["traceparent"] or b"").decode()


def test_no_span_holds_anything_a_customer_wrote(tracing: Tracing, collector: Collector) -> None:
    batch = finished((label(), headers()), (rejected(), headers()))
    tracing(Publishing(batch))
    tracing(TransactionEnded("committed", 0.1))
    everything = b"".join(call.SerializeToString() for call in sent(tracing, collector).requests)
    assert b"label in" in everything
    for secret in (b"4111", b"customer-7"):
        assert secret not in everything


def test_a_large_batch_keeps_all_its_links(tracing: Tracing, collector: Collector) -> None:
    """OpenTelemetry's default limit is 128."""
    tracing(Publishing(finished(*[(label(), headers())] * 500)))
    tracing(TransactionEnded("committed", 0.1))
    [span] = sent(tracing, collector).named("process in")
    assert len(span.links) == 500


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "smoke-signals"),
        ("OTEL_SPAN_EVENT_COUNT_LIMIT", "-3"),
    ],
)
def test_an_invalid_variable_is_one_line(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"^tracing: invalid OTEL_\* variable: .*") as error:
        start_tracing(topic="in", group="clerks", max_links=1)
    assert "\n" not in str(error.value)


def test_an_unavailable_collector_delays_the_end_by_seconds_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    deaf = Collector(answers=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", deaf.url)
    monkeypatch.setattr("worker.observe.tracing._CLOSE_S", 0.5)
    tracing = start_tracing(topic="in", group="clerks", max_links=1)
    tracing(Publishing(finished((label(), ()))))
    tracing(TransactionEnded("committed", 0.1))
    started = time.monotonic()
    tracing.close()
    assert time.monotonic() - started < 5


def test_without_opentelemetry_it_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [module for module in sys.modules if module.partition(".")[0] == "opentelemetry"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "worker.observe.tracing")
    with pytest.raises(SettingsError, match=r"pip install -e '\.\[tracing\]'"):
        import worker.observe.tracing  # noqa: F401


def test_dead_letters_keep_their_headers_and_outputs_get_theirs() -> None:
    topic_router = TopicRouter(
        "out",
        "review",
        propagate_headers=lambda completed: (("traceparent", completed.record.id.encode()),),
    )
    good, bad = finished((label(), headers()), (rejected(), headers()))
    when = datetime.now(UTC)
    output, dead_letter = topic_router.route(good, when), topic_router.route(bad, when)
    assert output is not None
    assert output.headers == (("traceparent", b"in-3-0"),)
    assert dead_letter is not None
    assert dead_letter.headers[:3] == headers()
