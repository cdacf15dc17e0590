"""``python -m tests.bench.scaling``: throughput of 1, 2 and 4 workers over 8 partitions.

Worker processes with an engine of fixed service time, so that the machine's cores are not what
limits: what is measured is whether the workers get into each other's way. Exits 1 when four
workers are more than a tenth away from linear.
"""

from __future__ import annotations

import os
import platform
import sys
import time
import urllib.request
from contextlib import ExitStack

from prometheus_client.parser import text_string_to_metric_families

from tests.chaos.harness import Arena, messages
from worker.demo.broker import LocalBroker
from worker.demo.program import Program

WORKERS = (1, 2, 4)
PARTITIONS = 8
SERVICE_S = 0.1
CONCURRENCY = 8
EACH = 1600
_TOLERANCE = 0.1


def main() -> int:
    """Measure each number of workers and print a table."""
    os.environ |= {"CHAOS_SERVICE_S": str(SERVICE_S), "CHAOS_CONCURRENCY": str(CONCURRENCY)}
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(
        f"{PARTITIONS} partitions; an engine of {SERVICE_S:g} s a message, {CONCURRENCY} at "
        f"a time: {CONCURRENCY / SERVICE_S:.0f} messages/s a worker at most"
    )
    print("workers  messages  seconds  messages/s  of linear")
    alone, share = 0.0, 0.0
    for count in WORKERS:
        with LocalBroker() as broker, ExitStack() as stack:
            took = measure(Arena(broker.bootstrap_servers, stack, partitions=PARTITIONS), count)
        rate = count * EACH / took
        alone = alone or rate / count
        share = rate / (alone * count)
        print(
            f"{count:7}  {count * EACH:8}  {took:7.1f}  {rate:10.1f}  {share:9.1%}",
            flush=True,
        )
    return 0 if share >= 1 - _TOLERANCE else 1


def measure(arena: Arena, count: int) -> float:
    """Seconds from the first message published to the last result seen."""
    workers = [arena.start_worker() for _ in range(count)]
    until = time.monotonic() + 120
    while [assigned(worker) for worker in workers] != [PARTITIONS // count] * count:
        assert time.monotonic() < until, "the partitions are not shared evenly"
        time.sleep(0.2)
    started = time.monotonic()
    arena.publish(messages(count * EACH))
    arena.wait_for(count * EACH)
    took = time.monotonic() - started
    arena.verdict(count * EACH)
    return took


def assigned(worker: Program) -> int:
    """How many partitions a worker says it holds; 0 before it says anything."""
    worker.check()
    if worker.url is None:
        return 0
    with urllib.request.urlopen(f"{worker.url}/metrics", timeout=20) as answer:
        page = answer.read().decode()
    for family in text_string_to_metric_families(page):
        if family.name == "clerk_assigned_partitions":
            return int(family.samples[0].value)
    return 0


if __name__ == "__main__":
    sys.exit(main())
