"""``clerk-worker replay`` and ``verify``."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka import TopicPartition as KafkaPartition
from typer.main import get_command
from typer.testing import CliRunner, Result

from tests.support.kafka_world import KafkaWorld
from tests.support.mock_kafka import MockKafka
from worker.cli.main import app
from worker.common.errors import EXIT_SETTINGS, EXIT_UNEXPECTED
from worker.contract.store import CURRENT_NAME
from worker.errors import EXIT_STREAM, SettingsError, StreamFailed
from worker.records.encode import RetryPolicy
from worker.records.types import Outgoing, Postponed, Record, Rejected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("replay", "choose the records"),
        ("replay --since 2026-03-02", "needs an end"),
        ("replay --offsets 0:5-", "needs an end"),
        ("replay --reason bad_luck", "choose one of tombstone"),
        ("replay --made-by xyz", "hexadecimal"),
        ("replay --dead-letters --execute", "--id NAME"),
        ("replay --dead-letters --execute --id x", "--why TEXT"),
        ("replay --dead-letters --id two/words", "use 1 to 100 letters"),
        ("replay --dead-letters --label refund", "a dead letter has no label"),
        ("verify --adapter xyz", "hexadecimal"),
    ],
)
def test_impossible_choices_are_refused(line: str, said: str) -> None:
    result = CliRunner().invoke(app, line.split())
    assert isinstance(result.exception, SettingsError)
    assert said in str(result.exception)
    assert result.exception.exit_code == EXIT_SETTINGS


def test_a_label_is_chosen_in_every_unicode_form() -> None:
    composed, apart = (unicodedata.normalize(form, "Réclamation") for form in ("NFC", "NFD"))
    given = get_command(app).commands["replay"]  # type: ignore[attr-defined]
    found = given.make_context("replay", ["--label", apart, "--label", "refund"]).params["label"]
    assert list(found) == [composed, "refund"]


def test_it_counts_and_prints_the_command_to_run(
    world: KafkaWorld, run: Callable[..., Result]
) -> None:
    records = world.publish_inputs([b"planted text"] * 20, batch=20)
    world.publish([world.result(record) for record in records], batch=20)

    def replay(*options: str) -> tuple[str, str]:
        done = run("replay", *options)
        assert done.exit_code == 0, done.exception
        return done.stdout, done.stderr

    out, err = replay("--dead-letters", "--id", "bug-17")
    assert out == "2 records to label again (by partition 0: 1, 1: 1)\n"
    assert err == "only counted: add --execute --id bug-17 --why TEXT to label them\n"
    out, _ = replay("--offsets", "0:2-4")
    assert out == "at most 3 records to label again (by partition 0: 3)\n"
    out, err = replay("--label", "weather", "--execute", "--id", "x", "--why", "y")
    assert out == "0 records to label again\npublished: 0 labels, 0 dead letters\n"
    assert err == ""
    found = json.loads(replay("--dead-letters", "--json", "--id", "bug-17")[0])
    assert (found["schema"], found["id"]) == ("replay/1", "bug-17")
    assert found["chosen"] == {"0": 1, "1": 1}


pytestmark = pytest.mark.slow

COUNT = 20

Verify = Callable[..., Result]


def labelled(world: KafkaWorld) -> tuple[list[Record], list[Outgoing]]:
    """Records that are read and committed, and their results, which are not published yet."""
    records = world.publish_inputs([b"planted text"] * COUNT)
    world.commit(world.ends())
    return records, [world.result(record) for record in records]


def test_correct_results_are_proven_in_a_few_lines(world: KafkaWorld, verify: Verify) -> None:
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
    assert f"  adapters: {served} (all adapters are allowed)" in lines
    assert lines[-1] == "proven: every input record has exactly one result, in order"
    assert "planted text" not in done.output


def test_each_fault_is_listed_with_its_record_and_meaning(
    world: KafkaWorld, verify: Verify
) -> None:
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


def test_the_store_says_which_adapters_were_in_service(
    world: KafkaWorld, verify: Verify, tmp_path: Path
) -> None:
    _, outputs = labelled(world)
    world.publish(outputs)
    (tmp_path / world.manifest.digest).mkdir()
    (tmp_path / CURRENT_NAME).touch()
    done = verify("--json", "-s", f"model.adapter={tmp_path}")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["allowed_adapters"] == [world.manifest.digest]


def test_a_range_and_json(world: KafkaWorld, verify: Verify) -> None:
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


def test_an_impossible_check_is_one_line(
    broker: MockKafka, world: KafkaWorld, verify: Verify
) -> None:
    world.publish_inputs([b"planted text"])
    done = verify()
    assert isinstance(done.exception, SettingsError)
    assert done.exception.exit_code == EXIT_SETTINGS
    assert str(done.exception).startswith(f"the group {world.run} has committed nothing")
    world.commit({0: 0})
    done = verify("--offsets", "5:0-9")
    assert isinstance(done.exception, SettingsError)
    assert str(done.exception) == "--offsets: the input has no partition 5: use 0 to 1"
    broker.go_away()
    done = verify("-s", "kafka.start_timeout_s=0.3")
    assert isinstance(done.exception, StreamFailed)
    assert done.exception.exit_code == EXIT_STREAM
    assert str(done.exception).startswith(f"no access to Kafka at {broker.servers} within ")


RETRIED = 12
WAITS = 5
"""The place of the record that is put on the retry topic."""


@pytest.fixture
def world(broker: MockKafka) -> KafkaWorld:
    made = KafkaWorld(broker.servers, create_topic=broker.create_topic)
    made.topics["retry"] = f"{made.run}.retry"
    broker.create_topic(made.topics["retry"], 1)
    return made


def published(world: KafkaWorld, extra: Sequence[Outgoing] = ()) -> list[Record]:
    """Records and their results, but for one that was put on the retry topic."""
    records = world.publish_inputs([b"planted text"] * RETRIED)
    world.commit(world.ends())
    policy = RetryPolicy(world.topics["retry"], 60.0, 3)
    postponed = Postponed(Rejected("engine_rejected", "engine", "why", 2), 1)
    retry = policy.encode(records[WAITS], postponed, datetime.now(UTC))
    labels = [world.label(record) for n, record in enumerate(records) if n != WAITS]
    world.publish([*labels, retry, *extra])
    return records


def pass_it(world: KafkaWorld, offset: int = 1) -> None:
    """Commit an offset of the retry topic."""
    consumer = Consumer({"bootstrap.servers": world.servers, "group.id": world.run, "log_level": 0})
    done = KafkaPartition(world.topics["retry"], 0, offset)
    consumer.commit(offsets=[done], asynchronous=False)
    consumer.close()


def test_what_waits_is_pending_and_then_done(world: KafkaWorld, verify: Verify) -> None:
    records = published(world)
    done = verify()
    assert done.exit_code == 0, done.output
    assert "input records waiting there for another attempt (pending): 1" in done.stdout
    assert "one result, or waits for another attempt" in done.stdout
    pass_it(world)
    world.publish([world.label(records[WAITS])])
    found = json.loads(verify("--json").stdout)
    assert (found["proven"], found["waiting"], found["retries"]) == (True, 0, 1)
    assert found["results"] == RETRIED
