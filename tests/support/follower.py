"""A store of adapters, and a loop that serves what the store names."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.rig import NOW, Rig, make_bounds, make_loop_policy
from tests.support.toy_adapter import (
    ENCODERS,
    by_length,
    stamps,
    toy_serving_adapter,
    write_adapter,
)
from worker.contract import ENCODER_KINDS, BaseModel, Encoders, Manifest
from worker.contract.errors import AdapterRefused
from worker.contract.store import CanaryPointer, Pointer, write_canary, write_pointer
from worker.core.arms import CANARY, SHADOW, AdapterRouter, ArmRole, TrafficSplit
from worker.core.labeller import ServingAdapter
from worker.engine.fake import FakeEngine
from worker.engine.model_files import Bases, same_files
from worker.engine.open import load_cascade
from worker.engine.pacing import UNBOUNDED
from worker.engine.port import AdapterLoader, Answer, Declined, Engine
from worker.lifecycle.arm_controller import (
    ArmController,
    Restart,
    canary_adapter,
    current_adapter,
    named_adapter,
)
from worker.lifecycle.events import AdapterEvent, AdapterEvents, Loaded, Refused, Stopped, Swapped
from worker.lifecycle.preflight import AdapterFactory
from worker.lifecycle.watcher import AdapterWatcher

# A loader of adapters whose engines answer as a test says.


class FakeLoader:
    """See ``AdapterLoader``. Engines answer with ``respond``, at once."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.open: list[Engine] = []
        self.failures: list[Exception] = []
        self.respond: dict[str, Callable[[Sequence[int]], Answer | Exception]] = {}
        self.gate: threading.Event | None = None

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        if self.gate is not None:
            assert self.gate.wait(30)
        if self.failures:
            raise self.failures.pop()
        self.loaded.append(manifest.digest)
        engine = ImmediateEngine(self.respond.get(manifest.digest) or by_length(manifest))
        self.open.append(engine)
        original = engine.close

        def close() -> None:
            original()
            if engine in self.open:
                self.open.remove(engine)

        engine.close = close  # type: ignore[method-assign]
        return engine


class ImmediateEngine:
    """An engine that answers within ``submit``."""

    def __init__(self, respond: Callable[[Sequence[int]], Answer | Exception]) -> None:
        self.fake = FakeEngine(respond)
        self.precisions: tuple[str, ...] = ("fp32",)
        self.held = False
        """Keep answers back, until ``release``."""

    def submit(self, prompt_ids: Sequence[int]) -> Any:
        future = self.fake.submit(prompt_ids)
        if not self.held:
            self.fake.finish_all()
        return future

    def release(self) -> None:
        self.fake.finish_all()

    def warm_up(self, prompts: Sequence[Sequence[int]]) -> None:
        pass

    def check_health(self) -> None:
        self.fake.check_health()

    def die(self) -> None:
        self.fake.die()

    def close(self) -> None:
        self.fake.close()


WIDE = make_loop_policy(bounds=make_bounds(max_records=128), publish_max_records=50)
"""More at once than most of these tests publish in one step."""


class AdapterCounts:
    """Records the events of adapters in a short form."""

    def __init__(self) -> None:
        self.log: list[Any] = []

    def __call__(self, event: AdapterEvent) -> None:
        match event:
            case Swapped():
                self.log.append("swapped")
            case Loaded():
                self.log.append("loaded")
            case Refused():
                self.log.append(("refused", event.reason))
            case Stopped():
                self.log.append(("stopped", event.reason))


class AdapterStore:
    """An adapter store in a folder, without the trainer's gate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.moves = 0

    def add(self, manifest: Manifest) -> Path:
        target = self.folder / manifest.digest
        if not target.exists():
            target.mkdir(parents=True)
            write_adapter(target, manifest)
        return target

    def publish(self, manifest: Manifest, event: Any = "publish") -> None:
        self.add(manifest)
        write_pointer(
            self.folder,
            Pointer(manifest.digest, manifest.name, self._since(), None, "ann@desk", None, event),
        )

    def canary(self, manifest: Manifest, share: float, forced: bool = False) -> None:
        """Store an adapter and make it the canary."""
        self.add(manifest)
        since = self._since()
        write_canary(
            self.folder,
            CanaryPointer(manifest.digest, manifest.name, share, since, "ann@desk", None, forced),
        )

    def _since(self) -> str:
        """Later than the last move, so that each move writes another pointer."""
        self.moves += 1
        return f"2024-05-06T07:08:{self.moves:02}Z"


class ToyFiles(Bases):
    """The toy base, which has no files, and encoders with their own tokenizers."""

    def __init__(self, base: BaseModel) -> None:
        super().__init__([])
        self._base = base

    def encoders(self, adapter: Path, manifest: Manifest) -> Encoders:
        """See ``Bases``."""
        if not manifest.needs_base:
            return super().encoders(adapter, manifest)
        if not same_files(manifest.base, self._base):
            raise AdapterRefused(adapter, "was trained on another base than the toy")
        return ENCODERS


@dataclass(frozen=True)
class ToyKinds:
    """See ``AdapterLoader``: encoders by one loader, all others by a fake."""

    fake: FakeLoader
    onnx: AdapterLoader
    files: Bases

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        if manifest.stages:
            return load_cascade(
                self, self.files, adapter, manifest, UNBOUNDED, background=background
            )
        loader = self.onnx if manifest.kind in ENCODER_KINDS else self.fake
        return loader.load(adapter, manifest, background=background)


class Follower:
    """A rig that serves a store's adapters, and the watcher that follows the store."""

    def __init__(
        self,
        store: AdapterStore,
        first: Manifest,
        *,
        rig: Rig | None = None,
        loader: FakeLoader | None = None,
        onnx: AdapterLoader | None = None,
        shadow: str | None = None,
        shadow_share: float = 0.0,
        poll_interval_s: float = 5.0,
        patience_s: float = 0.0,
        load_timeout_s: float = 60.0,
        restart: Restart | None = None,
        declined: Declined | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.store = store
        store.publish(first)
        self.loader = loader or FakeLoader()
        self.counted = AdapterCounts()
        self.events = AdapterEvents(self.counted, lambda: NOW)
        self.rig = rig or Rig()
        engine = self.loader.load(store.folder / first.digest, first)
        split = TrafficSplit.all_to(toy_serving_adapter(engine, first))
        self.router = AdapterRouter(split, self.events)
        self.events.started(split)
        self.rig.use(self.router)
        files = ToyFiles(first.base)
        self.factory = AdapterFactory(
            files,
            self.loader if onnx is None else ToyKinds(self.loader, onnx, files),
            lambda encoders, manifest, engine: toy_serving_adapter(
                engine, manifest, encoders=encoders
            ),
            answer_s=5.0,
        )
        sources = [current_adapter(store.folder), canary_adapter(store.folder)]
        if shadow is not None:
            sources.append(named_adapter(SHADOW, store.folder, shadow, shadow_share))
        controller = ArmController(
            self.router,
            self.events,
            self.factory,
            patience_s=patience_s,
            load_timeout_s=load_timeout_s,
            restart=restart,
            declined=declined,
            clock=clock,
        )
        self.watcher = AdapterWatcher(sources, controller, self.events, poll_interval_s)
        self._controller = controller
        self.poll_once()

    @property
    def stamps(self) -> dict[str, tuple[str, str]]:
        """By record: label and adapter digest of published results."""
        return stamps(self.rig.stream.outputs)

    @property
    def main(self) -> ServingAdapter:
        return self.router.main

    @property
    def canary(self) -> ServingAdapter | None:
        return self._in(CANARY)

    @property
    def shadow(self) -> ServingAdapter | None:
        return self._in(SHADOW)

    def _in(self, role: ArmRole) -> ServingAdapter | None:
        arm = self.router.split.get(role)
        return arm.adapter if arm is not None else None

    def poll_once(self) -> None:
        """Poll the store, and wait until the adapters that it names are ready or refused."""
        self.watcher.step()
        while loading := list(self._controller._loading.values()):
            loading[0].bring_up._done.wait(0.05)
            self._controller.collect()

    def follow(self) -> None:
        """Poll the store, and run one iteration of the loop."""
        self.poll_once()
        self.rig.iterate()

    def finish(self, total: int) -> None:
        """Iterate until ``total`` records are published: engines answer on their own threads."""
        until = time.monotonic() + 30
        while sum(self.rig.committed(n) for n in range(self.rig.partitions)) < total:
            assert time.monotonic() < until
            self.rig.iterate()
            time.sleep(0.001)
