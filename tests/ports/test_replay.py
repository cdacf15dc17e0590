"""``clerk-worker replay`` on a real broker: chosen records again, even if it is killed half-way.

Needs Kafka. The engine has a fixed service time; transactions and topics are real.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.support.kafka_world import KafkaWorld
from tests.support.processes import ROOT, environment, worker_command
from tests.support.topics import read_all
from worker.records.types import Record

COUNT = 700

pytestmark = pytest.mark.timeout(600)


def command(
    name: str, settings: Mapping[str, str], *options: str, timeout_s: float = 120
) -> tuple[int, str, str]:
    done = worker_command(name, settings, *options, timeout_s=timeout_s)
    return done.returncode, done.stdout, done.stderr


def start(world: KafkaWorld, replay_id: str, service_s: float = 0.0, **given: Any) -> Any:
    """Start a replay with the fixed-time engine."""
    text = json.dumps(
        {
            "settings": {
                **world.settings, "records.format": "text", "loop.max_in_flight": "20",
            },
            "id": replay_id,
            "criteria": {"dead_letters": True},
            **given,
        }
    )  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "tests.chaos.fake_replay", text],
        cwd=ROOT, env=environment(CHAOS_SERVICE_S=str(service_s)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: Any) -> dict[str, Any]:
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 0, stderr
    found: dict[str, Any] = json.loads(stdout.splitlines()[-1])
    return found


def results(world: KafkaWorld, name: str = "out") -> list[dict[str, Any]]:
    return [json.loads(value or b"{}") for value in read_all(world.servers, world.topics[name])]


def replayed(world: KafkaWorld, replay_id: str) -> Counter[str]:
    """Ids of the labels that a replay has committed."""
    every = results(world) + results(world, "review")
    return Counter(found["id"] for found in every if found.get("replay", {}).get("id") == replay_id)


@pytest.fixture
def world(bootstrap_servers: str) -> tuple[KafkaWorld, list[Record]]:
    """Everything is labelled; a seventh are dead letters."""
    made = KafkaWorld(bootstrap_servers)
    records = made.publish_inputs([f"planted text {n}".encode() for n in range(COUNT)], batch=50)
    made.commit(made.ends())
    made.publish([made.result(record) for record in records], batch=100)
    return made, records


def test_killed_half_way_it_continues_without_loss_or_duplicate(
    world: tuple[KafkaWorld, list[Record]],
) -> None:
    """kill -9 twice in the middle of a batch; each chosen record gets one result of this replay."""
    made, records = world
    dead = {record.id for record in records if record.offset % 7 == 3}
    reached = [0]
    for _ in range(2):
        process = start(made, "bug-17", 0.6)
        until = time.monotonic() + 90
        while len(replayed(made, "bug-17")) < reached[-1] + 20 and time.monotonic() < until:
            assert process.poll() is None, process.communicate()
            time.sleep(0.2)
        process.kill()
        process.communicate()
        reached.append(len(replayed(made, "bug-17")))
        assert reached[-2] < reached[-1] < len(dead), reached
    last = finish(start(made, "bug-17"))
    assert 0 < last["labelled"] < len(dead)
    assert replayed(made, "bug-17") == Counter(dict.fromkeys(dead, 1))
    assert finish(start(made, "bug-17"))["labelled"] == 0
    code, out, _ = command("verify", made.settings, "--json")
    found = json.loads(out)
    assert code == 0, found["offenders"]
    assert found["replayed"] == len(dead)
    marks = {json.dumps(found["replay"]) for found in results(made) if "replay" in found}
    assert len(marks) == 1, "the time is that of its beginning"
    # They have labels now, so the next replay finds no dead letters.
    _, out, _ = command("replay", made.settings, "--dead-letters", "--json")
    assert sum(json.loads(out)["chosen"].values()) == 0
