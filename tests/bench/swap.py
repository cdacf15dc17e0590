"""What a change of adapters costs the messages under way, and what it leaves behind.

    python -m tests.bench.swap                       # the worker's own part: an engine of 5 ms
    python -m tests.bench.swap --engine runtime      # vLLM, the demo's base and adapter
    python -m tests.bench.swap --engine merged

Real loop and watcher on a stream in memory; a message comes every few milliseconds.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from tests.support.fake_loader import FakeLoader
from tests.support.fakes import Events
from tests.support.follower import AdapterCounts, AdapterStore
from tests.support.policies import make_loop_policy
from tests.support.swapping import make_manifest
from tests.support.toy_adapter import ENCODERS, toy_serving_adapter
from worker.contract import Manifest, read_manifest, write_manifest
from worker.core.adapter_router import AdapterRouter
from worker.core.arms import TrafficSplit
from worker.core.batch import TopicRouter
from worker.core.loop import Loop
from worker.core.pipeline import Pipeline
from worker.demo.base_model import ensure_base_model
from worker.demo.samples import adapter_dir, read_samples
from worker.engine.model_files import LoadedBase
from worker.engine.open import open_engine
from worker.engine.pacing import AdmissionPolicy
from worker.lifecycle.arm_controller import ArmController
from worker.lifecycle.arm_source import current_adapter
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.factory import AdapterFactory
from worker.lifecycle.watcher import AdapterWatcher, close_all
from worker.logs import configure_logging
from worker.serving import make_serving_adapter
from worker.settings import RecordSettings, Settings
from worker.stream.fake import FakeStream

SWAPS = 20
ANSWER_S = 300.0


@dataclass(slots=True)
class Bench:
    """A running loop, the store it follows, and what was seen."""

    store: AdapterStore
    manifests: list[Manifest]
    router: AdapterRouter
    events: AdapterEvents
    watcher: AdapterWatcher
    loop: Loop
    stream: FakeStream
    texts: list[str]
    came: list[float] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    iterations: list[tuple[float, float]] = field(default_factory=list)


def main() -> int:
    """Measure and print."""
    engine = sys.argv[sys.argv.index("--engine") + 1] if "--engine" in sys.argv else None
    swaps = int(sys.argv[sys.argv.index("--swaps") + 1]) if "--swaps" in sys.argv else SWAPS
    interval_s = {None: 0.01, "runtime": 2.0, "merged": 0.5}[engine]
    configure_logging("console", "warning")
    print(f"{platform.platform()}, Python {platform.python_version()}, engine {engine or 'fake'}")
    with tempfile.TemporaryDirectory() as folder, _bench(engine, Path(folder)) as bench:
        measure(bench, swaps, interval_s)
    return 0


def measure(bench: Bench, swaps: int, interval_s: float) -> None:
    """Swap again and again under load."""
    stopped = threading.Event()
    worker = threading.Thread(target=_work, args=(bench, stopped, interval_s))
    process = psutil.Process()
    worker.start()
    bench.watcher.start()
    time.sleep(20 * interval_s + 1)
    loads, spans, sizes = [], [], []
    for number in range(1, swaps + 1):
        wanted = bench.manifests[number % len(bench.manifests)]
        began = time.monotonic()
        bench.store.publish(wanted, "rollback")
        while bench.router.main.digest != wanted.digest:
            time.sleep(0.001)
        loads.append(time.monotonic() - began)
        while bench.router.retired or not bench.events.idle_adapters.empty():
            time.sleep(0.001)
        spans.append((began, time.monotonic()))
        time.sleep(5 * interval_s)
        family = [process, *process.children(recursive=True)]
        sizes.append((_rss(process), sum(_rss(member) for member in family)))
    stopped.set()
    worker.join()
    during = [s for at, s in bench.latencies if any(a <= at <= b + interval_s for a, b in spans)]
    apart = [s for at, s in bench.latencies if not any(a <= at <= b + interval_s for a, b in spans)]
    print(f"{len(bench.latencies)} messages, {swaps} swaps, none lost: {_complete(bench)}")
    print(f"from published to serving: median {statistics.median(loads):.2f} s, {max(loads):.2f} s")
    for name, found in (("while an adapter is exchanged", during), ("else", apart)):
        if len(found) > 20:
            cuts = statistics.quantiles(found, n=100)
            p50, p99 = cuts[49] * 1e3, cuts[98] * 1e3
            print(f"fetched to committed {name}: p50 {p50:.1f} ms, p99 {p99:.1f}")
    with_swap = [s for at, s in bench.iterations if any(a <= at <= b for a, b in spans)]
    without = [s for at, s in bench.iterations if not any(a <= at <= b for a, b in spans)]
    longest, usual = max(with_swap, default=0.0), max(without, default=0.0)
    print(
        f"longest iteration of the loop: {longest * 1e3:.1f} ms with a swap, "
        f"{usual * 1e3:.1f} without"
    )
    told = ", ".join(f"{own:.0f} ({whole:.0f})" for own, whole in sizes)
    print(f"MiB of this process (with the engine's) after each swap: {told}")


def _work(bench: Bench, stopped: threading.Event, interval_s: float) -> None:
    """A message every ``interval_s``, and the loop. On one thread, as the stream wants it."""
    source, due, seen = bench.stream.sources[0], time.monotonic(), 0
    while not stopped.is_set() or seen < len(bench.came):
        began = time.monotonic()
        while began >= due and not stopped.is_set():
            bench.stream.add(bench.texts[len(bench.came) % len(bench.texts)].encode())
            bench.came.append(began)
            due += interval_s
        bench.loop.run_once()
        now = time.monotonic()
        if now - began > 0.002:
            bench.iterations.append((now, now - began))
        if not bench.loop.held_records:
            time.sleep(0.001)  # the stream in memory never waits
        for number in range(seen, bench.stream.committed.get(source, 0)):
            bench.latencies.append((now, now - bench.came[number]))
        seen = bench.stream.committed.get(source, 0)


def _rss(process: Any) -> float:
    try:
        return float(process.memory_info().rss) / 2**20
    except psutil.NoSuchProcess:
        return 0.0


def _complete(bench: Bench) -> bool:
    return len(bench.stream.outputs) == len(bench.came) == len(bench.latencies)


@contextmanager
def _bench(engine: str | None, folder: Path) -> Iterator[Bench]:
    store = AdapterStore(folder / "store")
    make = _fake if engine is None else _real(engine)
    manifests, adapter, factory, texts = make(store, folder)
    store.publish(manifests[0])
    events = AdapterEvents(AdapterCounts(), lambda: datetime.now(UTC))
    router = AdapterRouter(TrafficSplit.all_to(adapter), events)
    events.started(router.split)
    stream = FakeStream()
    pipeline = Pipeline(
        router,
        admission=AdmissionPolicy(max_in_engine=256, deadline_s=600),
        max_attempts=2,
        clock=time.monotonic,
    )
    loop = Loop(
        stream,
        pipeline=pipeline,
        topic_router=TopicRouter("out", "review"),
        listener=Events(),
        policy=make_loop_policy(),
        clock=time.monotonic,
        now=lambda: datetime.now(UTC),
        wait=time.sleep,
    )
    stream.subscribe(loop)
    stream.assign(0)
    controller = ArmController(router, events, factory, patience_s=0.0)
    watcher = AdapterWatcher([current_adapter(store.folder)], controller, events, 0.05)
    try:
        yield Bench(store, manifests, router, events, watcher, loop, stream, texts)
    finally:
        watcher.close()
        close_all(router, events)


Made = tuple[list[Manifest], Any, AdapterFactory, list[str]]


def _fake(store: AdapterStore, folder: Path) -> Made:
    manifests = [make_manifest(f"adapter-{n}") for n in range(4)]
    loader = FakeLoader(service_s=0.005, concurrency=8)
    first = loader.load(folder, manifests[0])
    for manifest in manifests:
        store.add(manifest)

    def serve(_: Any, manifest: Manifest, engine: Any) -> Any:
        return toy_serving_adapter(engine, manifest)

    files = LoadedBase(ENCODERS, manifests[0].base)
    factory = AdapterFactory(files, loader, serve, ANSWER_S)
    return manifests, serve(None, manifests[0], first), factory, ["hello"]


def _real(serving: str) -> Callable[[AdapterStore, Path], Made]:
    def make(store: AdapterStore, folder: Path) -> Made:
        original = read_manifest(adapter_dir())
        manifests = [replace(original, name=f"copy-{n}") for n in range(3)]
        for manifest in manifests:
            shutil.copytree(adapter_dir(), store.folder / manifest.digest)
            write_manifest(store.folder / manifest.digest, manifest)
        opened = open_engine(
            base=ensure_base_model(),
            adapter=store.folder / manifests[0].digest,
            cache_dir=folder / "merged",
            serving=serving,  # type: ignore[arg-type]
            max_adapters=3,
        )
        opened.engine.warm_up([golden.ids for golden in opened.manifest.golden])
        settings = Settings(records=RecordSettings(format="text"))

        serve = partial(make_serving_adapter, settings)
        assert opened.loader is not None
        factory = AdapterFactory(opened.model_files, opened.loader, serve, ANSWER_S)
        texts = sorted((sample.message for sample in read_samples("holdout.jsonl")), key=len)[:40]
        first = serve(opened.encoders, manifests[0], opened.engine)
        return manifests, first, factory, texts

    return make


if __name__ == "__main__":
    sys.exit(main())
