"""A worker on a real Kafka with another adapter on trial beside its own, and as its shadow.

    python -m tests.bench.trial MESSAGES.jsonl MAIN OTHER... [--share 0.25] [--rounds 2]

MESSAGES has a field `message`; MAIN and OTHER are adapters for the demo's base. For each OTHER a
worker serves it first to a share of the keys, until it stops that or has labelled everything
(ROUNDS times over, each message of a customer of its own; 0: not at all), and then a worker has it
as a shadow of every message. The comparison before a trial, on the probes of MAIN, is switched
off. Minutes: each worker loads two engines.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.harness import REAL_WORKER, Arena
from tests.support.topics import read_all
from worker.contract import Manifest, read_manifest
from worker.contract.store import CanaryPointer, Pointer, write_canary, write_pointer
from worker.contract.timestamps import rfc3339_now
from worker.demo.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.program import Program
from worker.observe.metrics import AGREES

LOADED_S = 900.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("messages", type=Path)
    parser.add_argument("main", type=Path)
    parser.add_argument("others", type=Path, nargs="+")
    parser.add_argument("--share", type=float, default=0.25)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    lines = given.messages.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["message"] for line in lines]
    with LocalBroker() as broker:
        for other in given.others:
            name = read_manifest(other).name
            if given.rounds:
                print(f"{name}: {on_trial(broker, texts * given.rounds, given, other)}", flush=True)
            print(f"{name}: {as_shadow(broker, texts, given.main, other)}", flush=True)
    return 0


def on_trial(broker: LocalBroker, texts: list[str], given: argparse.Namespace, other: Path) -> str:
    """Serve it to a share of the keys; say whether it was stopped, and after how many labels."""
    with running(broker, given.main, other, {}) as (arena, worker, store, adapter):
        write_canary(
            store, CanaryPointer(adapter.digest, adapter.name, given.share, now(), "bench", None)
        )
        wait_for_role(worker, adapter, "canary")
        arena.publish(as_records(texts))
        while len(arena.results) < len(texts):
            arena.wait_for(min(len(texts), len(arena.results) + 100))
            if info(worker)["canary_stopped"]:
                break
        labels = counted(worker, "clerk_adapter_records_total", adapter=adapter.digest[:12])
        stopped = info(worker)["canary_stopped"]
        what = f"stopped ({stopped['reason']})" if stopped else "not stopped"
        return f"at a share of {given.share:g} {what}, after {labels:.0f} of its labels"


def as_shadow(broker: LocalBroker, texts: list[str], main_adapter: Path, other: Path) -> str:
    """Have it label everything too; say how often it agrees, and where least."""
    shadow = {"adapters.shadow": f"'{other.resolve()}'", "adapters.shadow_traffic_ratio": "1.0"}
    with running(broker, main_adapter, other, shadow) as (arena, worker, _, adapter):
        wait_for_role(worker, adapter, "shadow")
        arena.publish(as_records(texts))
        arena.wait_for(len(texts))
        pairs = {
            label: [
                counted(worker, "clerk_shadow_records_total", label=label, agrees=agrees)
                for agrees in AGREES
            ]
            for label in adapter.taxonomy.names
        }
        yes, no = (sum(pair[at] for pair in pairs.values()) for at in (0, 1))
        least = min((yes / (yes + no), label) for label, (yes, no) in pairs.items() if yes + no)
        dropped = counted(worker, "clerk_shadow_dropped_records_total")
        topic = f"chaos.{arena.run}.shadow"
        found = [json.loads(value or b"") for value in read_all(broker.bootstrap_servers, topic)]
        confidence = statistics.mean(result["confidence"] for result in found)
        review = statistics.mean(result["review"]["needed"] for result in found)
        return (
            f"as a shadow its confidence is {confidence:.3f}, for review {review:.1%} (of "
            f"{len(found)}); of {yes + no:.0f} records it disagrees on {no / (yes + no):.1%}, most "
            f"on {least[1]} ({1 - least[0]:.0%}); {dropped:.0f} more were left out"
        )


@contextmanager
def running(
    broker: LocalBroker, main_adapter: Path, other: Path, settings: dict[str, str]
) -> Iterator[tuple[Arena, Program, Path, Manifest]]:
    """A worker that serves the main adapter from a store that holds the other one too."""
    with ExitStack() as stack:
        arena = Arena(broker.bootstrap_servers, stack, REAL_WORKER)
        store = arena.folder / "store"
        manifests = []
        for directory in (main_adapter, other):
            manifests.append(read_manifest(directory))
            shutil.copytree(directory, store / manifests[-1].digest)
        served, adapter = manifests
        write_pointer(store, Pointer(served.digest, served.name, now(), None, "bench", None))
        arena.settings = {
            "model.base": f"'{ensure_base_model()}'",
            "model.adapter": f"'{store}'",
            "kafka.create_topics": "true",
            "kafka.topic_replication_factor": "1",
            "adapters.shadow_topic": f"'chaos.{arena.run}.shadow'",
            **settings,
        }
        worker = arena.start_worker()
        worker.wait_until_ready("partitions.assigned")
        yield arena, worker, store, adapter


def as_records(texts: list[str]) -> list[bytes | None]:
    """Input records."""
    return [json.dumps({"id": str(n), "message": text}).encode() for n, text in enumerate(texts)]


def wait_for_role(worker: Program, adapter: Manifest, role: str) -> None:
    """Wait until the worker says that this adapter serves so."""
    until = time.monotonic() + LOADED_S
    wanted = {"role": role, "digest": adapter.digest}
    while not any(wanted.items() <= adapter.items() for adapter in info(worker)["adapters"]):
        worker.check()
        assert time.monotonic() < until, info(worker)["last_refusal"]
        time.sleep(1)


def info(worker: Program) -> Any:
    """What the worker answers on /info."""
    with urllib.request.urlopen(f"{worker.url}/info", timeout=20) as answer:
        return json.load(answer)


def counted(worker: Program, name: str, **labels: str) -> float:
    """Add up the series of a counter that have these labels."""
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=20) as answer:
        page = answer.read().decode()
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def now() -> str:
    """This moment, as pointers have it."""
    return rfc3339_now()


if __name__ == "__main__":
    sys.exit(main())
