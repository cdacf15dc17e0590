"""The whole worker: real Kafka, real vLLM, the base model and the shipped adapter."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.harness import REAL_WORKER, Arena
from tests.support.hostile import hostile_values
from worker.contract import read_manifest
from worker.demo.models import Sample, read_samples
from worker.demo.program import Program
from worker.records.schemas import json_schema

HOSTILE = 600
SECRET = "planted-secret-4711"
QUIET: dict[str, str | int | float | bool] = {"log_level": 0}


@dataclass
class Running:
    """A warm worker on its own topics."""

    arena: Arena
    worker: Program
    labels: tuple[str, ...]
    temporary: Path


@pytest.fixture(scope="module")
def running(
    bootstrap_servers: str, base_model_dir: Path, demo_adapter_dir: Path
) -> Iterator[Running]:
    model = {
        "model.base": f"'{base_model_dir}'",
        "model.adapter": f"'{demo_adapter_dir}'",
        "log.level": "'debug'",
    }
    with ExitStack() as stack:
        # Its temporary files can be searched, and it has secrets to keep.
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        environment.setenv("TMPDIR", folder)
        environment.setenv("CLERK_KAFKA__SASL_PASSWORD", SECRET)
        environment.setenv("CLERK_KAFKA__CLIENT", json.dumps({"ssl.key.password": SECRET}))
        arena = Arena(bootstrap_servers, stack, REAL_WORKER, model)
        worker = arena.start_worker()
        worker.wait_until_ready()
        labels = read_manifest(demo_adapter_dir).taxonomy.names
        yield Running(arena, worker, labels, Path(folder))


def records(running: Running, short: str) -> list[tuple[dict[str, Any], Any, Any]]:
    """Every committed record of a topic: headers, key, value."""
    topic = running.arena.topics[short]
    consumer = Consumer(
        {
            "bootstrap.servers": running.arena.servers,
            "group.id": "e2e",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            **QUIET,
        }
    )
    consumer.assign([TopicPartition(topic, n, 0) for n in range(running.arena.partitions)])
    found, ended = [], 0
    while ended < running.arena.partitions:
        message = consumer.poll(20)
        assert message is not None
        if message.error():
            ended += 1
        else:
            found.append((dict(message.headers() or []), message.key(), message.value()))
    consumer.close()
    return found


def labelled(running: Running) -> list[dict[str, Any]]:
    """All records of the output and review topics."""
    found = records(running, "out") + records(running, "review")
    return [json.loads(value) for _, _, value in found]


@pytest.fixture(scope="module")
def holdout(running: Running) -> list[tuple[Sample, dict[str, Any]]]:
    """The held-out messages, each with its record."""
    samples = read_samples("holdout.jsonl")
    producer = Producer({"bootstrap.servers": running.arena.servers, **QUIET})
    before = len(running.arena.results)
    for sample in samples:
        value = json.dumps({"id": sample.id, "message": sample.message})
        headers: list[tuple[str, str | bytes | None]] = [("trace", b"\x00\xff")]
        producer.produce(running.arena.topics["in"], value, f"key-{sample.id}", headers=headers)
    assert producer.flush(30) == 0
    running.arena.wait_for(before + len(samples))
    by_id = {output["message_id"]: output for output in labelled(running)}
    return [(sample, by_id[sample.id]) for sample in samples]


def test_held_out_messages_get_the_measured_labels(
    holdout: list[tuple[Sample, dict[str, Any]]],
) -> None:
    """Served accuracy is what clerk-trainer evaluate found, within the engine's precision."""
    promised = 0.858  # by clerk-trainer evaluate, on the first 330 of the hold-out
    right = sum(result["label"] == sample.label for sample, result in holdout)
    assert right / len(holdout) == pytest.approx(promised, abs=0.03)


def test_every_result_meets_the_published_schema(
    running: Running, holdout: list[tuple[Sample, dict[str, Any]]]
) -> None:
    """Labels are known, scores cover them and add up, and the record validates."""
    schema = jsonschema.Draft202012Validator(json_schema("output"))
    for _, result in holdout:
        schema.validate(result)
        assert result["label"] in running.labels
        assert set(result["scores"]) == set(running.labels)
        assert sum(result["scores"].values()) == pytest.approx(1, abs=1e-4)
        assert result["confidence"] == max(result["scores"].values())
        assert 0 <= result["off_label_mass"] <= 1


def test_key_and_headers_are_kept_but_not_the_text(
    running: Running, holdout: list[tuple[Sample, dict[str, Any]]]
) -> None:
    """A router can correlate; the text is in no record and no log."""
    log = running.worker.log_path.read_text(encoding="utf-8")
    found = records(running, "out") + records(running, "review")
    ours = [record for record in found if (record[1] or b"").startswith(b"key-holdout")]
    assert len(ours) == len(holdout)
    everything = b"\n".join(value for _, _, value in ours).decode()
    for headers, _, _ in ours:
        assert headers["trace"] == b"\x00\xff"
    for sample, _ in holdout:
        if len(sample.message) > 20:
            assert sample.message not in everything
            assert sample.message not in log


def test_no_output_contains_a_message_or_a_secret(
    running: Running, holdout: list[tuple[Sample, dict[str, Any]]]
) -> None:
    """Logs at debug level with vLLM's own lines, temporary files, HTTP pages."""
    assert running.worker.url is not None
    written = running.worker.log_path.read_bytes()
    for path in ("/metrics", "/info", "/livez", "/readyz"):
        with urllib.request.urlopen(f"{running.worker.url}{path}", timeout=20) as answer:
            written += answer.read()
    files = [path for path in running.temporary.rglob("*") if path.is_file()]
    written += b"".join(path.read_bytes() for path in files)
    assert b"worker.ready" in written
    assert SECRET.encode() not in written
    for sample, _ in holdout:
        if len(sample.message) > 20:
            assert sample.message.encode() not in written


def test_the_engines_own_metrics_are_on_the_workers_page(
    running: Running, holdout: list[tuple[Sample, dict[str, Any]]]
) -> None:
    """One scrape has both, and they agree: every label was an answer of the engine."""
    assert running.worker.url is not None
    with urllib.request.urlopen(f"{running.worker.url}/metrics", timeout=20) as answer:
        page = answer.read().decode()
    families = {family.name: family.samples for family in text_string_to_metric_families(page)}

    def total(name: str, *suffixes: str) -> float:
        return sum(sample.value for sample in families[name] if sample.name.endswith(suffixes))

    labels = total("clerk_labels", "_total")
    assert labels >= len(holdout)
    assert total("vllm:request_success", "_total") >= labels
    assert total("vllm:prompt_tokens", "_total") >= total("clerk_prompt_tokens", "_total")
    assert total("vllm:prefix_cache_hits", "_total") > 0


def test_hostile_messages_give_one_result_each_and_no_new_label(running: Running) -> None:
    """Empty, huge, raw bytes, injections: output, review and dead letters add up."""
    before = len(running.arena.results)
    running.arena.publish(hostile_values(HOSTILE))
    running.arena.wait_for(before + HOSTILE)
    running.arena.read_for()
    assert len(running.arena.results) == before + HOSTILE
    assert len(set(running.arena.results)) == before + HOSTILE
    assert {output["label"] for output in labelled(running)} <= set(running.labels)
    reasons = {headers["clerk.reason"].decode() for headers, _, _ in records(running, "dead")}
    assert reasons == {
        "empty_message",
        "field_missing",
        "field_not_text",
        "not_json",
        "not_utf8",
        "tombstone",
    }


def test_the_five_line_consumer_of_the_router_page_works(
    running: Running, holdout: list[tuple[Sample, dict[str, Any]]]
) -> None:
    page = Path("docs/records.md").read_text(encoding="utf-8")
    code = page.split("```python\n", 1)[1].split("```", 1)[0]
    code = code.replace("localhost:9092", running.arena.servers)
    code = code.replace("support.labels", running.arena.topics["out"])
    code = code.replace("while True:", "for _ in range(40):")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any(label in done.stdout for label in running.labels)


def test_sigterm_drains_and_exits_0(running: Running) -> None:
    """The last test of this worker."""
    assert running.worker.stop() == 0
    assert "worker.drained" in running.worker.events()
