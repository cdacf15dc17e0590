"""Where the demo's rate goes: from short prompts fed straight to the engine, step by step.

    python -m tests.bench.rate [--rounds 3]

Four ways to label the demo's burst of messages, in turn in one process, on one engine:

  short     the engine alone, each message cut to its first five words
  engine    the engine alone, the messages whole
  worker    through Kafka, the messages there before it begins
  demo      through Kafka as the demo does it: published, labelled and read at the same time

and for each the messages a second, and CPU seconds a message of the engine's process, of this one
(the worker's loop, and in the last way the demo's client), and of Kafka's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import psutil

from tests.bench.__main__ import direct, settings_for, through_kafka
from tests.chaos.harness import Arena
from worker.demo.broker import LocalBroker
from worker.demo.samples import demo_samples
from worker.logs import configure_logging
from worker.serving import open_model

BURST = 270


@dataclass(frozen=True, slots=True)
class Cost:
    """One way to label the burst: seconds on the clock, and of CPU by who used them."""

    seconds: float
    engine_s: float
    worker_s: float
    kafka_s: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    configure_logging("console", "warning")
    texts = [sample.message for sample in demo_samples(BURST + 60)[60:]]
    short = [" ".join(text.split()[:5]) for text in texts]
    with LocalBroker() as broker, ExitStack() as stack:
        arena = Arena(broker.bootstrap_servers, stack)
        settings = settings_for(arena)
        opened = open_model(settings)
        stack.callback(opened.engine.close)

        def ways(mark: str) -> dict[str, Callable[[], float]]:
            # Told apart by a mark: what was asked before would be found in the prefix cache.
            def marked(letter: str, given: Sequence[str]) -> list[str]:
                return [f"{mark}{letter}{n}: {text}" for n, text in enumerate(given)]

            kafka = partial(through_kafka, settings, arena, opened)
            return {
                "short": partial(direct, opened, marked("s", short)),
                "engine": partial(direct, opened, marked("e", texts)),
                "worker": partial(kafka, marked("w", texts)),
                "demo": partial(kafka, marked("d", texts), published_before=False),
            }

        found: dict[str, list[Cost]] = {}
        for number in range(rounds + 1):
            for name, way in ways(f"{number}").items():
                cost = measure(way)
                if number:  # the first round builds kernels and is not counted
                    found.setdefault(name, []).append(cost)
                    print(f"round {number}, {name}: {BURST / cost.seconds:.0f} messages/s")
    report(found)
    return 0


def measure(way: Callable[[], float]) -> Cost:
    """Do it once."""
    before = cpu_s()
    seconds = way()
    after = cpu_s()
    used = [after[name] - before[name] for name in ("engine", "worker", "kafka")]
    return Cost(seconds, *used)


def cpu_s() -> dict[str, float]:
    """CPU seconds so far of this process, of Kafka's Java below it, and of everything else."""
    me = psutil.Process()
    used = {"worker": sum(me.cpu_times()[:2]), "engine": 0.0, "kafka": 0.0}
    for child in me.children(recursive=True):
        name = "kafka" if "java" in child.name() else "engine"
        used[name] += sum(child.cpu_times()[:2])
    return used


def report(found: dict[str, list[Cost]]) -> None:
    """Print medians, and each way's share of the one before it, round by round."""
    print(
        f"\n{'':8} {'messages/s':>10} {'of the last':>11}   CPU ms a message: engine, worker, Kafka"
    )
    previous: list[Cost] | None = None
    for name, costs in found.items():
        rate = statistics.median(BURST / cost.seconds for cost in costs)
        ratio = ""
        if previous:
            pairs = zip(previous, costs, strict=True)
            ratio = f"{statistics.median(a.seconds / b.seconds for a, b in pairs):.2f}"
        cpu = [
            1000 * statistics.median(getattr(cost, who) for cost in costs) / BURST
            for who in ("engine_s", "worker_s", "kafka_s")
        ]
        print(f"{name:8} {rate:10.1f} {ratio:>11}   " + "  ".join(f"{ms:6.1f}" for ms in cpu))
        previous = costs


if __name__ == "__main__":
    sys.exit(main())
