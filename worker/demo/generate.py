"""Publish sample messages to a running cluster, and print a line for each label.

    python -m worker.demo.generate --bootstrap-servers kafka:9092 --rate 2

compose.yaml runs it next to a worker. It publishes at a steady rate until SIGTERM or Ctrl-C, and
prints ids and labels, but no message text, because containers' output is collected.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import time
from collections.abc import Callable
from types import FrameType

from worker.demo.client import Publisher, Seen, Watcher
from worker.demo.kafka_files import BrokerError
from worker.demo.models import demo_samples
from worker.demo.plan import DEAD, INPUT, OUTPUT, REVIEW

# The number of shipped messages that the adapter was not trained on; then they repeat.
_POOL = 390


def generate(
    bootstrap_servers: str, rate: float, count: int | None, stopped: Callable[[], bool]
) -> int:
    """Publish ``rate`` messages a second to existing topics, and print the results; return their
    number. Ends after ``count`` results (None: never), or when ``stopped``. Raises BrokerError if
    messages cannot be published."""
    publisher = Publisher(bootstrap_servers, INPUT)
    watcher = Watcher(bootstrap_servers, {OUTPUT: "output", REVIEW: "review", DEAD: "dead letter"})
    samples = itertools.cycle(demo_samples(_POOL))
    began = time.monotonic()
    published = landed = 0
    try:
        while not stopped() and (count is None or landed < count):
            # By the clock since the start, so that waiting for results does not lower the rate.
            due = int((time.monotonic() - began) * rate) + 1
            while published < (due if count is None else min(due, count)):
                publisher.publish(f"sample-{published}", next(samples).message)
                published += 1
            for seen in watcher.poll(min(0.2, 1 / rate)):
                landed += 1
                print(_line(seen), flush=True)
        publisher.flush()
    finally:
        watcher.close()
    print(f"{published} messages published, {landed} results seen", flush=True)
    return landed


def _line(seen: Seen) -> str:
    latency_ms = max(0.0, seen.seen_at - seen.published_at) * 1000
    if seen.value is None:
        return f"{seen.message_id} dead letter: {seen.headers.get('clerk.reason')}"
    label, confidence = seen.value["label"], seen.value["confidence"]
    doubt = " (for review)" if seen.kind == "review" else ""
    return f"{seen.message_id} {label} {confidence:.0%} {latency_ms:.0f} ms{doubt}"


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m worker.demo.generate", description=__doc__)
    parser.add_argument("--bootstrap-servers", required=True, help="host:port of the cluster")
    parser.add_argument("--rate", type=float, default=2.0, help="messages a second (2)")
    parser.add_argument("--count", type=int, help="end after this many results (never)")
    given = parser.parse_args()
    if given.rate <= 0:
        parser.error(f"--rate is {given.rate}: it must be above 0")
    stop = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal stop
        stop = True

    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, on_signal)
    try:
        generate(given.bootstrap_servers, given.rate, given.count, lambda: stop)
    except BrokerError as error:
        parser.exit(1, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
