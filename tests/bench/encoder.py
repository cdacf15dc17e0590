"""What a worker with an encoder costs: through Kafka next to its engine, alone, and when it starts.

    python -m tests.bench.encoder [--adapter DIR] [--rounds 3] [--python PYTHON] [--demo]

The same engine is fed directly and through Kafka, in turn. Then a worker is started as a process,
by ``--python`` for an environment without PyTorch: the time until it is ready, its memory, and the
latency of messages that come one at a time. With ``--demo`` the demo's LoRA adapter in vLLM labels
some messages first. Without ``--adapter`` it is the encoder that ships.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from tests.bench.__main__ import direct, settings_for, through_kafka, topic_flags
from tests.chaos.harness import Arena
from worker.common.logs import configure_logging
from worker.demo.broker import LocalBroker
from worker.demo.models import ensure_model, read_samples
from worker.serving import open_model
from worker.settings import load_settings

MESSAGES = 3000
DEMO_MESSAGES = 150
SLOW_MESSAGES = 200
SLOW_RATE = 10.0
MESSAGE = "the lamp that I ordered last week has not come yet"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--demo", action="store_true")
    given = parser.parse_args()
    configure_logging("console", "warning")
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    with LocalBroker() as broker, ExitStack() as stack:
        adapter = given.adapter or ensure_model("encoder").adapter
        if given.demo:
            demo(broker.bootstrap_servers, stack, given.rounds)
        for precision in ("int8", "fp32"):
            model = model_flags(adapter, precision)
            throughput(broker.bootstrap_servers, stack, precision, model, given.rounds)
            print(
                f"{precision}: {start(broker.bootstrap_servers, model, given.python)}", flush=True
            )
    return 0


def demo(servers: str, stack: ExitStack, rounds: int) -> None:
    """The demo's adapter through Kafka, for comparison."""
    arena = Arena(servers, stack)
    settings = settings_for(arena)
    opened = open_model(settings)
    samples = [sample.message for sample in read_samples("holdout.jsonl")]
    direct(opened, samples[:40])
    for number in range(rounds):
        texts = [f"{number}-{n}: {samples[n % len(samples)]}" for n in range(DEMO_MESSAGES)]
        seconds = through_kafka(settings, arena, opened, texts)
        print(
            f"the demo's adapter, through Kafka: {DEMO_MESSAGES / seconds:.0f} messages/s",
            flush=True,
        )
    opened.engine.close()


def throughput(
    servers: str, stack: ExitStack, name: str, model: Sequence[str], rounds: int
) -> None:
    """The same engine fed directly and through Kafka, in turn."""
    arena = Arena(servers, stack)
    settings = load_settings(flags=[*topic_flags(arena), *model]).settings
    opened = open_model(settings)
    samples = [sample.message for sample in read_samples("holdout.jsonl")]
    direct(opened, samples[:200])
    ratios = []
    for number in range(rounds):
        # All different: an engine with a prefix cache would have a repeated one complete.
        alone, worker = (
            [f"{mark}{number}-{n}: {samples[n % len(samples)]}" for n in range(MESSAGES)]
            for mark in "ab"
        )
        alone_s, worker_s = direct(opened, alone), through_kafka(settings, arena, opened, worker)
        ratios.append(alone_s / worker_s)
        print(
            f"{name}, round {number + 1}: engine alone {MESSAGES / alone_s:.0f} messages/s, "
            f"through Kafka {MESSAGES / worker_s:.0f}, ratio {alone_s / worker_s:.3f}",
            flush=True,
        )
    print(f"{name}: ratio median {statistics.median(ratios):.3f} ({rounds} rounds)")
    opened.engine.close()


def start(servers: str, model: Sequence[str], python: str) -> str:
    """Start a worker with these settings, and send it one message at a time. Return a line: the
    seconds until it is ready, its processes' memory, and from published to read."""
    with ExitStack() as stack:
        arena = Arena(servers, stack)
        command = [python, "-m", "worker", "run"]
        for flag in [*topic_flags(arena), "log.format='json'", "http.port=0", *model]:
            command += ["--set", flag]
        began = time.monotonic()
        worker = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        stack.callback(worker.wait)
        stack.callback(worker.terminate)
        assert worker.stdout is not None
        for line in worker.stdout:
            if '"worker.ready"' in line:
                break
        ready_s = time.monotonic() - began
        sender = Producer({"bootstrap.servers": servers, "linger.ms": 0, "log_level": 0})
        for number in range(20):
            latency(arena, sender, number + 1)
        took_ms = [latency(arena, sender, number + 21) for number in range(SLOW_MESSAGES)]
        root = psutil.Process(worker.pid)
        processes = [root, *root.children(recursive=True)]
        resident = sum(process.memory_info().rss for process in processes) / 2**20
    return (
        f"ready {ready_s:.2f} s after the process began, {resident:.0f} MiB resident; one message "
        f"at a time, published to read: p50 {statistics.median(took_ms):.1f} ms, "
        f"p99 {statistics.quantiles(took_ms, n=100)[98]:.1f} ms"
    )


def latency(arena: Arena, sender: Any, count: int) -> float:
    """Publish one message and read its label; return the milliseconds."""
    time.sleep(1 / SLOW_RATE)
    began = time.perf_counter()
    sender.produce(arena.topics["in"], json.dumps({"message": f"{MESSAGE} ({count})"}).encode())
    sender.poll(0)
    while len(arena.results) < count:
        arena.read_once(0.001)
    return (time.perf_counter() - began) * 1e3


def model_flags(adapter: Path, precision: str) -> list[str]:
    return [f"model.adapter='{adapter}'", f"model.encoder_precision='{precision}'"]


if __name__ == "__main__":
    sys.exit(main())
