"""What a running worker shows, against what happened: real Kafka, an engine without a model."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.fake_worker import open_fake
from tests.chaos.harness import FAKE_WORKER, Arena, messages
from tests.support.collector import Collector, attributes
from worker import __version__
from worker.app import run_worker
from worker.demo.program import Program
from worker.engine.open import OpenedEngine
from worker.errors import EngineDied
from worker.settings import Settings, load_settings

GOOD, BROKEN, TOMBSTONES, EMPTY = 600, 40, 20, 10


@pytest.fixture
def arena(bootstrap_servers: str) -> Iterator[Arena]:
    with ExitStack() as stack:
        yield Arena(bootstrap_servers, stack)


def get(url: str, path: str) -> tuple[int, bytes]:
    parts = urlsplit(url)
    assert parts.hostname
    with closing(http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def verdict(url: str, path: str) -> tuple[int, list[str]]:
    status, body = get(url, path)
    said = json.loads(body)
    assert said["ok"] == (status == 200) == (not said["why"])
    return status, said["why"]


def url_of(worker: Program) -> str:
    def known() -> bool:
        worker.check()  # that it still runs
        return worker.url is not None

    wait_for(known)
    assert worker.url is not None
    return worker.url


def wait_for(condition: Callable[[], object], timeout_s: float = 60) -> None:
    until = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.1)


class Scrape:
    """The page of metrics; the sum of a name's series that have the labels asked for."""

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


def test_the_numbers_are_what_was_published(arena: Arena) -> None:
    """Records by outcome and reason, labels, lag to zero, transactions: all of them add up."""
    worker = arena.start_worker()
    url = url_of(worker)
    values: list[bytes | None] = [*messages(GOOD), *[b"{"] * BROKEN]
    values += [None] * TOMBSTONES + [b'{"message": " "}'] * EMPTY
    arena.publish(values)
    arena.wait_for(len(values))
    arena.read_for()
    assert len(arena.results) == len(values)
    wait_for(lambda: lags(url) == [0] * arena.partitions, 20)
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


def test_backpressure_and_lag_are_seen_while_there_is_a_backlog(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine that is too slow: fetching pauses, what is behind is counted, it catches up."""
    monkeypatch.setenv("CHAOS_SERVICE_S", "0.05")
    arena.settings = {
        "loop.max_in_flight": "20",
        "kafka.consumer": "{'statistics.interval.ms'=300}",
    }
    arena.publish(messages(800))
    worker = arena.start_worker()
    url = url_of(worker)
    wait_for(lambda: ready(url))
    wait_for(lambda: Scrape(url)("clerk_backpressure_events_total", kind="paused") > 0)
    # Between a resume and the next fetch there may be nothing in flight for a moment.
    wait_for(lambda: 0 < sum(lags(url)) <= 800 and Scrape(url)("clerk_in_flight_records") > 0)
    arena.wait_for(800)
    wait_for(lambda: lags(url) == [0] * arena.partitions, 20)
    page = Scrape(url)
    paused = page("clerk_backpressure_events_total", kind="paused")
    assert 0 <= paused - page("clerk_backpressure_events_total", kind="resumed") <= 1


def test_while_the_model_loads_it_answers_that_it_does(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alive from the first second, started when warm, ready when in the group; /info throughout."""
    monkeypatch.setenv("CHAOS_LOAD_S", "4")
    url = url_of(arena.start_worker())
    assert verdict(url, "/livez") == (200, [])
    assert verdict(url, "/startupz") == (503, ["the model is loading"])
    assert verdict(url, "/readyz") == (503, ["the model is loading"])
    assert Scrape(url)("clerk_ready") == 0
    info = json.loads(get(url, "/info")[1])
    assert info["adapter"] is None
    assert info["settings"]["kafka.input_topics"] == [arena.topics["in"]]
    wait_for(lambda: verdict(url, "/startupz")[0] == 200)
    wait_for(lambda: ready(url))
    assert json.loads(get(url, "/info")[1])["adapter"]["name"] == "toy-1"


def test_a_changed_mix_of_labels_is_seen_and_nothing_of_the_messages(arena: Arena) -> None:
    """One label for every message, where each was expected as often: metrics, log and /info."""
    worker = arena.start_worker()
    url = url_of(worker)
    wait_for(lambda: ready(url))
    text = "where is my parcel?"
    arena.publish([json.dumps({"message": text}).encode()] * 2500)
    arena.wait_for(2500)
    page = Scrape(url)
    assert page("clerk_drift_windows_total", signal="labels", result="drifted") == 2
    assert page("clerk_drift_consecutive_windows", signal="labels") == 2
    assert page("clerk_drift_label_psi") > page("clerk_drift_threshold", signal="labels") > 0
    status, body = get(url, "/info")
    drift = json.loads(body)["drift"]
    assert (status, drift["messages"]) == (200, 500)
    moved = drift["last"]["moved"]
    assert {shift["share"] for shift in moved.values()} <= {0, 1}
    for label, shift in moved.items():
        by = shift["share"] - shift["expected"]
        assert page("clerk_drift_label_shift", label=label) == pytest.approx(by, abs=1e-3)
    [*ids] = drift["last"]["samples"]["labels"]
    assert len(ids) == 5
    assert all(id_.startswith(arena.topics["in"]) for id_ in ids)
    log = worker.log_path.read_text(encoding="utf-8")
    told = [json.loads(event) for event in log.splitlines() if '"drift.labels"' in event]
    assert [event["consecutive_windows"] for event in told] == [1, 2]
    assert told[0]["moved"].keys() == moved.keys() != set()
    assert text not in log + page.text + body.decode()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_spare_worker_is_ready_too(bootstrap_servers: str, protocol: str) -> None:
    """One partition, two workers: both are in the group, and one of them has it."""
    group = {"group.protocol": protocol, "statistics.interval.ms": 300}
    if protocol == "classic":
        group["session.timeout.ms"] = 6000
    inline = ", ".join(f"'{name}' = {json.dumps(value)}" for name, value in group.items())
    with ExitStack() as stack:
        arena = Arena(
            bootstrap_servers, stack, settings={"kafka.consumer": f"{{{inline}}}"}, partitions=1
        )
        urls = [url_of(arena.start_worker()) for _ in range(2)]
        wait_for(lambda: all(ready(url) for url in urls))
        held = [Scrape(url)("clerk_assigned_partitions") for url in urls]
        assert sorted(held) == [0, 1]


def test_a_draining_worker_is_alive_and_not_ready(
    arena: Arena, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No new work goes to it, and nobody kills it while it finishes what it has."""
    monkeypatch.setenv("CHAOS_SERVICE_S", "0.5")
    worker = arena.start_worker()
    url = url_of(worker)
    wait_for(lambda: ready(url))
    arena.publish(messages(100))
    wait_for(lambda: Scrape(url)("clerk_in_flight_records") >= 30)
    stopping = threading.Thread(target=arena.stop, args=(worker,))
    stopping.start()
    try:
        wait_for(lambda: not ready(url), 10)
        assert verdict(url, "/livez") == (200, [])
        [why] = verdict(url, "/readyz")[1]
        assert why.startswith("stopping")
    finally:
        stopping.join(60)
    with pytest.raises(OSError, match="refused"):
        get(url, "/livez")
    arena.wait_for(30)


def test_when_the_engine_dies_liveness_fails_until_the_worker_is_gone(arena: Arena) -> None:
    """It says so while it closes what it has open, and the HTTP server is the last to go."""
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
        wait_for(lambda: ready(seen["url"]))
        engine.die("its processes are gone")

    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    seen["url"] = f"http://127.0.0.1:{port}"
    settings = load_settings(
        flags=[
            f"kafka.bootstrap_servers='{arena.servers}'",
            f"kafka.group_id='{arena.run}'",
            f"kafka.input_topics='{arena.topics['in']}'",
            f"kafka.output_topic='{arena.topics['out']}'",
            f"kafka.review_topic='{arena.topics['review']}'",
            f"kafka.dead_letter_topic='{arena.topics['dead']}'",
            f"http.port={port}",
        ]
    ).settings
    with pytest.raises(EngineDied, match="its processes are gone"):
        run_worker(settings, opener)
    assert seen["closing"] == (503, ["the worker ends with EngineDied: its processes are gone"])
    with pytest.raises(OSError, match="refused"):
        get(seen["url"], "/livez")


def test_a_port_in_use_ends_the_worker_before_anything_is_begun() -> None:
    """One line, exit code 2, and Kafka was not even asked."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        done = subprocess.run(
            [sys.executable, *FAKE_WORKER, "--set", f"http.port={taken.getsockname()[1]}"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "in use" in line
    assert "http.port=0" in line


def test_an_output_goes_on_in_its_messages_trace(
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
    [found] = [headers for short in ("out", "review") for headers in read(arena, short)]
    assert dict(found)["shop"] == b"7"
    assert dict(found)["traceparent"].decode() == f"00-{trace}-{span.span_id.hex()}-01"


def read(arena: Arena, short: str) -> list[list[Any]]:
    """The headers of every record of a topic."""
    consumer = Consumer(
        {
            "bootstrap.servers": arena.servers,
            "group.id": "headers",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(arena.topics[short], n, 0) for n in range(arena.partitions)])
    found, ended = [], 0
    while ended < arena.partitions:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            ended += 1
        else:
            found.append(list(message.headers() or []))
    consumer.close()
    return found
