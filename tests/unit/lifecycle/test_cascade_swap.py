"""A cascade is swapped, shadowed, and tried as a canary like any adapter."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.follower import WIDE, AdapterStore, Follower
from tests.support.rig import Rig
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.toy_adapter import ONE, cascade_of, labels_of, make_manifest
from worker.contract import Manifest, read_manifest
from worker.engine.onnx_engine import OnnxLoader

pytestmark = pytest.mark.slow

LARGE = make_manifest("cascade")


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def small(store: AdapterStore, tmp_path: Path) -> Manifest:
    """A real encoder in the store, with the labels of the cascade."""
    made = write_tiny_encoder(tmp_path / "small", name="small", taxonomy=LARGE.taxonomy)
    manifest = read_manifest(made)
    store.folder.mkdir(exist_ok=True)
    made.rename(store.folder / manifest.digest)
    return manifest


@pytest.fixture
def cascade(store: AdapterStore, small: Manifest) -> Manifest:
    """A cascade of both; the encoder is sure of about every second message."""
    store.add(LARGE)
    return cascade_of(small, LARGE, sure_from=0.6)


@pytest.fixture
def make(store: AdapterStore) -> Iterator[Callable[..., Follower]]:
    made: list[Follower] = []

    def make(**options: Any) -> Follower:
        rig = Rig(policy=WIDE, partitions=2)
        follower = Follower(store, ONE, rig=rig, onnx=OnnxLoader(threads=2), **options)
        rig.stream.assign(0, 1)
        made.append(follower)
        return follower

    yield make
    for follower in made:
        for adapter in follower.router.split.adapters:
            adapter.engine.close()


def add(follower: Follower, first: int, count: int) -> int:
    """Add messages of many kinds to both partitions; return the number of the next."""
    for number in range(first, first + count):
        text = f"message {number} {'abcdefghij'[number % 10] * (number % 17)}"
        follower.rig.add(text, partition=number % 2)
    return first + count


def values(follower: Follower) -> list[dict[str, Any]]:
    return [json.loads(out.value) for out in follower.rig.stream.outputs if out.value is not None]


def test_swaps_between_an_adapter_and_a_cascade_lose_and_mix_nothing(
    make: Callable[..., Follower], cascade: Manifest, small: Manifest
) -> None:
    follower = make()
    total = 0
    for manifest in (cascade, ONE, cascade, ONE):
        total = add(follower, total, 80)
        follower.rig.iterate()  # some are in the old adapter's engine
        follower.store.publish(manifest)
        follower.follow()
        assert follower.main.digest == manifest.digest, follower.events.last_refusal
        total = add(follower, total, 80)
        follower.finish(total)
    assert len(follower.stamps) == total
    labels = {ONE.digest: set(labels_of("one")), cascade.digest: set(labels_of("cascade"))}
    stages = [small, LARGE]
    seen = set()
    for value in values(follower):
        digest = value["adapter"]["digest"]
        assert value["label"] in labels[digest]
        assert ("cascade" in value) == (digest == cascade.digest)
        if digest != cascade.digest:
            continue
        bound = value["cascade"]
        stage = bound["stage"]
        seen.add(stage)
        assert bound["answered"]["digest"] == stages[stage - 1].digest
        assert [one["adapter"]["digest"] for one in bound["earlier"]] == [
            one.digest for one in stages[: stage - 1]
        ]
        assert all(one["confidence"] < 0.6 for one in bound["earlier"])
        assert ("out_of_scope" in value) == (stage == 1)
        assert value["base_model"]["name"] == stages[stage - 1].base.name
        other = any(one["label"] != value["label"] for one in bound["earlier"])
        assert ("disagreement" in value["review"]["reasons"]) == other
    assert seen == {1, 2}
    for partition in range(2):
        offsets = [
            value["source"]["offset"]
            for value in values(follower)
            if value["source"]["partition"] == partition
        ]
        assert sorted(offsets) == list(range(len(offsets)))
    assert follower.counted.log.count("swapped") == 4
    follower.poll_once()
    assert follower.loader.open == [follower.main.engine], "a stage is still loaded"


def test_a_cascade_can_be_shadow_canary_and_main(
    make: Callable[..., Follower], cascade: Manifest, store: AdapterStore
) -> None:
    store.add(cascade)
    follower = make(shadow=cascade.digest[:12], shadow_share=1.0)
    follower.follow()
    assert follower.shadow is not None
    assert follower.shadow.digest == cascade.digest
    follower.store.canary(cascade, 0.5)
    follower.follow()
    assert follower.canary is not None
    total = add(follower, 0, 120)
    follower.finish(total)
    found = [digest for _, digest in follower.stamps.values()]
    assert set(found) == {ONE.digest, cascade.digest}
    trial = follower.canary.engine
    follower.store.publish(cascade)
    follower.follow()
    assert follower.main.engine is trial


def test_a_cascade_without_one_of_its_stages_is_refused(
    make: Callable[..., Follower], small: Manifest
) -> None:
    follower = make()
    absent = replace(LARGE, name="absent")
    follower.store.publish(cascade_of(small, absent))
    follower.follow()
    refused = follower.events.last_refusal
    assert refused is not None
    assert refused.reason == "files"
    assert "it is stage absent of cascade" in refused.problem
    total = add(follower, 0, 10)
    follower.finish(total)
    assert {digest for _, digest in follower.stamps.values()} == {ONE.digest}
