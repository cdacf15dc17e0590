"""``clerk-worker verify`` as a person sees it, on a broker in this process.

``tests/ports/test_verify.py`` plants every fault on a real one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tests.support.kafka_world import KafkaWorld
from tests.support.mock_kafka import MockKafka
from worker.contract.store import CURRENT_NAME
from worker.errors import EXIT_SETTINGS, EXIT_STREAM, EXIT_UNEXPECTED, SettingsError, StreamFailed
from worker.records.types import Outgoing, Record

pytestmark = pytest.mark.slow

COUNT = 20

Verify = Callable[..., Result]


def labelled(world: KafkaWorld) -> tuple[list[Record], list[Outgoing]]:
    """Records that are read and committed, and their results, which are not published yet."""
    records = world.publish_inputs([b"planted text"] * COUNT)
    world.commit(world.ends())
    return records, [world.result(record) for record in records]


def test_what_is_right_is_proven_in_a_few_lines(world: KafkaWorld, verify: Verify) -> None:
    """The topic, its offsets, what is on each topic of results, and the verdict last."""
    _, outputs = labelled(world)
    world.publish(outputs)
    done = verify()
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    assert lines[0] == f"{world.topics['in']} (0:0-13, 1:0-13), group {world.run}"
    assert f"input records   {COUNT:>12}" in lines[1]
    dead = sum(outgoing.topic == world.topics["dead"] for outgoing in outputs)
    assert f"  {world.topics['dead']} {dead:>12} results" in lines
    digest = world.manifest.digest[:12]
    served = f"{digest} in fp32 {COUNT - dead}, {digest} (dead letters) {dead}"
    assert f"  adapters: {served} (any is allowed)" in lines
    assert lines[-1] == "proven: every input record has exactly one result, in order"
    assert "planted text" not in done.output


def test_each_fault_is_told_with_the_record_and_with_what_it_means(
    world: KafkaWorld, verify: Verify
) -> None:
    """One lost, one twice and one that no worker wrote: three rows, three lines, exit code 1."""
    records, outputs = labelled(world)
    lost = records[7].id
    del outputs[7]
    world.publish([*outputs, outputs[-1], Outgoing(world.topics["out"], None, b"planted text")])
    done = verify()
    assert done.exit_code == EXIT_UNEXPECTED
    assert "proven" not in done.stdout
    (row,) = [
        line.split() for line in done.stdout.splitlines() if line.lstrip().startswith("missing ")
    ]
    assert row[1] == lost
    assert "missing: 1 input records without a result" in done.stdout
    assert "twice: 1 results beyond the first for one input record, in one run" in done.stdout
    assert "unreadable: 1 records on a result topic that no worker writes" in done.stdout
    assert "planted text" not in done.output


def test_adapters_that_were_not_in_service_are_a_fault(world: KafkaWorld, verify: Verify) -> None:
    """Of many of a kind the first are shown, and all are counted."""
    _, outputs = labelled(world)
    world.publish(outputs)
    assert verify("--adapter", world.manifest.digest[:8]).exit_code == 0
    done = verify("--adapter", "0123456789", "--show", "2")
    assert done.exit_code == EXIT_UNEXPECTED
    assert f"unknown_adapter: {COUNT} results by an adapter that was not in" in done.stdout
    assert (
        sum(line.lstrip().startswith("unknown_adapter ") for line in done.stdout.splitlines()) == 2
    )
    assert "(any is allowed)" not in done.stdout


def test_the_store_says_which_adapters_were_in_service(
    world: KafkaWorld, verify: Verify, tmp_path: Path
) -> None:
    """Where the settings name one: no option is needed."""
    _, outputs = labelled(world)
    world.publish(outputs)
    (tmp_path / world.manifest.digest).mkdir()
    (tmp_path / CURRENT_NAME).touch()
    done = verify("--json", "-s", f"model.adapter={tmp_path}")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["allowed_adapters"] == [world.manifest.digest]


def test_for_machines_and_of_a_range(world: KafkaWorld, verify: Verify) -> None:
    """What lies outside of the range is counted, not judged; what is not committed is pending."""
    records = world.publish_inputs([b"planted text"] * COUNT)
    world.commit({0: 3, 1: 5})
    world.publish([world.label(r) for r in records if r.offset < (3, 5)[r.source.partition]])
    done = verify("--json", "--offsets", "0:1-5")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["proven"]) == (0, True)
    assert found["schema"] == "verification/1"
    assert found["offsets"] == {"0": {"from": 1, "before": 3}}
    assert found["pending"] == 3
    assert found["outside"] > 0
    said = verify().stdout
    assert "offsets not committed yet (pending): " in said
    assert verify("--topic", world.topics["in"], "--json").exit_code == 0


def test_what_cannot_be_judged_is_told_in_one_line(
    broker: MockKafka, world: KafkaWorld, verify: Verify
) -> None:
    """Nothing committed is most often another group's name; and Kafka has to be there."""
    world.publish_inputs([b"planted text"])
    done = verify()
    assert isinstance(done.exception, SettingsError)
    assert done.exception.exit_code == EXIT_SETTINGS
    assert str(done.exception) == (
        f"the group {world.run} has committed nothing of {world.topics['in']}: is kafka.group_id "
        "that of the workers?"
    )
    world.commit({0: 0})
    done = verify("--offsets", "5:0-9")
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception) == "--offsets: the input has no partition 5: it has 2, from 0"
    broker.go_away()
    done = verify("-s", "kafka.start_timeout_s=0.3")
    assert isinstance(done.exception, StreamFailed)
    assert done.exception.exit_code == EXIT_STREAM
    assert str(done.exception).startswith(f"no access to Kafka at {broker.servers} within ")
