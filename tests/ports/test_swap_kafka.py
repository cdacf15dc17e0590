"""Adapters change in running workers on real Kafka, while workers join, drain and are killed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.harness import Arena, messages
from tests.support.follower import AdapterStore
from tests.support.toy_adapter import make_manifest

COUNT = 3000
MANIFESTS = [make_manifest(name) for name in ("ant", "bee", "cow")]
LABELS = {manifest.digest: set(manifest.taxonomy.names) for manifest in MANIFESTS}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def store(tmp_path: Path) -> AdapterStore:
    found = AdapterStore(tmp_path / "store")
    for manifest in MANIFESTS:
        found.add(manifest)
    found.publish(MANIFESTS[0])
    return found


@pytest.fixture
def arena(bootstrap_servers: str, store: AdapterStore) -> Iterator[Arena]:
    with ExitStack() as stack:
        made = Arena(bootstrap_servers, stack)
        made.settings = {
            "model.adapter": f"'{store.folder}'",
        }
        yield made


def test_swaps_and_trials_through_rebalances_and_a_kill(arena: Arena, store: AdapterStore) -> None:
    """Each label is one that only the adapter in its stamp can give."""
    stopped = threading.Event()

    def change() -> None:
        for number in itertools.count(1):
            if stopped.wait(1.2):
                return
            store.publish(MANIFESTS[number % 3], "rollback")
            store.canary(MANIFESTS[(number + 1) % 3], 0.3)

    first = arena.start_worker()
    first.wait_until_ready()
    changing = threading.Thread(target=change)
    changing.start()
    try:
        arena.publish(messages(COUNT))
        arena.wait_for(COUNT // 6)
        second = arena.start_worker()
        arena.wait_for(COUNT // 2)
        arena.kill(first)
        arena.start_worker()
        arena.wait_for(COUNT * 3 // 4)
        assert arena.stop(second) == 0
        arena.wait_for(COUNT)
    finally:
        stopped.set()
        changing.join()
    print(arena.verdict(COUNT))
    assert len(arena.stamps) == COUNT
    assert all(label in LABELS[digest] for label, digest in arena.stamps)
    assert {digest for _, digest in arena.stamps} == set(LABELS)
    print(f"{store.moves} moves of the pointers")
