"""An adapter whose load fails, hangs, or is replaced is reported and blocks nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import AdapterStore, FakeLoader, Follower
from tests.support.toy_adapter import ONE, THREE, TWO
from worker.contract import Manifest
from worker.contract.store import remove_canary
from worker.engine.port import Engine


class HangingLoader(FakeLoader):
    """A loader whose engines for some adapters hang in their warm-up until ``release``."""

    def __init__(self) -> None:
        super().__init__()
        self.hanging: set[str] = set()
        self.release = threading.Event()
        self.entered = threading.Event()

    def load(self, adapter: Path, manifest: Manifest, *, background: bool = False) -> Engine:
        """Make an engine that hangs when it is warmed up."""
        engine = super().load(adapter, manifest, background=background)
        if manifest.digest in self.hanging:
            engine.warm_up = self._hang  # type: ignore[method-assign]
        return engine

    def _hang(self, prompts: Any) -> None:
        del prompts
        self.entered.set()
        self.release.wait(30)


class Clock:
    """A clock that a test moves (seconds)."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def loader() -> Iterator[HangingLoader]:
    """At the end, all loads that hang are released."""
    made = HangingLoader()
    yield made
    made.release.set()


def until(condition: Callable[[], bool], follower: Follower) -> None:
    """Iterate the loop until ``condition`` is true."""
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        follower.rig.iterate()
        time.sleep(0.01)


@pytest.mark.parametrize("where", ["load", "warm_up"])
def test_an_unexpected_error_of_an_engine_is_a_refusal(follower: Follower, where: str) -> None:
    """CUDA out of memory, for example, must appear in log, metrics, and ``/info``."""
    error = RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
    if where == "load":
        follower.loader.failures = [error]
    else:
        original = follower.loader.load

        def load(*args: Any, **kwargs: Any) -> Any:
            engine: Any = original(*args, **kwargs)

            def warm_up(_: Any) -> None:
                raise error

            engine.warm_up = warm_up
            return engine

        follower.loader.load = load  # type: ignore[method-assign]
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == ONE.digest
    refused = follower.events.refused["main"]
    assert (refused.digest, refused.reason) == (TWO.digest, "engine")
    assert "CUDA out of memory" in refused.problem
    assert follower.counted.log == [("refused", "engine")]
    assert len(follower.loader.open) == 1


@pytest.mark.parametrize("hangs", ["main", "canary"])
def test_the_main_adapter_changes_while_another_load_hangs(
    tmp_path: Path, loader: HangingLoader, hangs: str
) -> None:
    follower = Follower(AdapterStore(tmp_path), ONE, loader=loader, poll_interval_s=0.02)
    loader.hanging = {TWO.digest}
    follower.watcher.start()
    if hangs == "main":
        follower.store.publish(TWO)
    else:
        follower.store.canary(TWO, 0.5)
    until(loader.entered.is_set, follower)
    follower.store.publish(THREE, "rollback")
    until(lambda: follower.main.digest == THREE.digest, follower)
    if hangs == "canary":
        remove_canary(follower.store.folder)
        time.sleep(0.1)  # the watcher follows that before the load returns
    loader.release.set()
    until(lambda: len(loader.open) == 1, follower)
    assert follower.main.digest == THREE.digest
    assert follower.canary is None
    follower.watcher.close()


def test_a_load_that_hangs_is_refused_after_its_timeout(
    tmp_path: Path, loader: HangingLoader
) -> None:
    clock = Clock()
    follower = Follower(
        AdapterStore(tmp_path), ONE, loader=loader, load_timeout_s=600.0, clock=clock
    )
    loader.hanging = {TWO.digest}
    follower.store.publish(TWO)
    follower.watcher.step()
    assert loader.entered.wait(10)
    clock.now = 599.0
    follower.watcher.step()
    assert follower.events.refused == {}
    clock.now = 601.0
    follower.watcher.step()
    assert follower.events.refused["main"].reason == "hung"
    clock.now = 10_000.0
    follower.follow()
    assert loader.loaded.count(TWO.digest) == 1
    loader.release.set()
    follower.store.publish(THREE)
    follower.follow()
    assert follower.main.digest == THREE.digest


def test_a_temporary_failure_is_tried_again_four_times(tmp_path: Path) -> None:
    clock = Clock()
    follower = Follower(AdapterStore(tmp_path), ONE, clock=clock)
    follower.loader.failures = [RuntimeError("CUDA out of memory")] * 10
    follower.store.publish(TWO)
    follower.follow()
    tries = []
    for second in range(0, 4000, 5):
        clock.now = float(second)
        left = len(follower.loader.failures)
        follower.follow()
        if len(follower.loader.failures) < left:
            tries.append(second)
    assert tries == [60, 180, 420, 900]
    assert follower.counted.log.count(("refused", "engine")) == 5
    assert "main" in follower.events.refused


def test_a_canary_that_is_promoted_while_it_loads_is_loaded_once(
    tmp_path: Path, loader: HangingLoader
) -> None:
    follower = Follower(AdapterStore(tmp_path), ONE, loader=loader)
    loader.hanging = {TWO.digest}
    follower.store.canary(TWO, 0.5)
    follower.watcher.step()
    assert loader.entered.wait(10)
    follower.store.publish(TWO, "promote")
    follower.watcher.step()
    loader.release.set()
    follower.follow()
    assert follower.main.digest == TWO.digest
    assert loader.loaded.count(TWO.digest) == 1


def test_an_adapter_that_cannot_be_unloaded_does_not_block_the_next_one(follower: Follower) -> None:
    engine: Any = follower.main.engine

    def close() -> None:
        raise TimeoutError

    engine.close = close
    follower.store.publish(TWO)
    follower.follow()
    follower.follow()
    follower.store.publish(THREE)
    follower.follow()
    follower.follow()
    assert follower.main.digest == THREE.digest
