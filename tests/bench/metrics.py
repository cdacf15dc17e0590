"""``python -m tests.bench.metrics``: CPU time a message, of the loop and of its metrics.

A loop with the metrics' listener and one without take turns in one process. Kafka and the engine
are fakes in memory and take about a quarter of the time. As in a worker, the garbage collector
skips objects from start-up.
"""

from __future__ import annotations

import platform
import statistics
import sys
import time
from datetime import UTC, datetime

from tests.support.rig import RouterEvents, isolation, make_loop_policy
from tests.support.toy_adapter import scores, toy_serving_adapter
from worker.common.logs import configure_logging
from worker.common.process import start_up_frozen
from worker.core.arms import AdapterRouter, TrafficSplit
from worker.core.events import Listener, send_to_all
from worker.core.loop import Loop
from worker.core.pipeline import Pipeline
from worker.core.publisher import TopicRouter
from worker.engine.fake import FakeEngine
from worker.engine.pacing import AdmissionPolicy
from worker.observe.listener import AdapterMetrics, MetricsListener
from worker.observe.progress import LogListener
from worker.observe.registry import Registry
from worker.stream.fake import FakeStream

ROUNDS = 15
MESSAGES = 4000


def main() -> int:
    configure_logging("console", "warning")
    print(f"{platform.platform()}, Python {platform.python_version()}")
    without, with_metrics = [], []
    with start_up_frozen():
        for _ in range(ROUNDS):
            without.append(seconds([]))
            registry = Registry()
            adapters = AdapterMetrics(registry)
            listener = MetricsListener(registry, adapters, time.monotonic, time.time)
            with_metrics.append(seconds([listener]))
    ratios = [b / a for a, b in zip(without, with_metrics, strict=True)]
    extra = statistics.median(b - a for a, b in zip(without, with_metrics, strict=True))
    print(
        f"the worker's own work: {statistics.median(without) / MESSAGES * 1e6:.0f} us of CPU a "
        f"message without metrics, {extra / MESSAGES * 1e6:.1f} us more with; ratio median "
        f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}; "
        f"{ROUNDS} rounds of {MESSAGES})"
    )
    started = time.perf_counter()
    size = len(registry.page())
    print(f"one page: {(time.perf_counter() - started) * 1000:.1f} ms, {size} bytes")
    return 0


def seconds(listeners: list[Listener]) -> float:
    """CPU seconds of this thread for all messages."""
    stream = FakeStream()
    fake = FakeEngine(lambda prompt: scores("billing", p=0.9))
    split = TrafficSplit.all_to(toy_serving_adapter(fake, layout="json"))
    loop = Loop(
        stream,
        pipeline=Pipeline(
            AdapterRouter(split, RouterEvents()),
            admission=AdmissionPolicy(max_in_engine=256, deadline_s=60),
            max_attempts=2,
            clock=time.monotonic,
        ),
        topic_router=TopicRouter("out", "review"),
        listener=send_to_all([LogListener(lambda: 0.0), *listeners]),
        policy=make_loop_policy(result_wait_s=0.0),
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        wait=time.sleep,
        isolation=isolation(),
    )
    stream.subscribe(loop)
    stream.assign(0)
    for number in range(MESSAGES):
        stream.add(b'{"id": "%d", "message": "where is my parcel?"}' % number)
    started = time.thread_time()
    while stream.committed.get(stream.sources[0], 0) < MESSAGES:
        loop.run_once()
        fake.finish_all()
    return time.thread_time() - started


if __name__ == "__main__":
    sys.exit(main())
