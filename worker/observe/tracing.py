"""OpenTelemetry traces. Imported only if tracing is enabled; no other file imports OpenTelemetry.

Spans follow the semantic conventions for messaging, version 1.44.0 (then in development):
https://opentelemetry.io/docs/specs/semconv/messaging/kafka/. The attribute names are written out
here, because each release of the conventions' package may rename them.

- ``process <topic>``: one span for each attempt to publish a batch, in its own trace, from the
  fetch of its oldest record to the commit, with a link to each message's context.
- ``label <topic>``: one span for each message with a trace context, as its child, so that a
  ticket's trace shows the worker's part. Messages without a context have no span: those would be
  thousands of traces of one span each.

An output record carries the context of its message's span, or otherwise of its batch's. A span has
a message's position, size and label, and nothing else of it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping, Sequence

from worker import __version__
from worker.contract.records import Headers
from worker.core.assignment import CompletedRecord
from worker.core.events import LoopEvent, Publishing, TransactionEnded, TransactionResult
from worker.errors import SettingsError
from worker.records.types import Classified, Postponed, Rejected

try:
    from opentelemetry import trace
    from opentelemetry.context import Context
    from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise SettingsError(
        "tracing.enabled is true, but OpenTelemetry is not installed: "
        "in the checkout, pip install -e '.[tracing]', or set tracing.enabled = false"
    ) from error

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"

_CONTEXT = frozenset({"traceparent", "tracestate"})
_CLOSE_S = 5.0
_ROOT = Context()


class Tracing:
    """A listener of the loop; ``propagate_headers`` returns an output's headers."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        topic: str,
        group: str,
        server: str = "",
        client_id: str = "",
    ) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("filing-clerk", __version__, schema_url=SCHEMA_URL)
        self._propagator = TraceContextTextMapPropagator()
        self._topic = topic
        self._common = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.destination.name": topic,
            "messaging.consumer.group.name": group,
            **_known("messaging.client.id", client_id),
            **_server(server),
        }
        self._batch: trace.Span = trace.INVALID_SPAN
        self._spans: dict[str, tuple[trace.Span, CompletedRecord]] = {}
        self._zero_ns = 0

    def __call__(self, event: LoopEvent) -> None:
        """Begin the spans of a batch, or end them."""
        match event:
            case Publishing(batch):
                self._begin_batch(batch)
            case TransactionEnded(result):
                self._end_batch(result)

    def _begin_batch(self, batch: Sequence[CompletedRecord]) -> None:
        """Begin the batch's span, and a span for each message with a context."""
        self._zero_ns = time.time_ns() - int(time.monotonic() * 1e9)
        contexts = [self._context(completed.record.headers) for completed in batch]
        self._batch = self._tracer.start_span(
            f"process {self._topic}",
            _ROOT,
            trace.SpanKind.CONSUMER,
            {
                **self._common,
                "messaging.operation.name": "process",
                "messaging.batch.message_count": len(batch),
            },
            [
                trace.Link(context, _position(completed))
                for completed, context in zip(batch, contexts, strict=True)
                if context is not None
            ],
            self._ns(min(completed.fetched_at for completed in batch)),
        )
        self._batch.add_event("publish")
        self._spans = {
            completed.record.id: (self._begin(completed, context), completed)
            for completed, context in zip(batch, contexts, strict=True)
            if context is not None
        }

    def propagate_headers(self, finished: CompletedRecord) -> Headers:
        """Return the record's headers with its span's context instead of the sender's."""
        span, _ = self._spans.get(finished.record.id, (self._batch, finished))
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, trace.set_span_in_context(span, _ROOT))
        kept = tuple(header for header in finished.record.headers if header[0] not in _CONTEXT)
        return kept + tuple((name, value.encode()) for name, value in carrier.items())

    def _end_batch(self, result: TransactionResult) -> None:
        """End the spans. After an abort the messages' spans are dropped: they are retried."""
        failed = None if result == "committed" else result
        # After an unknown outcome the outputs may have been seen, so their spans must exist.
        if result != "aborted":
            for span, finished in self._spans.values():
                self._end(span, finished, failed)
        _fail(self._batch, failed)
        self._batch.end()
        self._batch, self._spans = trace.INVALID_SPAN, {}

    def close(self) -> None:
        """Export the remaining spans, with a limit of seconds: the collector may be down."""
        sender = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        sender.start()
        sender.join(_CLOSE_S)

    def _begin(self, finished: CompletedRecord, context: trace.SpanContext) -> trace.Span:
        record = finished.record
        attributes: dict[str, str | int | bool] = {
            **self._common,
            **_position(finished),
            "messaging.operation.name": "label",
            "messaging.destination.name": record.source.topic,
            "messaging.message.body.size": len(record.value or b""),
        }
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        return self._tracer.start_span(
            f"label {finished.record.source.topic}",
            trace.set_span_in_context(trace.NonRecordingSpan(context), _ROOT),
            trace.SpanKind.CONSUMER,
            attributes,
            [trace.Link(context), trace.Link(self._batch.get_span_context())],
            self._ns(finished.fetched_at),
        )

    def _end(self, span: trace.Span, finished: CompletedRecord, failed: str | None) -> None:
        outcome = finished.outcome
        span.set_attribute("clerk.outcome", outcome.kind)
        if isinstance(outcome, Classified):
            submitted_at = finished.finished_at - outcome.timing.engine_s
            span.add_event("submitted", timestamp=self._ns(submitted_at))
            span.set_attribute("clerk.label", outcome.decision.label)
        elif isinstance(outcome, Rejected):
            _fail(span, outcome.reason)
        elif isinstance(outcome, Postponed):
            _fail(span, outcome.rejected.reason)
        span.add_event("answered", timestamp=self._ns(finished.finished_at))
        _fail(span, failed)
        span.end()

    def _context(self, headers: Headers) -> trace.SpanContext | None:
        # latin-1 decodes any bytes; the propagator rejects what is not a context.
        carrier = {
            name: (value or b"").decode("latin-1") for name, value in headers if name in _CONTEXT
        }
        if not carrier:
            return None
        found = trace.get_current_span(self._propagator.extract(carrier, _ROOT)).get_span_context()
        return found if found.is_valid else None

    def _ns(self, seconds: float) -> int:
        """Convert a time of the loop's clock to Unix nanoseconds."""
        return self._zero_ns + int(seconds * 1e9)


def _server(servers: str) -> dict[str, str | int]:
    """Return the address of the first configured broker: a span has one address, and a stable one
    is more useful than that of the broker that happened to answer."""
    first = servers.partition(",")[0].strip().rpartition("://")[2]
    host, _, port = first.rpartition(":")
    if not host or not port.isdigit():
        return _known("server.address", first.strip("[]"))
    return {"server.address": host.strip("[]"), "server.port": int(port)}


def _known(name: str, value: str) -> dict[str, str | int]:
    return {name: value} if value else {}


def start_tracing(
    *, topic: str, group: str, max_links: int, server: str = "", client_id: str = ""
) -> Tracing:
    """Start tracing as configured by the OTEL_* variables. Raises SettingsError.

    ``server`` is kafka.bootstrap_servers. ``max_links`` is the largest batch: each of its messages
    is linked, unless OTEL_SPAN_LINK_COUNT_LIMIT sets a lower limit.
    """
    named = "OTEL_SERVICE_NAME" in os.environ or SERVICE_NAME in os.environ.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    own = {SERVICE_VERSION: __version__} | ({} if named else {SERVICE_NAME: "filing-clerk"})
    limited = "OTEL_SPAN_LINK_COUNT_LIMIT" in os.environ
    try:
        provider = TracerProvider(
            resource=Resource.create(own, SCHEMA_URL),
            span_limits=SpanLimits(max_links=None if limited else max_links),
            # Its exit handler would wait for an unavailable collector; close() has a limit.
            shutdown_on_exit=False,
        )
        exporter = _exporter(os.environ)
        if exporter is not None:
            provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        raise SettingsError(f"tracing: invalid OTEL_* variable: {error}") from error
    return Tracing(provider, topic=topic, group=group, server=server, client_id=client_id)


def _exporter(environment: Mapping[str, str]) -> SpanExporter | None:
    kind = environment.get("OTEL_TRACES_EXPORTER") or "otlp"
    if kind == "none":
        return None
    if kind != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER={kind}: supported are otlp and none")
    protocol = (
        environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
        or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
        or "http/protobuf"
    )
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (
            OTLPSpanExporter as HttpExporter,
        )

        return HttpExporter()
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    raise ValueError(
        f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: supported are http/protobuf and grpc"
    )


def _position(finished: CompletedRecord) -> dict[str, str | int]:
    record = finished.record
    return {
        "messaging.destination.partition.id": str(record.source.partition),
        "messaging.kafka.offset": record.offset,
    }


def _fail(span: trace.Span, kind: str | None) -> None:
    if kind is not None:
        span.set_attribute("error.type", kind)
        span.set_status(trace.StatusCode.ERROR, kind)
