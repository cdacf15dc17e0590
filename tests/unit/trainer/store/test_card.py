"""The model card next to each adapter of a store."""

from __future__ import annotations

from pathlib import Path

from tests.unit.trainer.store.conftest import Clerk, MakeRun
from worker.contract import read_manifest
from worker.contract.store import find_adapter, load_stored


def test_publishing_leaves_a_card_beside_the_adapter(
    clerk: Clerk, make_run: MakeRun, store: Path
) -> None:
    run = make_run("first")
    assert clerk("publish", run)[0] == 0
    manifest = read_manifest(run / "adapter")
    card = (store / f"{manifest.digest}.README.md").read_text()
    assert "| accuracy | 96.7% (" in card
    assert "a customer's words" not in card
    assert load_stored(store, manifest.digest).digest == manifest.digest
    assert find_adapter(store).directory == store / manifest.digest
    names = {path.name for path in (store / manifest.digest).iterdir()}
    assert names == {"manifest.json", *manifest.files}
    assert clerk("list")[0] == 0
