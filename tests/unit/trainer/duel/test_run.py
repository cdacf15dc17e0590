"""A complete duel on a tiny base: the pairs follow from the answers, the verdict from the pairs."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.trainer_world import World, call
from tests.unit.trainer.evaluation.test_unseen_holdout import another, fresh, read
from tests.unit.trainer.report.conftest import cost_record
from trainer.artifacts.duel import DUEL
from trainer.dataset.folder import Dataset, count_openings
from trainer.statistics.metrics import Discordance
from trainer.statistics.paired import non_inferiority_p

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def fought(
    world: World, evaluated: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    directory = tmp_path_factory.mktemp("duel")
    answers = directory / "hosted.csv"
    with answers.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "label", "seconds"])
        for line in world.lines("holdout.jsonl"):
            example = json.loads(line)
            label = "twelfth" if example["id"].endswith("0") else example["response"]
            writer.writerow([example["id"], label, 0.5])
    code, record, _ = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", directory / "duel", "--evaluation", evaluated[0]),
        *("--candidate", f"hosted={answers}", "--embeddings", "none", "--json"),
        *("--margin", 2),
    )
    assert code == 0
    return directory / "duel", record


def test_the_verdict_to_ship_a_baseline_is_not_an_error(
    fought: tuple[Path, dict[str, Any]],
) -> None:
    out, record = fought
    assert json.loads((out / "duel.json").read_text()) == record
    names = [candidate["name"] for candidate in record["candidates"]]
    assert names == ["adapter", "tfidf", "tfidf-sublabels", "hosted", "base-prompted"]
    assert record["recommendation"] in {"tfidf", "tfidf-sublabels"}
    assert record["verdict"].startswith("Ship tfidf")


def test_the_power_of_the_holdout_and_the_cost_of_the_margin_are_printed(
    world: World, evaluated: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    """The cost if the run has a cost.json."""
    shutil.copytree(world.adapter, tmp_path / "run" / "adapter")
    (tmp_path / "run" / "cost.json").write_text(json.dumps(cost_record(hosted_price=2.5)))
    code, _, errors = call(
        *("duel", tmp_path / "run" / "adapter", "--dataset", world.dataset.directory),
        *("--base", world.base, "--evaluation", evaluated[0], "--margin", 3),
        *("--embeddings", "none", "--no-base-prompted", "--json"),
    )
    assert code == 0
    assert "36 held-out messages, margin 3 points" in errors
    assert "60,000" in errors


def test_the_pairs_follow_from_the_table_of_answers(fought: tuple[Path, dict[str, Any]]) -> None:
    out, record = fought
    with (out / "duel_predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    for pair in record["pairs"]:
        mine = np.array([row["adapter"] == row["label"] for row in rows])
        other = np.array([row[pair["b"]] == row["label"] for row in rows])
        assert pair["difference"] == pytest.approx(mine.mean() - other.mean())
        assert (pair["a_only"], pair["b_only"]) == ((mine & ~other).sum(), (other & ~mine).sum())
        assert pair["interval_95"][0] <= pair["difference"] <= pair["interval_95"][1]
        assert pair["mcnemar_p"] <= pair["p_holm"] <= 1
        counts = Discordance(pair["b_only"], pair["a_only"], 36)
        assert pair["non_inferiority_p"] == pytest.approx(non_inferiority_p(counts, 0.02))
        assert pair["worst_difference"] >= pair["difference"]


def test_an_answer_outside_the_set_is_wrong_and_counted(
    fought: tuple[Path, dict[str, Any]],
) -> None:
    candidates = fought[1]["candidates"]
    hosted = next(candidate for candidate in candidates if candidate["name"] == "hosted")
    assert hosted["outside_labels"] == 4  # the ids 3-0, 3-10, 3-20 and 3-30
    assert hosted["accuracy"] == pytest.approx(32 / 36)
    assert hosted["messages_per_s"] == pytest.approx(2.0)


@pytest.mark.parametrize("name", ["base-prompted", "label"])
def test_a_name_that_the_table_of_answers_needs_is_refused(
    world: World, tmp_path: Path, name: str
) -> None:
    answers = tmp_path / "answers.csv"
    answers.write_text("id,label\n1,refund\n")
    code, _, errors = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--candidate", f"{name}={answers}", "--out", tmp_path / "duel"),
    )
    assert code == 2
    assert "the name is taken" in errors


# A duel on another dataset than the adapter's own.


def duel(world: World, dataset: Dataset, out: Path, *more: object) -> tuple[int, Any, str]:
    return call(
        *("duel", world.adapter, "--dataset", dataset.directory, "--base", world.base),
        *("--out", out, "--embeddings", "none", "--no-base-prompted", *more, "--json"),
    )


def test_a_holdout_that_may_have_been_trained_on_is_refused(world: World, tmp_path: Path) -> None:
    """Before it is opened."""
    dataset = another(world, tmp_path / "new", fresh(world))
    code, _, errors = duel(world, dataset, tmp_path / "out")
    assert code == 2
    assert "--trained-on" in errors
    assert count_openings(dataset) == 0
    assert not (tmp_path / "out").exists()


def test_a_holdout_that_was_trained_on_is_refused(world: World, tmp_path: Path) -> None:
    """Ten copies of training messages and a near-copy."""
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
    """The adapter's 90 training messages, not the 36 of the other dataset."""
    dataset = another(world, tmp_path / "new", fresh(world))
    code, record, errors = duel(
        world, dataset, tmp_path / "out", "--trained-on", world.dataset.directory
    )
    assert code == 0, errors
    assert record["disjoint"]["trained_on"] == world.dataset.digest
    assert record["disjoint"]["copies"] + record["disjoint"]["near_copies"] == 0
    assert max(point["examples"] for point in record["learning_curve"]) == 90
    assert DUEL.read(tmp_path / "out").to_json() == record


def test_an_adapter_of_an_unknown_dataset_is_refused(world: World, tmp_path: Path) -> None:
    shutil.copytree(world.adapter, tmp_path / "adapter")
    path = tmp_path / "adapter" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["data"] = {}
    path.write_text(json.dumps(manifest))
    unknown = world._replace(adapter=tmp_path / "adapter")
    code, _, errors = duel(unknown, world.dataset, tmp_path / "out")
    assert code == 2
    assert "does not say which dataset it was trained on" in errors
