"""How much of a known engine's rate the worker reaches: through Kafka against fed directly.

    python -m tests.bench.admission [--rounds 3] [--seconds 15]

On one machine Kafka, the worker and an engine on the CPU share the cores, and `make bench` measures
all of that. Here the engine takes a fixed time and no CPU, like one on a GPU. Any rate that is
missing is then held up by the worker itself, above all by the admission window, which has to find
out how much the engine takes at a time.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from tests.bench.__main__ import direct, make_texts, through_kafka, topic_flags
from tests.chaos.harness import Arena
from tests.support.toy_adapter import ENCODERS, scores, small_manifest
from worker.common.logs import configure_logging
from worker.demo.broker import LocalBroker
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.settings import load_settings


@dataclass(frozen=True, slots=True)
class Pace:
    """An engine with ``places`` that each answer after ``service_s`` seconds."""

    places: int
    service_s: float

    @property
    def per_s(self) -> float:
        return self.places / self.service_s


PACES = (Pace(8, 0.8), Pace(32, 0.64), Pace(64, 0.32), Pace(128, 0.16))
"""From a 7B on a small card to a small model on a large one."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a run (15)")
    given = parser.parse_args()
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with LocalBroker() as broker, ExitStack() as stack:
        arena = Arena(broker.bootstrap_servers, stack)
        for pace in PACES:
            print(measure(arena, pace, given.rounds, given.seconds), flush=True)
    return 0


def measure(arena: Arena, pace: Pace, rounds: int, seconds: float) -> str:
    """Measure both in turn with one engine; return a line."""
    settings = load_settings(flags=topic_flags(arena)).settings
    count = round(pace.per_s * seconds)
    bare, worker = [], []
    for number in range(rounds):
        engine = FakeEngine(
            lambda _: scores("billing"), service_s=pace.service_s, concurrency=pace.places
        )
        opened = OpenedEngine(engine, small_manifest(), ENCODERS, "runtime")
        try:
            bare.append(count / direct(opened, make_texts(f"a{number}", count)))
            texts = make_texts(f"b{number}", count)
            worker.append(count / through_kafka(settings, arena, opened, texts))
        finally:
            engine.close()
    ratios = [slower / quicker for slower, quicker in zip(worker, bare, strict=True)]
    return (
        f"{pace.places} places of {pace.service_s:g} s: bare {statistics.median(bare):.1f} "
        f"messages/s of {pace.per_s:.1f}, worker {statistics.median(worker):.1f}; ratio median "
        f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}; "
        f"{rounds} rounds of {count})"
    )


if __name__ == "__main__":
    sys.exit(main())
