"""``compare``, ``verify`` and ``replay`` on the results of a cascade, on a real broker.

Needs Kafka and ONNX Runtime. The cascade is two tiny generated encoders. A real worker writes the
results, and the commands run as processes.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import AdapterStore
from tests.support.kafka_world import KafkaWorld, results_by_adapter
from tests.support.processes import worker_command
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.topics import read_all
from tests.support.toy_adapter import cascade_of
from worker.contract import Manifest, read_manifest
from worker.demo.models import read_samples
from worker.demo.program import start_worker

COUNT = 60

pytestmark = pytest.mark.timeout(600)

Results = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Written:
    """Topics of messages that a cascade has labelled, and its store: ``small`` answers the messages
    it is confident about, ``large`` the rest. ``results`` are by the record's id."""

    topics: KafkaWorld
    store: Path
    small: Manifest
    large: Manifest
    cascade: Manifest
    results: Results

    @property
    def settings(self) -> dict[str, str]:
        return {
            **self.topics.settings,
            "model.adapter": str(self.store),
            "records.format": "text",
        }

    def answered_by(self, stage: int) -> set[str]:
        return {id_ for id_, each in self.results.items() if each["cascade"]["stage"] == stage}


@pytest.fixture(scope="module")
def written(bootstrap_servers: str, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A worker has labelled and committed everything."""
    folder = tmp_path_factory.mktemp("cascade")
    store = AdapterStore(folder / "store")
    store.folder.mkdir()
    stages = []
    for name, seed in (("small", 2), ("large", 1)):
        made = write_tiny_encoder(folder / name, seed=seed, name=name)
        stages.append(read_manifest(made))
        made.rename(store.folder / stages[-1].digest)
    small, large = stages
    cascade = cascade_of(small, large, sure_from=0.42)
    store.publish(cascade)
    topics = KafkaWorld(bootstrap_servers)
    samples = read_samples("holdout.jsonl")[:COUNT]
    topics.publish_inputs([sample.message.encode() for sample in samples])
    found = Written(topics, store.folder, small, large, cascade, {})
    given = {key: f"'{value}'" for key, value in found.settings.items()}
    given |= {"log.format": "'json'", "http.port": "0"}
    with start_worker(given, folder / "worker.log") as worker:
        worker.wait_until_ready()
        found.results.update(await_results(found, COUNT))
        assert worker.stop() == 0
    return found


def await_results(written: Written, count: int) -> Results:
    results: list[dict[str, Any]] = []
    while len(results) < count:
        results = all_results(written)
    return {result["id"]: result for result in results}


def all_results(written: Written) -> list[dict[str, Any]]:
    """All labels, in review or not, in the order of the logs."""
    topics = written.topics
    return [
        json.loads(value or b"{}")
        for name in ("out", "review")
        for value in read_all(topics.servers, topics.topics[name])
    ]


def command(name: str, settings: Mapping[str, str], *options: str) -> dict[str, Any]:
    done = worker_command(name, settings, "--json", *options)
    assert done.returncode == 0, done.stderr + done.stdout
    return result_of(done)


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_worker_stamps_the_cascade_and_says_which_stage_answered(written: Written) -> None:
    """Both stages have answered some."""
    assert {each["adapter"]["digest"] for each in written.results.values()} == {
        written.cascade.digest
    }
    for stage, manifest in enumerate((written.small, written.large), start=1):
        ids = written.answered_by(stage)
        assert len(ids) >= 5
        assert {written.results[id_]["cascade"]["answered"]["digest"] for id_ in ids} == {
            manifest.digest
        }


def test_verify_treats_a_cascade_as_one_adapter(written: Written) -> None:
    """A cascade's results count as the cascade's and not as a stage's."""
    found = command("verify", written.settings)
    assert found["proven"]
    assert results_by_adapter(found) == {written.cascade.digest: COUNT}
    by_stage = ("--json", "--adapter", written.large.digest[:8])
    done = worker_command("verify", written.settings, *by_stage)
    assert done.returncode == 1
    assert result_of(done)["faults"]["unknown_adapter"] == COUNT


def test_compared_with_one_stage_only_the_others_answers_differ(written: Written) -> None:
    """With the labels that the worker wrote and the messages from the topic."""
    names = (written.cascade.digest[:8], str(written.store / written.large.digest))
    found = command("compare", written.settings, *names, "--last", str(COUNT))
    places = ("first", "second")
    assert [found["adapters"][place]["name"] for place in places] == ["toy-cascade", "large"]
    assert (found["messages"], found["without_label"]) == (COUNT, 0)
    differing = {each["id"]: each for each in found["disagreements"]}
    assert len(differing) == COUNT - found["agreed"] > 0
    assert set(differing) <= written.answered_by(1)
    for id_, each in differing.items():
        assert each[places[0]] == written.results[id_]["label"] != each[places[1]]


def test_a_cascades_results_are_chosen_and_replayed(written: Written) -> None:
    """A stage alone has made nothing. One label's records are labelled by a stage, and by the
    cascade again. Each record once; verify knows both."""
    label = "delivery"
    count = sum(each["label"] == label for each in written.results.values())
    assert count > 5
    by_cascade = ("--made-by", written.cascade.digest[:8])
    chosen = command("replay", written.settings, "--made-by", written.small.digest[:8])["chosen"]
    assert sum(chosen.values()) == 0

    execute = ("--why", "a test", "--execute")
    by_stage = ("--adapter", written.large.digest[:8], "--id", "by-stage", *execute)
    done = command("replay", written.settings, *by_cascade, "--label", label, *by_stage)
    assert (done["labelled"], done["dead"]) == (count, 0)
    again = replayed(written, "by-stage")
    assert {each["id"] for each in again} == {
        id_ for id_, each in written.results.items() if each["label"] == label
    }
    assert {each["adapter"]["digest"] for each in again} == {written.large.digest}
    assert not any("cascade" in each for each in again)

    back = ("--adapter", written.cascade.digest[:8], "--id", "back", *execute)
    made_by = ("--made-by", written.large.digest[:8])
    assert command("replay", written.settings, *made_by, *back)["labelled"] == count
    compared = ("label", "confidence", "review", "cascade", "adapter", "base_model")
    assert sorted(each["id"] for each in again) == sorted(
        each["id"] for each in replayed(written, "back")
    )
    for each in replayed(written, "back"):
        before = written.results[each["id"]]
        assert [each[key] for key in compared] == [before[key] for key in compared]
    found = command("verify", written.settings)
    assert found["proven"]
    assert found["replayed"] == 2 * count
    assert results_by_adapter(found) == {
        written.cascade.digest: COUNT + count,
        written.large.digest: count,
    }


def replayed(written: Written, replay_id: str) -> Sequence[dict[str, Any]]:
    return [each for each in all_results(written) if each.get("replay", {}).get("id") == replay_id]
