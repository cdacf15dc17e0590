"""The crash scenarios with the real engine and the shipped adapter: ``make chaos-model``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

from tests.chaos.harness import (
    REAL_WORKER,
    Arena,
    kill_and_restart,
    kill_broker,
    kill_one_of_two,
    label_hostile,
    messages,
)
from worker.demo.base_model import ensure_base_model
from worker.demo.broker import LocalBroker
from worker.demo.models import adapter_dir, read_samples

COUNT = 2000
HOSTILE = 10_000


def main() -> int:
    """Run each scenario on a broker of its own; print one line each."""
    texts = [
        sample.message.replace("{", "(").replace("}", ")")
        for sample in read_samples("holdout.jsonl")
    ]
    model = {"model.base": f"'{ensure_base_model()}'", "model.adapter": f"'{adapter_dir()}'"}
    scenarios: dict[str, Callable[[Arena, Sequence[bytes], LocalBroker], str]] = {
        "worker killed -9 and started again": lambda a, v, _: kill_and_restart(a, v),
        "two workers, one killed -9": lambda a, v, _: kill_one_of_two(a, v),
        "broker killed -9 and started again": kill_broker,
    }
    for name, scenario in scenarios.items():
        started = time.monotonic()
        with LocalBroker() as broker, ExitStack() as stack:
            arena = Arena(broker.bootstrap_servers, stack, REAL_WORKER, model)
            said = scenario(arena, messages(COUNT, texts), broker)
        print(f"{name}: {said} ({time.monotonic() - started:.0f} s)", flush=True)
    started = time.monotonic()
    with LocalBroker() as broker, ExitStack() as stack:
        said = label_hostile(Arena(broker.bootstrap_servers, stack, REAL_WORKER, model), HOSTILE)
    print(f"messages of every kind: {said} ({time.monotonic() - started:.0f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
