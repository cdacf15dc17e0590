"""What a running worker reports against what happened: real Kafka, an engine without a model."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
import time
from contextlib import ExitStack, closing
from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Producer
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.fake_worker import open_fake
from tests.chaos.harness import Arena, messages
from tests.support.collector import Collector, attributes
from tests.support.processes import wait_until
from tests.support.topics import read_messages
from worker import __version__
from worker.app import run_worker
from worker.demo.broker import LocalBroker
from worker.demo.program import Program
from worker.engine.open import OpenedEngine
from worker.errors import EngineDied
from worker.settings import Settings, load_settings

GOOD, BROKEN, TOMBSTONES, EMPTY = 600, 40, 20, 10


def get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def verdict(url: str, path: str) -> tuple[int, list[str]]:
    status, body = get(url, path)
    reply = json.loads(body)
    assert reply["ok"] == (status == 200) == (not reply["why"])
    return status, reply["why"]


def url_of(worker: Program) -> str:
    def known() -> bool:
        worker.check()  # that it still runs
        return worker.url is not None

    wait_until(known)
    assert worker.url is not None
    return worker.url


class Scrape:
    """A page of metrics; calling it sums a name's series with the given labels."""

    def __init__(self, url: str) -> None:
        status, body = get(url, "/metrics")
        assert status == 200
        self.text = body.decode()
        self._families = list(text_string_to_metric_families(self.text))

    def __call__(self, name: str, /, **labels: str) -> float:
        found = [
            sample.value
            for family in self._families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        assert found, f"{name} {labels} is not on the page"
        return sum(found)


def lags(url: str) -> list[float]:
    families = text_string_to_metric_families(get(url, "/metrics")[1].decode())
    found = next(family for family in families if family.name == "clerk_consumer_lag_records")
    return [sample.value for sample in found.samples]


def ready(url: str) -> bool:
    return verdict(url, "/readyz")[0] == 200


def test_the_metrics_count_what_was_published(arena: Arena) -> None:
    worker = arena.start_worker()
    url = url_of(worker)
    values: list[bytes | None] = [*messages(GOOD), *[b"{"] * BROKEN]
    values += [None] * TOMBSTONES + [b'{"message": " "}'] * EMPTY
    arena.publish(values)
    arena.wait_for(len(values))
    arena.read_for()
    assert len(arena.results) == len(values)
    wait_until(lambda: lags(url) == [0] * arena.partitions, 20)
    page = Scrape(url)
    by_topic = arena.by_topic
    assert page("clerk_records_total", outcome="output") == by_topic["out"] > 0
    assert page("clerk_records_total", outcome="review") == by_topic["review"] > 0
    assert page("clerk_records_total", outcome="dead_letter") == by_topic["dead"]
    assert page("clerk_labels_total") == GOOD
    assert page("clerk_dead_letters_total", reason="not_json") == BROKEN
    assert page("clerk_dead_letters_total", reason="tombstone") == TOMBSTONES
    assert page("clerk_dead_letters_total", reason="empty_message") == EMPTY
    assert page("clerk_dead_letters_total") == by_topic["dead"]
    for name in ("confidence", "off_label_mass", "queue_seconds", "engine_seconds"):
        assert page(f"clerk_{name}_count") == GOOD
    for name in ("end_to_end_seconds", "commit_wait_seconds"):
        assert page(f"clerk_{name}_count") == len(values)
    assert page("clerk_engine_seconds_sum") >= GOOD * 0.005  # its service time
    assert page("clerk_engine_busy_seconds_total") >= GOOD * 0.005 / 4 * 0.9  # four at a time
    assert page("clerk_prompt_tokens_total") > GOOD
    transactions = page("clerk_transactions_total", result="committed")
    assert 0 < transactions <= len(values)
    assert page("clerk_transactions_total") == transactions
    assert page("clerk_transaction_seconds_count") == transactions
    assert page("clerk_assigned_partitions") == arena.partitions
    assert page("clerk_rebalances_total", kind="assigned") >= 1
    for name in ("in_flight_records", "in_flight_bytes", "in_engine_records", "paused_partitions"):
        assert page(f"clerk_{name}") == 0
    assert page("clerk_watermark_gap_records") == 0
    assert 0 <= time.time() - page("clerk_last_poll_timestamp_seconds") < 5
    assert page("clerk_ready") == 1
    assert page("clerk_build_info", version=__version__) == 1
    assert page("clerk_config_info", delivery="exactly_once", serving="merged") == 1
    assert page("clerk_adapter_info", name="toy-1") == 1
    assert "parcel" not in page.text


def test_it_reports_that_the_model_is_loading(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive from the start, started when warm, ready when in the group; /info throughout."""
    monkeypatch.setenv("CHAOS_LOAD_S", "3")
    url = url_of(arena.start_worker())
    assert verdict(url, "/livez") == (200, [])
    assert verdict(url, "/startupz") == (503, ["the model is loading"])
    assert verdict(url, "/readyz") == (503, ["the model is loading"])
    assert Scrape(url)("clerk_ready") == 0
    info = json.loads(get(url, "/info")[1])
    assert info["adapter"] is None
    assert info["settings"]["kafka.input_topics"] == [arena.topics["in"]]
    wait_until(lambda: verdict(url, "/startupz")[0] == 200)
    wait_until(lambda: ready(url))
    assert json.loads(get(url, "/info")[1])["adapter"]["name"] == "toy-1"


def test_a_draining_worker_is_alive_and_not_ready(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets no new work, and liveness keeps it from being killed while it finishes."""
    monkeypatch.setenv("CHAOS_SERVICE_S", "0.5")
    worker = arena.start_worker()
    url = url_of(worker)
    wait_until(lambda: ready(url))
    arena.publish(messages(100))
    wait_until(lambda: Scrape(url)("clerk_in_flight_records") >= 30)
    stopping = threading.Thread(target=arena.stop, args=(worker,))
    stopping.start()
    try:
        wait_until(lambda: not ready(url), 10)
        assert verdict(url, "/livez") == (200, [])
        [why] = verdict(url, "/readyz")[1]
        assert why.startswith("stopping")
    finally:
        stopping.join(60)
    with pytest.raises(OSError, match="refused"):
        get(url, "/livez")
    arena.wait_for(30)


def test_when_the_engine_dies_liveness_fails_until_the_worker_is_gone(arena: Arena) -> None:
    """It reports so while it closes; the HTTP server closes last."""
    seen: dict[str, Any] = {}

    def opener(_: Settings) -> OpenedEngine:
        opened = open_fake(settings)
        original = opened.engine.close

        def close() -> None:
            seen["closing"] = verdict(seen["url"], "/livez")
            original()

        opened.engine.close = close  # type: ignore[method-assign]
        threading.Thread(target=die, args=(opened.engine,)).start()
        return opened

    def die(engine: Any) -> None:
        wait_until(lambda: ready(seen["url"]))
        engine.die("its processes are gone")

    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    seen["url"] = f"http://127.0.0.1:{port}"
    settings = load_settings(
        flags=[
            *(f"{name}='{value}'" for name, value in arena.kafka_settings.items()),
            f"http.port={port}",
        ]
    ).settings
    with pytest.raises(EngineDied, match="its processes are gone"):
        run_worker(settings, opener)
    assert seen["closing"] == (503, ["the worker ends with EngineDied: its processes are gone"])
    with pytest.raises(OSError, match="refused"):
        get(seen["url"], "/livez")


def test_an_output_continues_its_messages_trace(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the sender's header through Kafka to the router's, and to the collector."""
    trace, parent = os.urandom(16).hex(), os.urandom(8).hex()
    sent = f"00-{trace}-{parent}-01"
    with closing(Collector()) as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        arena.settings = {"tracing.enabled": "true"}
        worker = arena.start_worker()
        producer = Producer({"bootstrap.servers": arena.servers})
        value = json.dumps({"id": "1", "message": "where is my parcel?"})
        headers: list[tuple[str, str | bytes | None]] = [
            ("traceparent", sent.encode()),
            ("shop", b"7"),
        ]
        producer.produce(arena.topics["in"], value, headers=headers)
        assert producer.flush(20) == 0
        arena.wait_for(1)
        assert arena.stop(worker) == 0
        [span] = collector.named(f"label {arena.topics['in']}")
        [batch] = collector.named(f"process {arena.topics['in']}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, parent)
    assert [link.span_id.hex() for link in batch.links] == [parent]
    assert attributes(batch)["messaging.batch.message_count"] == 1
    results = [
        message
        for short in ("out", "review")
        for message in read_messages(arena.servers, arena.topics[short])
    ]
    [found] = [dict(cast("list[tuple[str, bytes]]", message.headers())) for message in results]
    assert found["shop"] == b"7"
    assert found["traceparent"].decode() == f"00-{trace}-{span.span_id.hex()}-01"


@pytest.mark.long  # half a minute until the group has it back
def test_an_idle_worker_says_that_kafka_is_gone() -> None:
    """It publishes nothing, so only its connections show that."""
    with LocalBroker() as broker, ExitStack() as stack:
        worker = Arena(broker.bootstrap_servers, stack).start_worker()
        worker.wait_until_ready("partitions.assigned")
        url = url_of(worker)
        wait_until(lambda: verdict(url, "/readyz")[0] == 200, 20)
        broker.kill()
        wait_until(lambda: "Kafka has been unreachable" in "".join(verdict(url, "/readyz")[1]), 30)
        assert Scrape(url)("clerk_kafka_outage_seconds") > 0
        broker.restart()
        wait_until(lambda: verdict(url, "/readyz")[0] == 200, 60)
        assert Scrape(url)("clerk_kafka_outage_seconds") == 0
