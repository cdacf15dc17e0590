"""A sweep ranks by validation, keeps to its budget, and resumes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from trainer.dataset.folder import count_openings, open_dataset
from trainer.errors import BadInput
from trainer.training.inputs import take_per_label
from trainer.training.sweep import parse_grid, sweep

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


def flags(base: Path, dataset: Path) -> dict[str, object]:
    return {
        "base": base,
        "dataset": dataset,
        "lora_rank": 2,
        "epochs": 2,
        "learning_rate": 0.01,
        "prefix_block": 16,
        "mixed_precision": "no",
        "threads": 1,
    }


def test_trials_are_ranked_by_validation_and_not_repeated(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """The hold-out stays sealed."""
    before = count_openings(open_dataset(dataset_dir))
    given, grid = flags(tiny_base, dataset_dir), {"per_label": ["5", "20"], "lora_rank": ["2"]}
    quiet = Console(quiet=True)
    first = sweep(CONFIG, given, grid, tmp_path, quiet, budget_s=500)
    assert [trial.per_label for trial in first.trials] == [5, 20]
    figures = [first.trials[at].validation_macro_f1 for at in first.ranking]
    assert figures == sorted(figures, reverse=True)
    assert json.loads((tmp_path / "sweep.json").read_text("utf-8")) == first.to_json()
    assert count_openings(open_dataset(dataset_dir)) == before
    stamp = (tmp_path / "trial-1" / "training.json").stat().st_mtime_ns
    assert sweep(CONFIG, given, grid, tmp_path, quiet, budget_s=500) == first
    assert (tmp_path / "trial-1" / "training.json").stat().st_mtime_ns == stamp
    with pytest.raises(BadInput, match="another grid"):
        sweep(CONFIG, given, {"lora_rank": ["3"]}, tmp_path, quiet, budget_s=500)
    with pytest.raises(BadInput, match=r"another training: epochs was 2, is 3: .* --out"):
        sweep(CONFIG, given | {"epochs": 3}, grid, tmp_path, quiet, budget_s=500)


def test_a_trial_that_exceeds_the_budget_is_stopped(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    given = flags(tiny_base, dataset_dir) | {"epochs": 500, "early_stopping_patience": 500}
    with pytest.raises(BadInput, match="no trial ended within 1 s"):
        sweep(CONFIG, given, {"lora_rank": ["2"]}, tmp_path, Console(quiet=True), budget_s=1)


def test_a_wrong_setting_is_an_error_before_the_first_trial(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    given = flags(tiny_base, dataset_dir)
    grid = {"lora_rank": ["2", "many"]}
    with pytest.raises(BadInput, match="lora_rank"):
        sweep(CONFIG, given, grid, tmp_path, Console(quiet=True), budget_s=9)
    assert not list(tmp_path.iterdir())
    with pytest.raises(BadInput, match="--grid"):
        parse_grid(["lora_rank="])


def test_a_smaller_training_set_is_a_subset_of_a_larger_one(dataset_dir: Path) -> None:
    train = open_dataset(dataset_dir).train
    small, large = take_per_label(train, 4, 1), take_per_label(train, 9, 1)
    assert (len(small), len(large)) == (12, 27)
    assert {example.id for example in small} < {example.id for example in large}
    assert take_per_label(train, 0, 1) == train
    assert take_per_label(train, 4, 2) != small
