"""Adapters change under load in the real engine, for both kinds of scoring.

Needs vLLM, the demo's base model and its adapter. The other adapters have the same weights, with
the codes assigned to other labels. So each adapter gives the same message a different label, and an
answer read by the wrong contract would be noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.support.follower import AdapterCounts, AdapterStore
from tests.support.processes import need_vllm
from worker.app import make_loop
from worker.contract import Manifest, read_manifest, write_manifest
from worker.core.arms import AdapterRouter, TrafficSplit
from worker.demo.models import read_samples
from worker.engine.open import open_engine
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.watcher import AdapterWatcher, close_all
from worker.policies import loop_policy
from worker.serving import make_serving_adapter, make_watcher
from worker.settings import LoopSettings, ModelSettings, RecordSettings, Settings
from worker.stream.fake import FakeStream
from worker.stream.topics import Topics

pytestmark = [pytest.mark.long, pytest.mark.timeout(3000)]

MESSAGES = int(os.environ.get("CLERK_TEST_SWAP_MESSAGES", "240"))
Serving = Literal["runtime", "merged"]
# Each merged adapter has its own engine, which takes most of a minute to start.
ORDERS: dict[Serving, tuple[int, ...]] = {"runtime": (1, 2, 3, 0), "merged": (1, 0)}


@dataclass(slots=True)
class Bench:
    """A loop on a fake stream with the real engine, following a store."""

    stream: FakeStream
    loop: Any
    router: AdapterRouter
    events: AdapterEvents
    counted: AdapterCounts
    watcher: AdapterWatcher
    store: AdapterStore
    manifests: list[Manifest]
    order: tuple[int, ...]
    added: int = 0

    def work(self, messages: int, texts: list[str]) -> None:
        """Publish messages and process all but a few, which stay in the engine."""
        for _ in range(messages):
            text = f"{texts[self.added % len(texts)]} ({self.added})"
            self.stream.add(text.encode())
            self.added += 1
        while self.committed < self.added - 4:
            self.loop.run_once()

    def finish(self) -> None:
        while self.committed < self.added:
            self.loop.run_once()

    @property
    def committed(self) -> int:
        return self.stream.committed.get(self.stream.sources[0], 0)


def dealt(manifest: Manifest, number: int) -> Manifest:
    """The same adapter with its codes assigned to other labels: another digest, other answers."""
    names = manifest.taxonomy.names
    codes = list(manifest.codes.values())
    turned = codes[number:] + codes[:number]
    return replace(
        manifest,
        name=f"dealt-{number}",
        codes=dict(zip(names, turned, strict=True)),
        reference=None,
    )


@pytest.fixture(params=["runtime", "merged"])
def bench(
    request: pytest.FixtureRequest, base_model_dir: Path, demo_adapter_dir: Path, tmp_path: Path
) -> Iterator[Bench]:
    need_vllm()
    serving: Serving = request.param
    original = read_manifest(demo_adapter_dir)
    store = AdapterStore(tmp_path / "store")
    manifests = [dealt(original, number) for number in range(len(ORDERS[serving]))]
    for manifest in manifests:
        folder = store.folder / manifest.digest
        shutil.copytree(demo_adapter_dir, folder)
        write_manifest(folder, manifest)
    store.publish(manifests[0])
    settings = Settings(
        model=ModelSettings(base=base_model_dir, adapter=store.folder),
        records=RecordSettings(format="text"),
        loop=LoopSettings(max_in_flight=8, deadline_s=1500),
    )
    opened = open_engine(
        base=base_model_dir,
        adapter=store.folder / manifests[0].digest,
        cache_dir=tmp_path / "merged",
        serving=serving,
        max_adapters=3,
    )
    counted = AdapterCounts()
    events = AdapterEvents(counted, lambda: datetime.now(UTC))
    adapter = make_serving_adapter(settings, opened.encoders, opened.manifest, opened.engine)
    router = AdapterRouter(TrafficSplit.all_to(adapter), events)
    events.started(router.split)
    watcher = make_watcher(settings, opened, router, events)
    assert watcher is not None
    stream = FakeStream()
    topics = Topics(("in",), "out", "review", "dead")
    loop = make_loop(settings, stream, router, topics, loop_policy(settings))
    stream.subscribe(loop)
    stream.assign(0)
    watcher.start()
    try:
        yield Bench(
            stream, loop, router, events, counted, watcher, store, manifests, ORDERS[serving]
        )
    finally:
        watcher.close()
        close_all(router, events)


def test_swaps_under_load_mix_no_answers_and_leave_nothing_behind(bench: Bench) -> None:
    # Short ones, repeated, so that each is answered by several adapters.
    samples = sorted((sample.message for sample in read_samples("holdout.jsonl")), key=len)
    texts = samples[: max(5, MESSAGES // 12)]
    share = MESSAGES // (len(bench.order) + 1)
    bench.work(share, texts)
    waits: list[float] = []
    for number in bench.order:
        wanted = bench.manifests[number].digest
        bench.store.publish(bench.manifests[number], "rollback")
        began = time.monotonic()
        while bench.router.main.digest != wanted:
            assert time.monotonic() - began < 1200, bench.events.last_refusal
            bench.work(1, texts)
            time.sleep(0.1)
        waits.append(time.monotonic() - began)
        bench.work(share, texts)
    bench.finish()
    assert bench.counted.log.count("swapped") == len(bench.order)
    found = {}
    for output in bench.stream.outputs:
        assert output.topic in {"out", "review"}, dict(output.headers)
        assert output.value is not None
        value = json.loads(output.value)
        assert value["id"] not in found, "twice"
        found[value["id"]] = value
    assert len(found) == bench.added
    assert {value["adapter"]["digest"] for value in found.values()} == {
        manifest.digest for manifest in bench.manifests
    }
    check_answers(bench, found, texts)
    until = time.monotonic() + 120
    while bench.router.retired or not bench.events.idle_adapters.empty():
        assert time.monotonic() < until
        bench.loop.run_once()
        time.sleep(0.05)
    print(f"\n{len(found)} messages, swaps after {[round(wait, 1) for wait in waits]} s")


def check_answers(bench: Bench, found: dict[str, Any], texts: list[str]) -> None:
    """Undo each adapter's assignment: the same code must have won with all adapters. Messages of
    one text differ only in a number, so nearly all have the same winner. A label read with
    another adapter's codes would always be off by one to three places."""
    winners: dict[int, list[int]] = {}
    for number in range(bench.added):
        value = found[f"in-0-{number}"]
        manifest = next(
            candidate
            for candidate in bench.manifests
            if candidate.digest == value["adapter"]["digest"]
        )
        if value["confidence"] > 0.9:
            winners.setdefault(number % len(texts), []).append(winner(manifest, value["label"]))
    several = [tokens for tokens in winners.values() if len(tokens) > 1]
    agreeing = sum(len(set(tokens)) == 1 for tokens in several)
    assert len(several) > MESSAGES // 60
    assert agreeing / len(several) > 0.9, (agreeing, len(several))


def winner(manifest: Manifest, label: str) -> int:
    return manifest.codes[label].token_id
