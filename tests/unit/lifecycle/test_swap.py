"""Adapters change under load, and no record is dropped, done twice or stamped by two."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.fake_loader import FakeLoader
from tests.support.follower import AdapterStore, Follower
from tests.support.policies import make_bounds, make_loop_policy
from tests.support.rig import Rig
from tests.support.swapping import answer_with, labels_of, make_manifest, stamps, with_probes
from tests.support.toy_adapter import toy_manifest
from worker.contract import BaseModel, FileDigest, Thresholds, write_manifest
from worker.contract.store import CURRENT_NAME
from worker.core.serving_adapter import ServingAdapter
from worker.errors import EngineDied
from worker.observe.adapters import KEPT, AdapterMetrics
from worker.observe.registry import Registry

WIDE = make_loop_policy(bounds=make_bounds(max_records=64), publish_max_records=50)
ONE, TWO, THREE = (make_manifest(name) for name in ("one", "two", "three"))


@pytest.fixture
def follower(tmp_path: Path) -> Follower:
    found = Follower(AdapterStore(tmp_path), ONE, rig=Rig(policy=WIDE))
    found.rig.stream.assign(0)
    return found


def by(follower: Follower) -> dict[str, tuple[str, str]]:
    return stamps(follower.rig.stream.outputs)


def test_many_swaps_over_thousands_of_messages_drop_none_and_mix_none(tmp_path: Path) -> None:
    """Each adapter can only answer with labels of its own: label and stamp always agree."""
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
            rig.iterate()  # some are in the engine of the one that goes
            engine.held = False
            if rig.loop.held_records and _ == 2:
                follower.store.publish(manifests[(number + 1) % 6])
                follower.watcher.poll_once()
                rig.iterate()
            engine.release()
            rig.iterate(3)
    rig.iterate(20)
    found = by(follower)
    assert len(found) == total == sum(rig.committed(n) for n in range(3)) > 5000
    assert all(label in labels[digest] for label, digest in found.values())
    assert len({digest for _, digest in found.values()}) == 6
    assert follower.counted.log.count("swapped") == 21
    follower.watcher.poll_once()
    assert len(follower.loader.open) == 1, "an old adapter is still loaded"


def test_what_was_accepted_before_is_the_old_ones_and_all_after_is_the_new_ones(
    follower: Follower,
) -> None:
    """Also when the old one answers long after the new one has begun."""
    old: Any = follower.main.engine
    old.held = True
    follower.rig.add("m0", "m1")
    follower.rig.iterate()
    follower.store.publish(TWO)
    follower.follow()
    follower.rig.add("m2", "m3")
    follower.rig.iterate(3)
    assert follower.main.digest == TWO.digest
    assert by(follower) == {}, "order: nothing overtakes"
    assert old in follower.loader.open, "something in flight is its own"
    old.release()
    follower.rig.iterate(3)
    found = by(follower)
    assert [found[f"in-0-{n}"][1] for n in range(4)] == [ONE.digest] * 2 + [TWO.digest] * 2
    assert all(found[f"in-0-{n}"][0] in labels_of("one") for n in range(2))
    assert all(found[f"in-0-{n}"][0] in labels_of("two") for n in range(2, 4))
    follower.watcher.poll_once()
    assert old not in follower.loader.open


def test_thresholds_and_prompts_are_the_adapters_own(tmp_path: Path) -> None:
    """What one sends to review the next may not, and the other way round."""
    strict = make_manifest("strict", thresholds=Thresholds(0.99))
    loose = make_manifest("loose", thresholds=Thresholds(0.5))
    follower = Follower(AdapterStore(tmp_path), strict)
    follower.rig.stream.assign(0)
    follower.rig.add("m0")
    follower.rig.iterate(2)
    follower.store.publish(loose)
    follower.follow()
    follower.rig.add("m1")
    follower.rig.iterate(2)
    assert [published.topic for published in follower.rig.outputs] == ["review", "out"]


def test_a_dead_letter_names_the_adapter_that_it_was_accepted_with(follower: Follower) -> None:
    """Also one that never reached the engine."""
    follower.rig.stream.add(None)
    follower.rig.iterate(2)
    follower.store.publish(TWO)
    follower.follow()
    follower.rig.stream.add(None)
    follower.rig.iterate(2)
    stamped = [
        dict(outgoing.headers)["clerk.adapter.digest"] for outgoing in follower.rig.stream.outputs
    ]
    assert stamped == [ONE.digest.encode(), TWO.digest.encode()]


def test_back_again(follower: Follower) -> None:
    """A rollback is the same change; the adapter is loaded anew, since it was unloaded."""
    for manifest in (TWO, ONE, TWO, THREE, ONE):
        follower.store.publish(manifest, "rollback" if manifest is ONE else "publish")
        follower.follow()
        follower.rig.add("m")
        follower.rig.iterate(3)
        assert list(by(follower).values())[-1][1] == manifest.digest
    follower.watcher.poll_once()
    assert len(follower.loader.open) == 1


def test_while_an_adapter_loads_the_old_one_works_on(tmp_path: Path) -> None:
    """On the keeper's own thread: the loop does hundreds of messages meanwhile."""
    follower = Follower(AdapterStore(tmp_path), ONE, rig=Rig(policy=WIDE), poll_interval_s=0.01)
    follower.rig.stream.assign(0)
    gate = follower.loader.gate = threading.Event()
    follower.watcher.start()
    follower.store.publish(TWO)
    for number in range(300):
        follower.rig.add(f"m{number}")
        follower.rig.iterate()
    assert follower.rig.committed() >= 298
    assert {digest for _, digest in by(follower).values()} == {ONE.digest}
    gate.set()
    until = time.monotonic() + 20
    while follower.main.digest != TWO.digest:
        assert time.monotonic() < until
        follower.rig.iterate()
        time.sleep(0.001)
    follower.watcher.close()


def test_an_adapter_that_was_overtaken_before_its_turn_is_unloaded(follower: Follower) -> None:
    """Two publications between two turns: the first of them never serves."""
    follower.store.publish(TWO)
    follower.watcher.poll_once()
    follower.store.publish(THREE)
    follower.follow()
    follower.watcher.poll_once()
    assert follower.main.digest == THREE.digest
    assert len(follower.loader.open) == 1


def test_intake_is_not_paused_by_a_swap(follower: Follower) -> None:
    """Nothing is asked of the stream but records."""
    for number in range(10):
        follower.rig.add(f"m{number}")
        follower.store.publish((TWO, ONE)[number % 2])
        follower.follow()
    assert "pause" not in follower.rig.stream.calls


def test_after_twenty_swaps_nothing_of_the_old_ones_is_left(follower: Follower) -> None:
    """Neither an engine, nor a contract, nor series of metrics without bound."""
    registry = Registry()
    follower.events._counters = AdapterMetrics(registry)
    for number in range(20):
        follower.store.publish(make_manifest(f"twenty-{number}"))
        follower.follow()
        follower.rig.add(f"m{number}")
        follower.rig.iterate(3)
        if number == 9:
            half = len(registry.page().splitlines())
    follower.watcher.poll_once()
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


def refuse(follower: Follower, manifest: Any, event: str = "publish") -> tuple[str, str]:
    """Publish it, look several times; return reason and problem. The old one must go on."""
    before, loaded = follower.main, len(follower.loader.open)
    follower.store.publish(manifest, event)
    with capture_logs() as logs:
        for _ in range(3):
            follower.follow()
    follower.rig.add("after")
    follower.rig.iterate(3)
    assert follower.main is before
    assert list(by(follower).values())[-1][1] == before.digest
    assert len(follower.loader.open) == loaded, "a refused adapter is still loaded"
    events = [event for event in logs if event["event"] == "adapter.refused"]
    assert len(events) == 1, "told once, not at every look"
    assert follower.events.last_refusal is not None
    assert "main" in follower.events.refused
    return events[0]["reason"], events[0]["problem"]


def test_a_corrupt_adapter_is_refused(follower: Follower) -> None:
    """One byte of one file."""
    weights = b"weights"
    from worker.contract.digest import sha256_bytes

    manifest = replace(TWO, files={"w.safetensors": FileDigest(sha256_bytes(weights), 7)})
    (follower.store.add(manifest) / "w.safetensors").write_bytes(b"wEights")
    reason, problem = refuse(follower, manifest)
    assert reason == "files"
    assert "w.safetensors" in problem


def test_an_adapter_stored_under_anothers_name_is_refused(follower: Follower) -> None:
    """The manifest was altered after it was published."""
    write_manifest(follower.store.add(TWO), replace(TWO, name="altered"))
    assert refuse(follower, TWO)[0] == "files"


def test_an_adapter_that_is_not_there_is_refused(follower: Follower) -> None:
    """A pointer arrived before its directory."""
    follower.store.publish(TWO)
    (follower.store.folder / TWO.digest / "manifest.json").unlink()
    (follower.store.folder / TWO.digest).rename(follower.store.folder / "gone")
    follower.follow()
    assert follower.counted.log == [("refused", "files"), "refused"]


def test_files_that_come_later_than_the_pointer_are_waited_for(tmp_path: Path) -> None:
    """As on a network file system; the trial and what serves are not touched meanwhile."""
    follower = Follower(AdapterStore(tmp_path), ONE, patience_s=30.0)
    for digest in (TWO.digest, THREE.digest):
        if digest == TWO.digest:
            follower.store.publish(TWO)
        else:
            follower.store.canary(THREE, 0.5)
        (tmp_path / digest).rename(tmp_path / "late")
        for _ in range(3):
            follower.follow()
        assert follower.events.refused == {}
        (tmp_path / "late").rename(tmp_path / digest)
        follower.follow()
    assert follower.main.digest == TWO.digest
    assert follower.canary is not None
    assert ("refused", "files") not in follower.counted.log


def test_a_store_that_is_away_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    """Neither what serves nor a trial ends with a mount that hangs."""
    follower = Follower(AdapterStore(tmp_path / "store"), ONE)
    follower.store.canary(TWO, 0.5)
    follower.follow()
    before = follower.router.split
    (tmp_path / "store").rename(tmp_path / "away")
    for _ in range(3):
        follower.follow()
    (tmp_path / "away").rename(tmp_path / "store")
    follower.follow()
    assert follower.router.split == before
    assert follower.loader.loaded.count(TWO.digest) == 1


def test_an_adapter_of_another_base_is_refused(follower: Follower) -> None:
    """Its files' digests are others, whatever it is called."""
    base = replace(ONE.base, weights={"model.safetensors": FileDigest("1" * 64, 1)})
    reason, problem = refuse(follower, replace(TWO, base=base))
    assert reason == "base"
    assert "other" not in problem or problem
    renamed = BaseModel("elsewhere/toy", "v2", *_rest(ONE.base))
    follower.store.publish(replace(THREE, base=renamed))
    follower.follow()
    assert follower.main.manifest.name == "three", "a name is for people"


def _rest(base: BaseModel) -> tuple[Any, ...]:
    return base.config_sha256, base.tokenizer_sha256, base.weights


def test_an_adapter_whose_prompts_tokenize_otherwise_is_refused(follower: Follower) -> None:
    """Its golden prompts say so."""
    golden = replace(TWO.golden[0], ids=(*TWO.golden[0].ids[:-1], 99))
    assert refuse(follower, replace(TWO, golden=(golden,)))[0] == "tokenizer"


@pytest.mark.parametrize("error", [EngineDied("no memory"), TimeoutError()])
def test_an_adapter_that_the_engine_cannot_load_is_refused(
    follower: Follower, error: Exception
) -> None:
    """The engine in service is none the worse."""
    follower.loader.failures = [error]
    assert refuse(follower, TWO)[0] == "engine"


def test_an_adapter_that_fails_its_own_probes_is_refused(follower: Follower) -> None:
    """Not what was trained, or not on this engine; no message is quoted."""
    a, b = labels_of("two")
    wrong = with_probes(TWO, a, a, a)
    follower.loader.respond[wrong.digest] = lambda _: answer_with(wrong, b)
    reason, problem = refuse(follower, wrong)
    assert reason == "probes"
    assert "3 of its own 3 probes" in problem
    assert "parcel" not in problem


def probes_of(name: str, label: str) -> Any:
    """An adapter of the toy labels that answers everything with one label, as its probes say."""
    manifest = replace(toy_manifest(), name=name)
    return with_probes(manifest, label, label, label)


def test_a_worse_adapter_is_refused_and_forced_or_rolled_back_to_it_serves(tmp_path: Path) -> None:
    """The probes of the one that serves are the yardstick, unless a person says otherwise."""
    good, worse = probes_of("good", "billing"), probes_of("worse", "other")
    loader = FakeLoader()
    loader.respond[good.digest] = lambda _: answer_with(good, "billing")
    loader.respond[worse.digest] = lambda _: answer_with(worse, "other")
    follower = Follower(AdapterStore(tmp_path), good, loader=loader)
    follower.rig.stream.assign(0)
    reason, problem = refuse(follower, worse)
    assert reason == "worse"
    assert "3 of the 3 probes" in problem
    for event in ("force", "rollback"):
        follower.store.publish(worse, event)
        follower.follow()
        assert follower.main.digest == worse.digest
        assert "main" not in follower.events.refused
        follower.store.publish(good, "rollback")
        follower.follow()
        assert follower.main.digest == good.digest


def test_so_many_errors_are_allowed(tmp_path: Path) -> None:
    """Two adapters as good as each other do not agree on every message."""
    good, other = probes_of("good", "billing"), probes_of("other", "other")
    loader = FakeLoader()
    loader.respond[other.digest] = lambda _: answer_with(other, "other")
    follower = Follower(AdapterStore(tmp_path), good, loader=loader, max_probe_error_rate=1.0)
    follower.store.publish(other)
    follower.follow()
    assert follower.main.digest == other.digest


def test_other_labels_are_not_compared(tmp_path: Path) -> None:
    """A taxonomy that changes with the adapter cannot be judged by the old one's labels."""
    good = probes_of("good", "billing")
    follower = Follower(AdapterStore(tmp_path), good)
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest


def test_a_refused_adapter_is_tried_again_when_the_pointer_moves(follower: Follower) -> None:
    """Published again, mended, it is taken up; until then it is not looked at."""
    follower.loader.failures = [EngineDied("no memory")]
    refuse(follower, TWO)
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest
    assert follower.events.refused == {}
    assert follower.events.last_refusal is not None


def test_a_broken_pointer_is_told_once_and_mended_is_followed(follower: Follower) -> None:
    """The worker goes on, as it does when the store is away for a moment."""
    (follower.store.folder / CURRENT_NAME).write_text("{")
    for _ in range(3):
        follower.follow()
    assert follower.counted.log == [("refused", "pointer"), "refused"]
    (follower.store.folder / CURRENT_NAME).unlink()
    follower.follow()
    assert follower.events.refused == {}
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest


def test_the_old_ones_engine_dies_in_the_middle_and_the_new_one_does_its_records(
    follower: Follower,
) -> None:
    """All of each: none is lost, none is half of one and half of the other."""
    old: Any = follower.main.engine
    old.held = True
    follower.rig.add("m0", "m1", "m2")
    follower.rig.iterate()
    follower.store.publish(TWO)
    follower.follow()
    old.die()
    follower.rig.iterate(3)
    found = by(follower)
    assert {digest for _, digest in found.values()} == {TWO.digest}
    assert all(label in labels_of("two") for label, _ in found.values())
    assert len(found) == 3
    follower.watcher.poll_once()
    assert len(follower.loader.open) == 1


def test_the_engine_in_service_dies_and_the_worker_ends(follower: Follower) -> None:
    """Nothing else can do the work: nothing is committed, another process begins again."""
    engine: Any = follower.main.engine
    engine.die()
    with pytest.raises(EngineDied):
        follower.rig.iterate()
