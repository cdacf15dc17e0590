"""A duel on another dataset than the adapter's own has to show that its hold-out is unseen."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import World, call
from tests.unit.trainer.evaluation.test_unseen_holdout import another, fresh, read
from trainer.artifacts.duel import DUEL
from trainer.dataset.folder import Dataset, count_openings

pytestmark = pytest.mark.slow


def duel(world: World, dataset: Dataset, out: Path, *more: object) -> tuple[int, Any, str]:
    return call(
        *("duel", world.adapter, "--dataset", dataset.directory, "--base", world.base),
        *("--out", out, "--embeddings", "none", "--no-base-prompted", *more, "--json"),
    )


def test_without_proof_there_is_no_duel(world: World, tmp_path: Path) -> None:
    """As the gate has it: an adapter may have learnt another dataset's hold-out by heart. Refused
    before that is opened, with what to do."""
    dataset = another(world, tmp_path / "new", fresh(world))
    code, _, errors = duel(world, dataset, tmp_path / "out")
    assert code == 2
    assert "--trained-on" in errors
    assert count_openings(dataset) == 0
    assert not (tmp_path / "out").exists()


def test_a_holdout_that_was_trained_on_is_refused(world: World, tmp_path: Path) -> None:
    """Ten copies of training messages and a near-copy: nothing is written."""
    trained, new = read(world, "train"), fresh(world)
    near = replace(trained[20], message=f"{trained[20].message} {trained[20].message} ok")
    held = [replace(one, id=f"x{at}") for at, one in enumerate([*trained[:10], near, *new[11:]])]
    dataset = another(world, tmp_path / "mixed", held)
    code, _, errors = duel(
        world, dataset, tmp_path / "out", "--trained-on", world.dataset.directory
    )
    assert code == 2
    assert "11 of its 36 held-out messages" in errors
    assert "(10 copies, 1 near-copies, 0 more by their ids)" in errors
    assert not (tmp_path / "out").exists()


def test_on_an_unseen_holdout_the_baselines_learn_what_the_adapter_learnt(
    world: World, tmp_path: Path
) -> None:
    """The proof stands in the record; 90 training messages are the adapter's, where the other
    dataset has 36."""
    dataset = another(world, tmp_path / "new", fresh(world))
    code, record, errors = duel(
        world, dataset, tmp_path / "out", "--trained-on", world.dataset.directory
    )
    assert code == 0, errors
    assert record["disjoint"]["trained_on"] == world.dataset.digest
    assert record["disjoint"]["copies"] + record["disjoint"]["near_copies"] == 0
    assert max(point["examples"] for point in record["learning_curve"]) == 90
    assert DUEL.read(tmp_path / "out").to_json() == record


def test_an_adapter_of_no_known_dataset_proves_nothing(world: World, tmp_path: Path) -> None:
    """Its manifest names none."""
    shutil.copytree(world.adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["data"] = {}
    path.write_text(json.dumps(manifest))
    unknown = world._replace(adapter=tmp_path / "adapter")
    code, _, errors = duel(unknown, world.dataset, tmp_path / "out")
    assert code == 2
    assert "does not say which dataset it was trained on" in errors
