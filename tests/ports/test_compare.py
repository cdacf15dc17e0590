"""Comparing on a real topic with the real engine, while a worker is in its group.

Needs Kafka, vLLM, the demo's base model and its adapter; the second adapter is the first with part
of its weights set to zero.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from safetensors.torch import load_file, save_file

from tests.chaos.harness import Arena, messages
from tests.support.processes import need_vllm, worker_command
from tests.support.topics import create_topics
from worker.contract import FileDigest, read_manifest, write_manifest
from worker.contract.digest import sha256_file
from worker.demo.models import read_samples
from worker.offline.records import read_range
from worker.policies import kafka_config
from worker.settings import KafkaSettings
from worker.stream.kafka_config import KafkaConfig
from worker.stream.topics import RecordRange

BEGIN_MS = 1_700_000_000_000
STEP_MS = 1000
COUNT = 60
PARTITIONS = 3

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def numbered(bootstrap_servers: str) -> tuple[KafkaConfig, str]:
    """A topic of numbers, a second apart, over three partitions in transactions of five, plus one
    aborted transaction."""
    topic = f"compare.{os.getpid()}"
    create_topics(bootstrap_servers, [topic], PARTITIONS)
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "transactional.id": topic, "log_level": 0}
    )
    producer.init_transactions(30)
    for begin in range(0, COUNT, 5):
        producer.begin_transaction()
        for number in range(begin, begin + 5):
            producer.produce(
                topic, str(number), partition=number % PARTITIONS,
                timestamp=BEGIN_MS + STEP_MS * number,
            )  # fmt: skip
        producer.commit_transaction(30)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(topic, "aborted", partition=partition, timestamp=BEGIN_MS)
    assert producer.flush(30) == 0
    producer.abort_transaction(30)
    return config_of(bootstrap_servers), topic


def config_of(servers: str, group: str = "filing-clerk") -> KafkaConfig:
    return kafka_config(KafkaSettings(bootstrap_servers=servers, group_id=group))


Read = Callable[..., list[int]]


@pytest.fixture
def read(numbered: tuple[KafkaConfig, str]) -> Read:
    """Read the numbers in a range."""
    config, topic = numbered

    def numbers(stretch: RecordRange, most: int = 1000) -> list[int]:
        return [int(record.value or b"-1") for record in read_range(config, topic, stretch, most)]

    return numbers


def test_a_whole_topic_is_read_in_order_of_time(read: Read) -> None:
    """Without transaction markers and aborted records."""
    assert read(RecordRange()) == list(range(COUNT))


def test_the_newest_records(read: Read) -> None:
    """Over all partitions, whatever markers and aborted records lie between."""
    for last in (1, 2, 5, 30, 1000):
        assert read(RecordRange(last=last)) == list(range(max(0, COUNT - last), COUNT))
    assert read(RecordRange(last=30), 3) == list(range(COUNT - 3, COUNT))


def test_times_limit_the_range(read: Read) -> None:
    """The start is included, the end is not."""
    ten, twenty = BEGIN_MS + 10 * STEP_MS, BEGIN_MS + 20 * STEP_MS
    assert read(RecordRange(since_ms=ten, until_ms=twenty)) == list(range(10, 20))
    assert read(RecordRange(since_ms=ten)) == list(range(10, COUNT))
    assert read(RecordRange(since_ms=BEGIN_MS + COUNT * STEP_MS)) == []


def test_offsets_limit_the_range(read: Read) -> None:
    """Both ends are included; beyond the log there is nothing, and no wait."""
    found = read(RecordRange(offsets={1: (0, 1), 2: (0, None)}))
    assert [number for number in found if number % PARTITIONS == 1] == [1, 4]
    assert [number for number in found if number % PARTITIONS == 2] == list(
        range(2, COUNT, PARTITIONS)
    )
    assert read(RecordRange(offsets={0: (10_000, 20_000)})) == []


def test_no_more_than_the_limit(read: Read) -> None:
    """The oldest records of the range."""
    assert read(RecordRange(), 7) == list(range(7))
    assert read(RecordRange(since_ms=BEGIN_MS + 10 * STEP_MS), 5) == [10, 11, 12, 13, 14]


def test_a_running_worker_is_not_touched(bootstrap_servers: str) -> None:
    """With the same group id: no rebalance, and its committed offsets stay."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        worker = arena.start_worker()
        worker.wait_until_ready("partitions.assigned")
        arena.publish(messages(40))
        arena.wait_for(40)
        arena.read_for(1)
        before = committed(arena)
        config = config_of(bootstrap_servers, arena.run)
        assert len(read_range(config, arena.topics["in"], RecordRange(last=100), 100)) == 40
        arena.publish(messages(8))
        arena.wait_for(48)
        log = worker.log_path.read_text(encoding="utf-8")
        assert log.count("partitions.assigned") == 1
        assert "partitions.revoked" not in log
        after = committed(arena)
    assert sum(before) == 40
    assert sum(after) == 48


def committed(arena: Arena) -> list[int]:
    consumer = Consumer({"bootstrap.servers": arena.servers, "group.id": arena.run, "log_level": 0})
    places = [KafkaPartition(arena.topics["in"], n) for n in range(arena.partitions)]
    found = [place.offset for place in consumer.committed(places, timeout=30)]
    consumer.close()
    return found


@pytest.fixture(scope="module")
def weakened(demo_adapter_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's adapter at 80 % of its strength."""
    folder = tmp_path_factory.mktemp("adapters") / "weakened"
    shutil.copytree(demo_adapter_dir, folder)
    weights = folder / "adapter_model.safetensors"
    tensors = load_file(weights)
    save_file(
        {name: tensor * (0.8 if "lora_B" in name else 1) for name, tensor in tensors.items()},
        weights,
        {"format": "pt"},
    )
    manifest = read_manifest(folder)
    files = {
        **manifest.files,
        weights.name: FileDigest(sha256_file(weights), weights.stat().st_size),
    }
    write_manifest(folder, replace(manifest, name="weakened", files=files))
    return folder


@pytest.mark.long  # two engines
def test_two_real_adapters_on_a_topic(
    bootstrap_servers: str,
    base_model_dir: Path,
    demo_adapter_dir: Path,
    weakened: Path,
    tmp_path: Path,
) -> None:
    need_vllm()
    samples = read_samples("holdout.jsonl")[:100]
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        arena.publish(
            [
                json.dumps({"id": sample.id, "message": sample.message}).encode()
                for sample in samples
            ]
            + [b"{"]
        )
        out = tmp_path / "disagreements.csv"
        model = {"model.base": str(base_model_dir), "model.adapter": str(demo_adapter_dir)}
        options = ("current", str(weakened), "--json", "--last", "200", "--out", str(out))
        done = worker_command("compare", arena.kafka_settings | model, *options, timeout_s=800)
        assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["adapters"]["first"]["digest"] == read_manifest(demo_adapter_dir).digest
    assert found["adapters"]["second"]["digest"] == read_manifest(weakened).digest
    assert (found["messages"], found["without_label"]) == (100, 1)
    assert 0.7 < found["agreement"] < 1
    assert len(found["disagreements"]) == found["messages"] - found["agreed"] > 0
    assert len(out.read_text().splitlines()) == len(found["disagreements"]) + 1
    topic = arena.topics["in"]
    assert all(
        disagreement["id"].startswith(f"{topic}-") for disagreement in found["disagreements"]
    )
    output = done.stdout + done.stderr + out.read_text()
    assert not any(sample.message in output for sample in samples if len(sample.message) > 20)
