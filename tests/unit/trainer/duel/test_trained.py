"""A duel with other trained adapters."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.trainer_world import World, call
from trainer.dataset.folder import Dataset, count_openings
from worker.contract import load_adapter, write_manifest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[4]


@pytest.fixture(scope="module")
def fought(
    world: World,
    evaluated: tuple[Path, dict[str, Any]],
    encoder_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("duel") / "duel"
    code, record, error = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", out, "--evaluation", evaluated[0], "--no-base-prompted", "--json"),
        *("--embeddings", "none", "--against", encoder_run),
    )
    assert code == 0, error
    return out, record


def test_an_encoder_that_was_trained_takes_part_as_a_baseline(
    fought: tuple[Path, dict[str, Any]], encoder_run: Path
) -> None:
    _, record = fought
    found = {candidate["name"]: candidate for candidate in record["candidates"]}
    assert list(found) == ["adapter", "tfidf", "tfidf-sublabels", "tiny-encoder"]
    encoder = found["tiny-encoder"]
    assert (encoder["kind"], encoder["served_as"]) == ("baseline", "encoder")
    assert encoder["adapter"]["path"] == str((encoder_run / "adapter").resolve())
    assert encoder["validation_accuracy"] > 0.5
    assert encoder["train_seconds"] > 0
    assert (found["adapter"]["served_as"], found["tfidf"]["served_as"]) == ("lora-code", None)
    assert "word counts" in found["tfidf"]["not_served"]


def test_the_verdict_names_a_candidate_that_a_worker_can_serve(
    fought: tuple[Path, dict[str, Any]],
) -> None:
    """And says why the winner is not served."""
    _, record = fought
    best = record["servable"] or record["recommendation"]
    served = {c["name"] for c in record["candidates"] if c["served_as"] is not None}
    assert best in served
    if record["servable"]:
        assert f"{record['recommendation']} is not served: workers have no" in record["verdict"]
    assert "no worker can serve" in record["rules"]


def test_an_encoder_can_be_the_adapter_of_a_duel(
    encoder_run: Path, sealed: Dataset, tmp_path: Path
) -> None:
    """There is no base to prompt."""
    code, record, error = call(
        *("duel", encoder_run / "adapter", "--dataset", sealed.directory, "--json"),
        *("--out", tmp_path / "duel", "--embeddings", "none"),
    )
    assert code == 0, error
    assert record["candidates"][0]["served_as"] == "encoder"
    assert all(candidate["kind"] != "base" for candidate in record["candidates"])


@pytest.fixture(scope="module")
def rival_run(world: World, sealed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of another LoRA adapter on the world's base."""
    run = tmp_path_factory.mktemp("rival") / "run"
    code, _, error = call(
        *("train", "--recipe", ROOT / "config" / "trainer-cpu.toml", "--json"),
        *("--dataset", sealed.directory, "--base", world.base, "--out", run),
        *("--set", "lora_rank=4", "--set", "epochs=2", "--set", "learning_rate=0.01"),
        *("--set", "mixed_precision=no", "--set", "threads=1"),
        *("--set", "prefix_block=16"),
    )
    assert code == 0, error
    return run


def test_another_adapter_takes_part_as_a_rival(
    world: World,
    evaluated: tuple[Path, dict[str, Any]],
    encoder_run: Path,
    rival_run: Path,
    tmp_path: Path,
) -> None:
    """It is shipped only if it is better."""
    code, record, error = call(
        *("duel", world.adapter, "--dataset", world.dataset.directory, "--base", world.base),
        *("--out", tmp_path / "duel", "--evaluation", evaluated[0], "--no-base-prompted", "--json"),
        *("--embeddings", "none", "--against", encoder_run, "--against", rival_run),
    )
    assert code == 0, error
    found = {candidate["name"]: candidate for candidate in record["candidates"]}
    rival = found["tiny"]
    assert (rival["kind"], rival["served_as"], rival["not_served"]) == ("rival", "lora-code", None)
    assert record["tested_baseline"] != "tiny"


def test_an_adapter_of_another_dataset_or_without_its_base_is_refused(
    world: World, encoder_run: Path, sealed: Dataset, tmp_path: Path
) -> None:
    """Before the hold-out is opened."""
    other = tmp_path / "adapter"
    shutil.copytree(encoder_run / "adapter", other)
    write_manifest(other, replace(load_adapter(other), data={"digest": "ab" * 32}))
    openings = count_openings(sealed)
    for adapter, against, problem in (
        (world.adapter, other, "was not trained on"),
        (encoder_run / "adapter", world.adapter, "the base of tiny-adapter, was not found among"),
    ):
        base = ("--base", world.base) if adapter == world.adapter else ()
        code, _, error = call(
            *("duel", adapter, *base, "--embeddings", "none"),
            *("--dataset", sealed.directory, "--out", tmp_path / "duel", "--against", against),
        )
        assert code == 2
        assert problem in " ".join(error.split())
    assert count_openings(sealed) == openings
