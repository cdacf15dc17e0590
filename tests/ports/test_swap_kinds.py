"""A worker changes from an encoder to a cascade with a LoRA adapter and back; all engines are real.

Needs vLLM, ONNX Runtime, the demo's base model and its adapter. The encoder is tiny and generated.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import AdapterCounts, AdapterStore
from tests.support.processes import need_vllm
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.toy_adapter import cascade_of, labels_of, toy_taxonomy
from worker.app import make_loop
from worker.contract import Manifest, read_manifest
from worker.core.loop import Loop
from worker.demo.models import read_samples
from worker.engine.open import OpenedEngine
from worker.lifecycle.watcher import close_all
from worker.policies import loop_policy
from worker.serving import make_adapter_router, make_watcher, open_model
from worker.settings import LoopSettings, ModelSettings, RecordSettings, Settings
from worker.stream.fake import FakeStream
from worker.stream.topics import Topics

pytestmark = [pytest.mark.timeout(1500), pytest.mark.long]

SETTLE_S = 900.0


@dataclass
class World:
    """A store with an adapter of each kind, and settings of a worker that follows it."""

    store: AdapterStore
    lora: Manifest
    encoder: Manifest
    settings: Settings


@pytest.fixture
def world(base_model_dir: Path, demo_adapter_dir: Path, tmp_path: Path) -> World:
    need_vllm()
    store = AdapterStore(tmp_path / "store")
    lora = read_manifest(demo_adapter_dir)
    shutil.copytree(demo_adapter_dir, store.folder / lora.digest)
    made = write_tiny_encoder(tmp_path / "encoder", taxonomy=toy_taxonomy(labels_of("encoder")))
    encoder = read_manifest(made)
    made.rename(store.folder / encoder.digest)
    # The base is one of several in a folder.
    bases = tmp_path / "bases"
    bases.mkdir()
    (bases / "smollm").symlink_to(base_model_dir)
    (bases / "other").mkdir()
    (bases / "other" / "config.json").write_text("{}")
    settings = Settings(
        model=ModelSettings(adapter=store.folder, bases=(bases,)),
        records=RecordSettings(format="text"),
        loop=LoopSettings(max_in_flight=64, deadline_s=300),
    )
    return World(store, lora, encoder, settings)


@pytest.fixture
def opened(world: World) -> Iterator[OpenedEngine]:
    world.store.publish(world.encoder)
    began = time.monotonic()
    opened = open_model(world.settings, watch=True)
    assert opened.serving == "onnx"
    assert time.monotonic() - began < 30, "vLLM was not started for an encoder"
    yield opened
    opened.engine.close()


def test_from_an_encoder_to_a_cascade_and_back_under_load(
    world: World, opened: OpenedEngine, tmp_path: Path
) -> None:
    """The cascade's engines run at the same time. Each record has a label of the adapter in its
    stamp, and names the stage that answered."""
    small = write_tiny_encoder(tmp_path / "small", name="small", taxonomy=world.lora.taxonomy)
    first = read_manifest(small)
    small.rename(world.store.folder / first.digest)
    # It guesses, so its confidence can be anything: take some of both sides.
    cascade = cascade_of(first, world.lora, sure_from=0.25)
    found = follow(world, opened, cascade, world.encoder)
    bound = [value for value in found if value["adapter"]["digest"] == cascade.digest]
    assert {value["cascade"]["stage"] for value in bound} == {1, 2}
    for value in found:
        taxonomy = cascade.taxonomy if value in bound else world.encoder.taxonomy
        assert value["label"] in taxonomy.names
    for value in bound:
        stage = value["cascade"]["stage"]
        assert value["cascade"]["answered"]["digest"] == cascade.stages[stage - 1].digest
        assert ("out_of_scope" in value) == (stage == 1)
        assert (value["off_label_mass"] is None) == (stage == 1)


def follow(world: World, opened: OpenedEngine, *manifests: Manifest) -> list[dict[str, Any]]:
    """Let a worker serve one after the other under load; return its results, one for each
    message."""
    counted = AdapterCounts()
    router, events = make_adapter_router(world.settings, opened, counted)
    watcher = make_watcher(world.settings, opened, router, events)
    assert watcher is not None
    stream = FakeStream()
    topics = Topics(("in",), "out", "review", "dead")
    loop = make_loop(world.settings, stream, router, topics, loop_policy(world.settings))
    stream.subscribe(loop)
    stream.assign(0)
    watcher.start()
    texts = sorted((sample.message for sample in read_samples("holdout.jsonl")), key=len)[:40]
    added = 0
    try:
        for manifest in manifests:
            world.store.publish(manifest, "force")
            until = time.monotonic() + SETTLE_S
            while router.main.digest != manifest.digest:
                assert time.monotonic() < until, events.last_refusal
                added += work(stream, loop, texts[:8])
            for at in range(5):
                added += work(stream, loop, texts[8 * at :][:8])
        finish(stream, loop, added)
    finally:
        watcher.close()
        close_all(router, events)
    found = [json.loads(output.value) for output in stream.outputs if output.value is not None]
    assert len({value["id"] for value in found}) == len(found) == len(stream.outputs) == added
    assert counted.log.count("swapped") == len(manifests)
    return found


def work(stream: FakeStream, loop: Loop, texts: list[str]) -> int:
    """Add messages and run the loop a little; some stay in the engine."""
    for text in texts:
        stream.add(text.encode())
    for _ in range(10):
        loop.run_once()
    time.sleep(0.05)
    return len(texts)


def finish(stream: FakeStream, loop: Loop, added: int) -> None:
    until = time.monotonic() + SETTLE_S
    while stream.committed.get(stream.sources[0], 0) < added:
        assert time.monotonic() < until
        loop.run_once()
