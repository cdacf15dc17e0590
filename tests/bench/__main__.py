"""``make bench``: what the worker costs next to its engine, and what it costs when idle.

The results are ratios of runs that alternate in one process, since machines differ and are noisy.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

import psutil

from tests.chaos.harness import REAL_WORKER, Arena
from worker.app import make_loop
from worker.common.base_model import ensure_base_model
from worker.common.logs import configure_logging
from worker.contract import build_prompt
from worker.demo.broker import LocalBroker
from worker.demo.models import adapter_dir, read_samples
from worker.engine.open import OpenedEngine
from worker.policies import MAX_IN_ENGINE, kafka_config, loop_policy
from worker.serving import make_adapter_router, make_labeller, open_model
from worker.settings import Settings, load_settings
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_topics import prepare_topics

ROUNDS = 4
MESSAGES = 600
IDLE_S = 60.0


def main() -> int:
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with LocalBroker() as broker, ExitStack() as stack:
        throughput(broker.bootstrap_servers, stack)
        idle(broker.bootstrap_servers, stack)
    return 0


def throughput(servers: str, stack: ExitStack) -> None:
    """The worker through Kafka and the same engine fed directly, in turn."""
    arena = Arena(servers, stack)
    settings = settings_for(arena)
    opened = open_model(settings)
    stack.callback(opened.engine.close)
    ratios, direct_rates, worker_rates = [], [], []
    direct(opened, make_texts("x"))  # one round that does not count, for lazily built kernels
    for number in range(ROUNDS):
        # The same messages but for a letter; otherwise the second run would find them cached.
        alone = direct(opened, make_texts(f"a{number}"))
        worker = through_kafka(settings, arena, opened, make_texts(f"b{number}"))
        direct_rates.append(MESSAGES / alone)
        worker_rates.append(MESSAGES / worker)
        ratios.append(alone / worker)
        print(
            f"round {number + 1}: engine alone {MESSAGES / alone:.0f} messages/s, "
            f"through Kafka {MESSAGES / worker:.0f}, ratio {alone / worker:.3f}",
            flush=True,
        )
    print(
        f"throughput: engine alone {statistics.median(direct_rates):.0f} messages/s, worker "
        f"{statistics.median(worker_rates):.0f}; ratio median {statistics.median(ratios):.3f} "
        f"(min {min(ratios):.3f}, max {max(ratios):.3f}; {ROUNDS} rounds of {MESSAGES})"
    )


def idle(servers: str, stack: ExitStack) -> None:
    """CPU time of an idle worker and its engine's processes."""
    model = {"model.base": f"'{ensure_base_model()}'", "model.adapter": f"'{adapter_dir()}'"}
    arena = Arena(servers, stack, REAL_WORKER, model)
    worker = arena.start_worker()
    worker.wait_until_ready()
    time.sleep(10)
    root = psutil.Process(worker.child.pid)
    tree = [root, *root.children(recursive=True)]
    before = sum(sum(process.cpu_times()[:2]) for process in tree)
    time.sleep(IDLE_S)
    used = sum(sum(process.cpu_times()[:2]) for process in tree) - before
    rss = sum(process.memory_info().rss for process in tree) / 2**30
    print(
        f"idle: {used / IDLE_S:.1%} of one core over {IDLE_S:.0f} s "
        f"({len(tree)} processes, {rss:.1f} GiB resident)"
    )


def settings_for(arena: Arena) -> Settings:
    model = [f"model.base='{ensure_base_model()}'", f"model.adapter='{adapter_dir()}'"]
    return load_settings(flags=[*topic_flags(arena), *model]).settings


def topic_flags(arena: Arena) -> list[str]:
    names = arena.topics
    return [
        f"kafka.bootstrap_servers='{arena.servers}'",
        f"kafka.group_id='{arena.run}'",
        f"kafka.input_topics='{names['in']}'",
        f"kafka.output_topic='{names['out']}'",
        f"kafka.review_topic='{names['review']}'",
        f"kafka.dead_letter_topic='{names['dead']}'",
    ]


def make_texts(mark: str, count: int = MESSAGES) -> list[str]:
    """Texts of real lengths, all different, so that no prompt is answered entirely from the
    prefix cache."""
    samples = read_samples("holdout.jsonl")
    return [f"{mark}-{n}: {samples[n % len(samples)].message}" for n in range(count)]


def direct(opened: OpenedEngine, texts: Sequence[str]) -> float:
    """Seconds for the engine alone, with as many messages at a time as the worker gives it."""
    settings = Settings()
    prompts = [build_prompt(opened.manifest.prompt, text, opened.encoders.plain) for text in texts]
    labeller = make_labeller(settings, opened)
    started = time.monotonic()
    room = threading.Semaphore(MAX_IN_ENGINE)
    futures = []
    for prompt in prompts:
        assert prompt is not None
        room.acquire()
        futures.append(opened.engine.submit(prompt.ids))
        futures[-1].add_done_callback(lambda _: room.release())
    for future in futures:
        labeller.decide(future.result())
    return time.monotonic() - started


def through_kafka(
    settings: Settings,
    arena: Arena,
    opened: OpenedEngine,
    texts: Sequence[str],
) -> float:
    """Seconds from the first fetch to the last commit."""
    before = len(arena.results)
    arena.publish([json.dumps({"message": text}).encode() for text in texts])
    config = prepare_topics(kafka_config(settings.kafka))
    stream = KafkaStream(config)
    policy = loop_policy(settings)
    router, _ = make_adapter_router(settings, opened, lambda _: None)
    loop = make_loop(settings, stream, router, config.topics, policy)
    stream.subscribe(loop)
    # Joining the group is not measured.
    while not loop.state.in_flight_records:
        loop.run_once()
    started = time.monotonic()
    stopped = threading.Event()
    done = 0.0
    committed = 0
    original = stream.publish

    def publish(batch) -> None:  # type: ignore[no-untyped-def]
        nonlocal committed, done
        original(batch)
        committed += len(batch.outputs)
        if committed >= len(texts):
            done = time.monotonic()
            stopped.set()

    stream.publish = publish  # type: ignore[method-assign]
    while not stopped.is_set():
        loop.run_once()
    loop.drain()
    stream.close()
    arena.wait_for(before + len(texts))
    return done - started


if __name__ == "__main__":
    sys.exit(main())
