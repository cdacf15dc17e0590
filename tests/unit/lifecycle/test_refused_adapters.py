"""An adapter that must not serve is refused once, with a reason; the old one stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from structlog.testing import capture_logs

from tests.support.follower import AdapterStore, FakeLoader, Follower
from tests.support.toy_adapter import (
    ONE,
    THREE,
    TWO,
    answer_with,
    labels_of,
    toy_manifest,
    with_probes,
)
from worker.contract import BaseModel, FileDigest, Probe
from worker.contract.digest import sha256_bytes
from worker.contract.store import CURRENT_NAME
from worker.contract.verify import ProbeFile, probes_path, write_probes
from worker.errors import EngineDied


def refuse(follower: Follower, manifest: Any, event: str = "publish") -> tuple[str, str]:
    """Publish an adapter and poll several times; return reason and problem.

    The old adapter must stay in service.
    """
    before, loaded = follower.main, len(follower.loader.open)
    follower.store.publish(manifest, event)
    with capture_logs() as logs:
        for _ in range(3):
            follower.follow()
    follower.rig.add("after")
    follower.rig.iterate(3)
    assert follower.main is before
    assert list(follower.stamps.values())[-1][1] == before.digest
    assert len(follower.loader.open) == loaded, "a refused adapter is still loaded"
    events = [event for event in logs if event["event"] == "adapter.refused"]
    assert len(events) == 1, "reported at every poll"
    assert follower.events.last_refusal is not None
    assert "main" in follower.events.refused
    return events[0]["reason"], events[0]["problem"]


def test_a_corrupt_adapter_is_refused(follower: Follower) -> None:
    weights = b"weights"
    manifest = replace(TWO, files={"w.safetensors": FileDigest(sha256_bytes(weights), 7)})
    (follower.store.add(manifest) / "w.safetensors").write_bytes(b"wEights")
    reason, problem = refuse(follower, manifest)
    assert reason == "files"
    assert "w.safetensors" in problem


def test_files_that_arrive_later_than_the_pointer_are_waited_for(tmp_path: Path) -> None:
    """As on a network file system; main adapter and canary stay meanwhile. They are looked for
    once a second: a load that ends wakes the thread that begins the next one."""
    seconds = [0.0]
    follower = Follower(AdapterStore(tmp_path), ONE, patience_s=30.0, clock=lambda: seconds[0])
    for digest in (TWO.digest, THREE.digest):
        if digest == TWO.digest:
            follower.store.publish(TWO)
        else:
            follower.store.canary(THREE, 0.5)
        (tmp_path / digest).rename(tmp_path / "late")
        with capture_logs() as logged:
            for _ in range(9):
                follower.follow()
                seconds[0] += 0.4
        assert [each["event"] for each in logged].count("adapter.incomplete") == 3
        assert follower.events.refused == {}
        (tmp_path / "late").rename(tmp_path / digest)
        seconds[0] += 1.0
        follower.follow()
    assert follower.main.digest == TWO.digest
    assert follower.canary is not None
    assert ("refused", "files") not in follower.counted.log


def test_a_store_that_is_unavailable_for_a_moment_changes_nothing(tmp_path: Path) -> None:
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
    base = replace(ONE.base, weights={"model.safetensors": FileDigest("1" * 64, 1)})
    reason, problem = refuse(follower, replace(TWO, base=base))
    assert reason == "base"
    assert problem
    renamed = BaseModel("elsewhere/toy", "v2", *_rest(ONE.base))
    follower.store.publish(replace(THREE, base=renamed))
    follower.follow()
    assert follower.main.manifest.name == "three", "the base's name does not matter"


def _rest(base: BaseModel) -> tuple[Any, ...]:
    return base.config_sha256, base.tokenizer_sha256, base.weights


def test_an_adapter_whose_prompts_tokenize_differently_is_refused(follower: Follower) -> None:
    golden = replace(TWO.golden[0], ids=(*TWO.golden[0].ids[:-1], 99))
    assert refuse(follower, replace(TWO, golden=(golden,)))[0] == "tokenizer"


def test_an_adapter_is_tried_on_the_probes_in_its_directory(follower: Follower) -> None:
    a, b = labels_of("two")
    path = probes_path(follower.store.add(TWO))
    write_probes(path, ProbeFile(TWO.digest, "written", (Probe("where is it", a),)))
    follower.loader.respond[TWO.digest] = lambda _: answer_with(TWO, b)
    assert refuse(follower, TWO)[0] == "probes"
    write_probes(probes_path(follower.store.add(THREE)), ProbeFile(ONE.digest, "written", ()))
    reason, problem = refuse(follower, THREE)
    assert reason == "files"
    assert "another adapter" in problem


def test_an_adapter_that_fails_its_own_probes_is_refused(follower: Follower) -> None:
    """The error quotes no message."""
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


def test_a_worse_adapter_is_refused_unless_it_is_forced_or_rolled_back_to(tmp_path: Path) -> None:
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


def test_adapters_with_different_labels_are_not_compared(tmp_path: Path) -> None:
    good = probes_of("good", "billing")
    follower = Follower(AdapterStore(tmp_path), good)
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest


def test_a_refused_adapter_is_tried_again_when_the_pointer_moves(follower: Follower) -> None:
    follower.loader.failures = [EngineDied("no memory")]
    refuse(follower, TWO)
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest
    assert follower.events.refused == {}
    assert follower.events.last_refusal is not None


def test_a_broken_pointer_is_reported_once_and_followed_again_when_fixed(
    follower: Follower,
) -> None:
    (follower.store.folder / CURRENT_NAME).write_text("{")
    for _ in range(3):
        follower.follow()
    assert follower.counted.log == [("refused", "pointer")]
    (follower.store.folder / CURRENT_NAME).unlink()
    follower.follow()
    assert follower.events.refused == {}
    follower.store.publish(TWO)
    follower.follow()
    assert follower.main.digest == TWO.digest
