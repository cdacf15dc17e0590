"""Results of three adapters, explained one by one and labelled again, on real Kafka and ONNX
Runtime."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from confluent_kafka import Producer

from tests.chaos.harness import REAL_WORKER, Arena, messages
from tests.support.follower import AdapterStore
from tests.support.processes import worker_command
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.topics import create_topics, read_messages
from worker.contract import read_manifest
from worker.contract.records import OutputRecord, correct, read_output
from worker.contract.records.identity import to_json
from worker.errors import SettingsError
from worker.offline.explain import SAME_WITHIN, explain
from worker.settings import Settings, load_settings

pytestmark = pytest.mark.timeout(300)

EACH = 34
SECRET = "where is parcel"


class Labelled(Arena):
    """An arena whose messages are labelled by three adapters, one after the other."""

    def label(self, folder: Path) -> None:
        store = AdapterStore(folder / "store")
        store.folder.mkdir()
        self.settings = {"model.adapter": f"'{store.folder}'"}
        for seed in range(3):
            made = write_tiny_encoder(folder / str(seed), seed=seed)
            manifest = read_manifest(made)
            made.rename(store.folder / manifest.digest)
            store.publish(manifest)
            worker = self.start_worker()  # each after a restart
            worker.wait_until_ready()
            self.publish(messages(EACH))
            self.wait_for(EACH * (seed + 1))
            assert self.stop(worker) == 0

    @property
    def loaded(self) -> Settings:
        given = {**self.kafka_settings, "model.adapter": self.settings["model.adapter"].strip("'")}
        return load_settings(None, [f"{name}={value}" for name, value in given.items()]).settings

    def outputs(self) -> list[OutputRecord]:
        records = [
            read_output(cast("bytes", each.value()))
            for topic in ("out", "review")
            for each in read_messages(self.servers, self.topics[topic])
        ]
        return sorted(records, key=lambda each: (each.source.offset, each.id))


@pytest.fixture(scope="module")
def arena(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labelled]:
    with ExitStack() as stack:
        arena = Labelled(bootstrap_servers, stack, command=REAL_WORKER, partitions=2)
        arena.label(tmp_path_factory.mktemp("explain"))
        yield arena


@pytest.mark.parametrize("step", [12, pytest.param(1, marks=pytest.mark.long)])
def test_results_of_three_adapters_come_out_again(arena: Labelled, step: int) -> None:
    """The same label, and scores within 1e-4, of all 102 ids and of some."""
    outputs = arena.outputs()
    assert len(outputs) == 3 * EACH
    found = [explain(arena.loaded, each.id) for each in outputs[::step]]
    assert len({each.result.adapter.digest for each in found if each.result}) == 3
    assert all(each.holds for each in found)
    assert max(each.again.largest for each in found if each.again) <= SAME_WITHIN
    assert all(each.text is None for each in found)


def test_the_page_names_adapter_thresholds_and_later_decisions(arena: Labelled) -> None:
    """The message only if it is asked for."""
    result = arena.outputs()[0]
    topic = f"{arena.run}.decisions"
    create_topics(arena.servers, [topic])
    producer = Producer({"bootstrap.servers": arena.servers})
    decided = correct(result, label="other", decided_by="r1", decided_at="2026-05-06T07:08:09Z")
    producer.produce(topic, to_json(decided), result.id)
    assert producer.flush(20) == 0
    settings = {**arena.kafka_settings, "model.adapter": arena.settings["model.adapter"].strip("'")}
    done = worker_command("explain", settings, result.id, "--corrections", topic)
    assert done.returncode == 0, done.stderr
    wanted = (
        result.label,
        result.adapter.digest,
        "thresholds now",
        "other by r1",
        "the same label",
    )
    for words in wanted:
        assert words in done.stdout, words
    assert SECRET not in done.stdout + done.stderr
    shown = worker_command("explain", settings, result.id, "--text", "--json")
    assert SECRET in json.loads(shown.stdout)["text"]


def test_another_result_than_the_adapters_is_told(arena: Labelled, tmp_path: Path) -> None:
    """A saved record that was changed; an adapter that is gone; an id without a result."""
    result = arena.outputs()[0]
    scores = dict.fromkeys(result.scores, 0.0) | {"other": 1.0}
    saved = tmp_path / "record.json"
    saved.write_bytes(to_json(replace(result, label="other", scores=scores)))
    found = explain(arena.loaded, result.id, saved=saved)
    assert not found.holds
    gone = replace(result, adapter=replace(result.adapter, digest="0" * 64))
    saved.write_bytes(to_json(gone))
    found = explain(arena.loaded, result.id, saved=saved)
    assert not found.holds
    assert "no adapter with a digest" in found.not_again
    with pytest.raises(SettingsError, match="no result of it"):
        explain(arena.loaded, f"{arena.topics['in']}-0-99999")
