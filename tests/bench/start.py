"""The parts of a start: where the time goes until the worker can join its group.

    python -m tests.bench.start [--rounds 3]

Starts the demo's model in a process of its own, in turn with its core as a fork of a server (the
way on a CPU) and as vLLM starts its processes by itself (the way on a GPU), and prints the median
of each part: seconds on the clock, and of CPU, of the process and all below it. The second
subtracts what others do on the machine, and none is idle: two CPUs at work count twice.
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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil

WAYS: dict[str, dict[str, Any]] = {
    "fork": {},
    "spawn": {"distributed_executor_backend": "mp"},
}

PARTS = {
    "worker.engine.model_files.load_encoders": "tokenizer",
    "worker.engine.open.verify_files": "adapter and base verified",
    "worker.engine.model_files.verify_base": "adapter and base verified",
    "worker.engine.open.vllm_runs_on_cpu": "vLLM imported",
    "worker.engine.vllm_config.vllm_runs_on_cpu": "vLLM imported",
    "worker.engine.vllm_engine.vllm_config": "configured",
    "worker.engine.open.VllmEngine": "core: imports, weights, cache",
    "worker.engine.vllm_engine.AdapterView.warm_up": "warm-up",
    "worker.serving.check_own_probes": "own probes",
}
"""What is measured, by name; one that runs within another is not counted twice."""

REST = "Python, our own modules"


class Stopwatch:
    """Seconds on the clock and of CPU by part; the innermost part that runs gets them."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}
        self._running = [REST]
        self._process = psutil.Process()
        self._since = (self._process.create_time(), 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what happens in the context for ``name``."""
        self.lap()
        self._running.append(name)
        try:
            yield
        finally:
            self.lap()
            self._running.pop()

    def lap(self) -> None:
        """Give the running part what has passed."""
        now = (time.time(), self._cpu_s())
        wall, cpu = self.parts.setdefault(self._running[-1], [0.0, 0.0])
        self.parts[self._running[-1]] = [
            wall + now[0] - self._since[0],
            cpu + now[1] - self._since[1],
        ]
        self._since = now

    def _cpu_s(self) -> float:
        used = sum(self._process.cpu_times()[:4])  # its own, and of those that have ended
        for process in self._process.children(recursive=True):
            used += sum(process.cpu_times()[:4])
        return float(used)

    def measured(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Return the function, with its time counted."""

        def run(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return run


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.once:
        start(given.once)
        return 0
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    found: dict[str, list[dict[str, list[float]]]] = {way: [] for way in WAYS}
    for number in range(given.rounds):
        for way, rounds in found.items():
            rounds.append(measure(way))
            wall, cpu = total(rounds[-1])
            print(f"round {number + 1}, {way}: {wall:.1f} s, CPU {cpu:.1f} s", flush=True)
    report(found)
    return 0


def start(way: str) -> None:
    """Start once, in this process; print the parts as JSON."""
    watch = Stopwatch()
    from worker.demo.base_model import ensure_base_model
    from worker.demo.models import adapter_dir
    from worker.engine import open as _open  # noqa: F401 - what is measured has to be there
    from worker.serving import open_model
    from worker.settings import Settings

    for path, name in PARTS.items():
        replace(path, watch, name)
    model = {"base": ensure_base_model(), "adapter": adapter_dir(), "engine_args": WAYS[way]}
    opened = open_model(Settings.model_validate({"model": model}), metrics=True)
    watch.lap()
    print(json.dumps(watch.parts), flush=True)
    opened.engine.close()


def replace(path: str, watch: Stopwatch, name: str) -> None:
    """Have a function or method counted wherever it is called by this name."""
    owner, attribute = path.rsplit(".", 1)
    if owner not in sys.modules:
        owner, outer = owner.rsplit(".", 1)
        holder = getattr(sys.modules[owner], outer)
    else:
        holder = sys.modules[owner]
    setattr(holder, attribute, watch.measured(getattr(holder, attribute), name))


def measure(way: str) -> dict[str, list[float]]:
    """Start in a process of its own; return the parts."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.start", "--once", way],
        capture_output=True,
        text=True,
        check=True,
    )
    parts: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return parts


def total(parts: dict[str, list[float]]) -> tuple[float, float]:
    """Return seconds on the clock and of CPU of all parts."""
    return sum(wall for wall, _ in parts.values()), sum(cpu for _, cpu in parts.values())


def report(found: dict[str, list[dict[str, list[float]]]]) -> None:
    """Print the medians as a table, and the ratios pair by pair."""
    print(f"{'seconds (of CPU)':32}" + "".join(f"{way:>16}" for way in found))
    for part in [REST, *dict.fromkeys(PARTS.values())]:
        line = f"{part:32}"
        for rounds in found.values():
            walls, cpus = zip(*(parts.get(part, [0, 0]) for parts in rounds), strict=True)
            line += f"{statistics.median(walls):9.1f} ({statistics.median(cpus):4.1f})"
        print(line)
    totals = {way: [total(parts) for parts in rounds] for way, rounds in found.items()}
    line = f"{'until it could join':32}"
    for pairs in totals.values():
        wall, cpu = (statistics.median(column) for column in zip(*pairs, strict=True))
        line += f"{wall:9.1f} ({cpu:4.1f})"
    print(line)
    for index, kind in enumerate(("clock", "CPU")):
        ratios = [
            fork[index] / spawn[index]
            for fork, spawn in zip(totals["fork"], totals["spawn"], strict=True)
        ]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"fork / spawn, {kind}: median {statistics.median(ratios):.2f} ({spread})")


if __name__ == "__main__":
    sys.exit(main())
