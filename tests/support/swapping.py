"""Adapters that can be told apart by their answers, a store of them, a worker that follows it."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.helpers import (
    ENCODERS,
    NOW,
    Rig,
    one_golden,
    toy_manifest,
    toy_served,
    toy_spec,
    toy_taxonomy,
)
from worker.contract import Manifest, Probe, Reference, write_manifest
from worker.contract.store import CanaryPointer, Pointer, write_canary, write_pointer
from worker.core.adapter_router import AdapterRouter
from worker.core.serving_adapter import ServingAdapter, TrafficSplit
from worker.engine.fake import FakeEngine
from worker.engine.port import Answer, CodeScores, Engine
from worker.lifecycle.events import AdapterEvents
from worker.lifecycle.watcher import AdapterFactory, AdapterWatcher, WatcherPolicy

PROBES = ("where is my parcel", "I was charged twice", "hello")


def labels_of(name: str) -> tuple[str, str]:
    """The labels of an adapter whose answers nobody else could give."""
    return f"{name}-a", f"{name}-b"


def make_manifest(name: str, **changes: Any) -> Manifest:
    """An adapter with labels, prompt and codes of its own: a mixture would be seen."""
    spec = toy_spec(max_message_tokens=24 + len(name))
    return toy_manifest(
        name=name,
        taxonomy=toy_taxonomy(labels_of(name)),
        prompt=spec,
        golden=one_golden(spec),
        **changes,
    )


def with_probes(manifest: Manifest, *labels: str) -> Manifest:
    """The same adapter, with a label recorded for each of the probes."""
    probes = tuple(Probe(text, label) for text, label in zip(PROBES, labels, strict=True))
    names = manifest.taxonomy.names
    reference = Reference(probes, dict.fromkeys(names, 1 / len(names)), {}, {})
    return replace(manifest, reference=reference)


def answer_with(manifest: Manifest, label: str, p: float = 0.9) -> Answer:
    """Scores by this adapter's codes."""
    rest = (0.99 - p) / max(1, len(manifest.codes) - 1)
    return CodeScores(
        {c.token_id: math.log(p if one == label else rest) for one, c in manifest.codes.items()}
    )


def by_length(manifest: Manifest) -> Callable[[Sequence[int]], Answer]:
    """Answer with one of the adapter's labels, by the prompt's length."""
    names = manifest.taxonomy.names
    return lambda prompt: answer_with(manifest, names[len(prompt) % len(names)])


class FakeLoader:
    """See ``AdapterLoader``. Engines answer as ``respond`` says, at once or after ``service_s``."""

    def __init__(self, service_s: float | None = None, concurrency: int = 4) -> None:
        self.service_s = service_s
        self.concurrency = concurrency
        self.loaded: list[str] = []
        self.open: list[Engine] = []
        self.failures: list[Exception] = []
        self.respond: dict[str, Callable[[Sequence[int]], Answer | Exception]] = {}
        self.gate: threading.Event | None = None

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Make an engine."""
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop()
        self.loaded.append(manifest.digest)
        engine = AtOnce(self.respond.get(manifest.digest) or by_length(manifest))
        if self.service_s is not None:
            engine = FakeEngine(  # type: ignore[assignment]
                self.respond.get(manifest.digest) or by_length(manifest),
                service_s=self.service_s,
                concurrency=self.concurrency,
            )
        self.open.append(engine)
        original = engine.close

        def close() -> None:
            original()
            if engine in self.open:
                self.open.remove(engine)

        engine.close = close  # type: ignore[method-assign]
        return engine


class AtOnce:
    """An engine that answers within ``submit``."""

    def __init__(self, respond: Callable[[Sequence[int]], Answer | Exception]) -> None:
        self.fake = FakeEngine(respond)
        self.held = False
        """Keep answers back, until ``release``."""

    def submit(self, prompt_ids: Sequence[int]) -> Any:
        """Answer."""
        future = self.fake.submit(prompt_ids)
        if not self.held:
            self.fake.finish_all()
        return future

    def release(self) -> None:
        """Answer what waits."""
        self.fake.finish_all()

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        """Do nothing."""

    def check_health(self) -> None:
        """Raise EngineDied once closed."""
        self.fake.check_health()

    def die(self) -> None:
        """Die."""
        self.fake.die()

    def close(self) -> None:
        """End."""
        self.fake.close()


class Counted:
    """See ``Counters``: keeps what it is told."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def serves(self, split: TrafficSplit) -> None:
        """Nothing."""

    def swapped(self, result: str) -> None:
        """Keep it."""
        self.log.append(result)

    def refused(self, reason: str) -> None:
        """Keep it."""
        self.log.append(("refused", reason))

    def loaded(self, seconds: float) -> None:
        """Keep it."""
        self.log.append("loaded")

    def canary_stopped(self, reason: str) -> None:
        """Keep it."""
        self.log.append(("stopped", reason))


class StoreOf:
    """An adapter store in a folder, without the trainer's gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moves = 0

    def add(self, manifest: Manifest) -> Path:
        """Store an adapter."""
        target = self.folder / manifest.digest
        if not target.exists():
            target.mkdir(parents=True)
            write_manifest(target, manifest)
        return target

    def publish(self, manifest: Manifest, event: Any = "publish") -> None:
        """Store an adapter and make it current."""
        self.add(manifest)
        self.moves += 1
        since = f"2024-05-06T07:08:{self.moves:02}Z"
        write_pointer(
            self.folder,
            Pointer(manifest.digest, manifest.name, since, None, "ann@desk", None, event),
        )

    def canary(self, manifest: Manifest, share: float, forced: bool = False) -> None:
        """Store an adapter and put it on trial."""
        self.add(manifest)
        self.moves += 1
        since = f"2024-05-06T07:08:{self.moves:02}Z"
        write_canary(
            self.folder,
            CanaryPointer(manifest.digest, manifest.name, share, since, "ann@desk", None, forced),
        )


class Follower:
    """A rig whose loop is served by a store's adapters, and the keeper that follows the store."""

    def __init__(
        self,
        store: StoreOf,
        first: Manifest,
        *,
        rig: Rig | None = None,
        loader: FakeLoader | None = None,
        **policy: Any,
    ) -> None:
        self.store = store
        store.publish(first)
        self.loader = loader or FakeLoader()
        self.counted = Counted()
        self.service = AdapterEvents(self.counted, lambda: NOW)
        self.rig = rig or Rig()
        engine = self.loader.load(store.folder / first.digest, first)
        self.router = AdapterRouter(TrafficSplit(toy_served(engine, first)), self.service)
        self.service.starts(self.router.split)
        self.rig.loop._pipeline._router = self.router
        self.rig.router = self.router
        self.watcher = AdapterWatcher(
            store.folder,
            self.router,
            self.service,
            AdapterFactory(
                ENCODERS, self.loader, lambda manifest, engine: toy_served(engine, manifest)
            ),
            WatcherPolicy(**{"answer_s": 5.0, **policy}),
        )
        self.watcher.look()

    @property
    def main(self) -> ServingAdapter:
        """Who serves."""
        return self.router.main

    def follow(self) -> None:
        """Look at the store, and let a turn of the loop pass."""
        self.watcher.look()
        self.rig.turn()


def stamps(outputs: Sequence[Any]) -> dict[str, tuple[str, str]]:
    """By record: label and digest of the result, dead letters left out. Twice is an error."""
    found: dict[str, tuple[str, str]] = {}
    for one in outputs:
        if one.topic == "dead":
            continue
        value = json.loads(one.value)
        assert value["id"] not in found, "published twice"
        found[value["id"]] = (value["label"], value["adapter"]["digest"])
    return found
