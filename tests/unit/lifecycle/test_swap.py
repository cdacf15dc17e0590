"""Adapters change under load; no record is lost, doubled, or labelled by two adapters."""

from __future__ import annotations

import gc
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import WIDE, AdapterStore, Follower
from tests.support.rig import Rig
from tests.support.toy_adapter import ONE, THREE, TWO, labels_of, make_manifest
from worker.core.labeller import ServingAdapter
from worker.observe.listener import KEPT, AdapterMetrics
from worker.observe.registry import Registry

pytestmark = pytest.mark.slow


def test_swaps_over_thousands_of_messages_lose_and_mix_nothing(tmp_path: Path) -> None:
    manifests = [make_manifest(f"adapter-{n}") for n in range(6)]
    labels = {manifest.digest: set(manifest.taxonomy.names) for manifest in manifests}
    rig = Rig(policy=WIDE, partitions=3)
    follower = Follower(AdapterStore(tmp_path), manifests[0], rig=rig)
    rig.stream.assign(0, 1, 2)
    total = 0
    for number in range(21):
        for _ in range(5):
            for partition in range(3):
                rig.add(*(f"message {total + n}" for n in range(20)), partition=partition)
                total += 20
            engine: Any = follower.main.engine
            engine.held = True
            rig.iterate()  # some are in the old adapter's engine
            engine.held = False
            if rig.loop.state.in_flight_records and _ == 2:
                follower.store.publish(manifests[(number + 1) % 6])
                follower.poll_once()
                rig.iterate()
            engine.release()
            rig.iterate(3)
    rig.iterate(20)
    found = follower.stamps
    assert len(found) == total == sum(rig.committed(n) for n in range(3)) > 5000
    assert all(label in labels[digest] for label, digest in found.values())
    assert len({digest for _, digest in found.values()}) == 6
    assert follower.counted.log.count("swapped") == 21
    follower.poll_once()
    assert len(follower.loader.open) == 1, "an old adapter is still loaded"


def test_records_keep_the_adapter_they_were_admitted_with(
    follower: Follower,
) -> None:
    old: Any = follower.main.engine
    old.held = True
    follower.rig.add("m0", "m1")
    follower.rig.iterate()
    follower.store.publish(TWO)
    follower.follow()
    follower.rig.add("m2", "m3")
    follower.rig.iterate(3)
    assert follower.main.digest == TWO.digest
    assert follower.stamps == {}, "order: nothing overtakes"
    assert old in follower.loader.open, "it was closed with records in flight"
    old.release()
    follower.rig.iterate(3)
    found = follower.stamps
    assert [found[f"in-0-{n}"][1] for n in range(4)] == [ONE.digest] * 2 + [TWO.digest] * 2
    assert all(found[f"in-0-{n}"][0] in labels_of("one") for n in range(2))
    assert all(found[f"in-0-{n}"][0] in labels_of("two") for n in range(2, 4))
    follower.poll_once()
    assert old not in follower.loader.open


def test_labelling_goes_on_while_an_adapter_loads(tmp_path: Path) -> None:
    follower = Follower(AdapterStore(tmp_path), ONE, rig=Rig(policy=WIDE), poll_interval_s=0.01)
    follower.rig.stream.assign(0)
    gate = follower.loader.gate = threading.Event()
    follower.watcher.start()
    follower.store.publish(TWO)
    for number in range(300):
        follower.rig.add(f"m{number}")
        follower.rig.iterate()
    assert follower.rig.committed() >= 298
    assert {digest for _, digest in follower.stamps.values()} == {ONE.digest}
    gate.set()
    until = time.monotonic() + 20
    while follower.main.digest != TWO.digest:
        assert time.monotonic() < until
        follower.rig.iterate()
        time.sleep(0.001)
    follower.watcher.close()


def test_an_adapter_that_is_replaced_before_it_served_is_unloaded(follower: Follower) -> None:
    follower.store.publish(TWO)
    follower.poll_once()
    follower.store.publish(THREE)
    follower.follow()
    follower.poll_once()
    assert follower.main.digest == THREE.digest
    assert len(follower.loader.open) == 1


def test_old_adapters_leave_nothing_behind(follower: Follower) -> None:
    registry = Registry()
    follower.events._count = AdapterMetrics(registry)
    for number in range(20):
        follower.store.publish(make_manifest(f"twenty-{number}"))
        follower.follow()
        follower.rig.add(f"m{number}")
        follower.rig.iterate(3)
        if number == 9:
            half = len(registry.page().splitlines())
    follower.poll_once()
    gc.collect()
    # By type: isinstance would ask each for its class, and some objects of PyTorch warn of that.
    alive = [adapter for adapter in gc.get_objects() if type(adapter) is ServingAdapter]
    ours = [adapter for adapter in alive if adapter.manifest.name.startswith("twenty-")]
    assert ours == [follower.main]
    assert len(follower.loader.open) == 1
    page = registry.page().decode()
    assert follower.main.digest[:12] in page
    assert ONE.digest[:12] not in page
    by_adapter = [line for line in page.splitlines() if 'adapter="' in line]
    assert len({line.split('adapter="')[1][:12] for line in by_adapter}) == KEPT
    assert len(page.splitlines()) < half * 1.5


def test_when_the_old_adapters_engine_dies_the_new_one_labels_its_records(
    follower: Follower,
) -> None:
    old: Any = follower.main.engine
    old.held = True
    follower.rig.add("m0", "m1", "m2")
    follower.rig.iterate()
    follower.store.publish(TWO)
    follower.follow()
    old.die()
    follower.rig.iterate(3)
    found = follower.stamps
    assert {digest for _, digest in found.values()} == {TWO.digest}
    assert all(label in labels_of("two") for label, _ in found.values())
    assert len(found) == 3
    follower.poll_once()
    assert len(follower.loader.open) == 1
