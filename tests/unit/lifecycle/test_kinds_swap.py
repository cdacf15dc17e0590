"""An adapter is replaced by one of another kind, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.follower import WIDE, AdapterStore, Follower
from tests.support.rig import Rig
from tests.support.tiny_onnx import write_tiny_encoder
from tests.support.toy_adapter import ONE, TWO, labels_of, toy_taxonomy
from worker.contract import GoldenLogits, Manifest, read_manifest
from worker.engine.onnx_engine import OnnxLoader

Encoder = Callable[..., Manifest]


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    return AdapterStore(tmp_path / "store")


@pytest.fixture
def encoder(store: AdapterStore, tmp_path: Path) -> Encoder:
    """Returns a function that stores an encoder with its own labels."""

    def encoder(name: str, seed: int = 0) -> Manifest:
        made = write_tiny_encoder(
            tmp_path / name,
            seed=seed,
            name=name,
            taxonomy=toy_taxonomy(labels_of(name)),
        )
        manifest = read_manifest(made)
        store.folder.mkdir(exist_ok=True)
        made.rename(store.folder / manifest.digest)
        return manifest

    return encoder


@pytest.fixture
def follower(store: AdapterStore) -> Iterator[Follower]:
    rig = Rig(policy=WIDE, partitions=2)
    follower = Follower(store, ONE, rig=rig, onnx=OnnxLoader(threads=2))
    rig.stream.assign(0, 1)
    yield follower
    for adapter in follower.router.split.adapters:
        adapter.engine.close()


def test_swaps_between_kinds_of_model_lose_and_mix_nothing(
    follower: Follower, encoder: Encoder
) -> None:
    manifests = [encoder("first"), TWO, encoder("second", 1), ONE, encoder("third", 2)]
    labels = {one.digest: set(one.taxonomy.names) for one in [*manifests, ONE]}
    total = 0
    for manifest in manifests:
        for partition in range(2):
            follower.rig.add(*(f"message {total + n}" for n in range(40)), partition=partition)
            total += 40
        follower.rig.iterate()  # some are in the old adapter's engine
        follower.store.publish(manifest)
        follower.poll_once()
        follower.rig.iterate()
        assert follower.main.digest == manifest.digest, follower.events.last_refusal
        for partition in range(2):
            follower.rig.add(*(f"message {total + n}" for n in range(40)), partition=partition)
            total += 40
        follower.finish(total)
    found = follower.stamps
    assert len(found) == total
    assert all(label in labels[digest] for label, digest in found.values())
    assert {digest for _, digest in found.values()} == set(labels)
    assert follower.counted.log.count("swapped") == len(manifests)
    follower.poll_once()
    assert follower.loader.open == [], "an adapter of the kind before is still loaded"


def test_an_encoder_that_fails_its_golden_logits_is_refused(
    follower: Follower, store: AdapterStore, tmp_path: Path
) -> None:
    head = read_manifest(write_tiny_encoder(tmp_path / "good")).head
    assert head is not None
    golden = (GoldenLogits(0, tuple(logit + 1 for logit in head.golden_logits[0].logits)),)
    made = write_tiny_encoder(
        tmp_path / "wrong", name="wrong", head=replace(head, golden_logits=golden)
    )
    manifest = read_manifest(made)
    made.rename(store.folder / manifest.digest)
    store.publish(manifest)
    follower.follow()
    refused = follower.events.last_refusal
    assert refused is not None
    assert refused.reason == "engine"
    assert "differ from the trainer's model" in refused.problem
    assert follower.main.digest == ONE.digest
