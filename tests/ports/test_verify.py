"""``clerk-worker verify`` on a real broker: correct results pass, each planted fault is found.

Needs Kafka. The topics contain transaction markers and aborted records.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.chaos.harness import Arena, messages
from tests.support.kafka_world import KafkaWorld, results_by_adapter
from tests.support.processes import verify
from worker.records.types import Outgoing, Record

COUNT = 60

pytestmark = pytest.mark.timeout(600)


def world_of(servers: str) -> tuple[KafkaWorld, list[Record], list[Outgoing]]:
    """A world with correct results that are not published yet."""
    world = KafkaWorld(servers)
    values = [f"planted text {number}".encode() for number in range(COUNT)]
    records = world.publish_inputs(values[: COUNT // 2])
    world.publish_inputs([b"never happened"] * 4, aborted=True)
    records += world.publish_inputs(values[COUNT // 2 :])
    world.commit(world.ends())
    return world, records, [world.result(record) for record in records]


def test_correct_results_are_proven(bootstrap_servers: str) -> None:
    """Markers and aborted records are not inputs; output, review and dead letters all count."""
    world, _, outputs = world_of(bootstrap_servers)
    world.publish(outputs)
    code, found = verify(world.settings)
    assert (code, found["proven"]) == (0, True)
    assert found["inputs"] == found["results"] == COUNT
    assert len(found["by_topic"]) == 3
    assert results_by_adapter(found) == {world.manifest.digest: COUNT}
    assert "planted text" not in json.dumps(found)


def test_a_result_for_a_transaction_marker_is_foreign(bootstrap_servers: str) -> None:
    """Its offset exists but is not a record."""
    world, records, outputs = world_of(bootstrap_servers)
    taken = {record.offset for record in records if record.source.partition == 0}
    marker = next(offset for offset in range(1000) if offset not in taken)
    made_up = replace(records[0], offset=marker)
    world.publish([*outputs, world.label(made_up)])
    code, found = verify(world.settings)
    assert (code, found["proven"]) == (1, False)
    (offender,) = found["offenders"]
    assert (offender["fault"], offender["id"]) == ("foreign", made_up.id)


def test_a_transaction_that_is_not_visible_yet_is_waited_for(bootstrap_servers: str) -> None:
    """The group may know a commit a moment before the result topics show it."""
    world, _, outputs = world_of(bootstrap_servers)
    world.publish(outputs[:-4])
    world.producer.begin_transaction()
    for outgoing in outputs[-4:]:
        world.producer.produce(
            outgoing.topic, outgoing.value, outgoing.key,
            partition=0, headers=list(outgoing.headers),
        )  # fmt: skip
    assert world.producer.flush(30) == 0
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(verify, world.settings)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=8)
        world.producer.commit_transaction(30)
        code, found = waiting.result(timeout=120)
    assert code == 0, found["offenders"]
    assert found["inputs"] == COUNT


def test_it_works_while_workers_run_and_are_killed(
    bootstrap_servers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice in the middle of the work, and after it: proven each time, and the group is not
    touched."""
    monkeypatch.setenv("CHAOS_SERVICE_S", "0.03")  # 9 s of work: the command takes some to start
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        settings = arena.kafka_settings
        workers = [arena.start_worker(), arena.start_worker()]
        for worker in workers:
            worker.wait_until_ready()
        arena.publish([*messages(2500), *[b"{"] * 50])
        arena.wait_for(300)
        early = verify(settings)
        arena.kill(workers[0])
        later = verify(settings)
        arena.wait_for(2550)
        final = verify(settings)
    for code, found in (early, later, final):
        assert code == 0, found["offenders"]
    assert 0 < early[1]["inputs"] < 2550
    assert early[1]["inputs"] + early[1]["pending"] == 2550
    assert final[1]["inputs"] == 2550


@pytest.mark.parametrize("tombstones", ["skip", "forward"])
def test_tombstones_without_a_result_do_not_count_as_missing(
    bootstrap_servers: str, tombstones: str
) -> None:
    """If the settings skip or forward them. Of several topics each is judged separately."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack, partitions=1)
        inputs = json.dumps([arena.topics["in"], f"{arena.topics['in']}.more"])
        policies = {"kafka.input_topics": inputs, "records.tombstones": tombstones}
        arena.settings = {
            **{name: f"'{value}'" for name, value in policies.items()},
            "kafka.create_topics": "true",
        }
        settings = arena.kafka_settings | policies
        worker = arena.start_worker()
        worker.wait_until_ready()
        good = messages(3)
        arena.publish([good[0], None, good[1], b"{", None, good[2]])
        arena.wait_for(4 if tombstones == "skip" else 6)
        assert arena.stop(worker) == 0
        code, found = verify(settings, "--topic", arena.topics["in"])
        assert (code, found["proven"], found["pending"]) == (0, True, 0)
        assert found["results"] == 4
