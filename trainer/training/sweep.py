"""A sweep: try a grid of settings within a time budget, ranked by validation."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from trainer.artifacts.training import SWEEP, SweepRecord, TrainingRecord, Trial
from trainer.dataset.folder import open_dataset
from trainer.errors import BadInput
from trainer.training.inputs import weights_identity
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run_folder import require_same
from trainer.training.train import OutOfTime, train
from worker.common.settings import split_assignment
from worker.contract import describe_base

_GRID_FORM = "key=value,value"


def parse_grid(axes: Sequence[str]) -> dict[str, list[str]]:
    """Turn ``["lora_rank=8,16", ...]`` into a mapping. Raises BadInput."""
    grid: dict[str, list[str]] = {}
    for axis in axes:
        key, values = split_assignment(axis, "--grid", form=_GRID_FORM, error=BadInput)
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if not chosen:
            raise BadInput(f"--grid {axis}: write it as {_GRID_FORM}")
        grid[key] = chosen
    if not grid:
        raise BadInput("--grid: name at least one setting, as --grid lora_rank=8,16")
    return grid


def sweep(
    recipe_file: Path,
    flags: Mapping[str, Any],
    grid: Mapping[str, Sequence[str]],
    out: Path,
    console: Console,
    *,
    budget_s: float,
) -> SweepRecord:
    """Train every combination of the grid's settings into ``out/trial-N`` and rank them.

    The highest validation macro-F1 wins, then the lowest loss; the hold-out is never opened.
    ``sweep.json`` is written after each trial, and its trials are not repeated. A trial starts only
    if it is expected to end within the budget at the speed of earlier ones, and is stopped if it
    does not. Raises BadInput; for a wrong setting before the first trial.
    """
    names = list(grid)
    combinations = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    recipes = [
        load_recipe(recipe_file, {**flags, **settings, "run": out / f"trial-{number}"})
        for number, settings in enumerate(combinations, start=1)
    ]
    fixed = _fixed_settings(recipes[0], grid)
    out.mkdir(parents=True, exist_ok=True)
    trials = _earlier_trials(out, fixed, combinations)
    end = time.monotonic() + budget_s
    skipped = 0

    def record() -> SweepRecord:
        found = _rank(fixed, trials, budget_s, skipped)
        SWEEP.write(out, found)
        return found

    for recipe, settings in zip(recipes, combinations, strict=True):
        if any(trial.settings == settings for trial in trials):
            continue
        if time.monotonic() + _expected_s(trials, recipe) > end:
            skipped += 1
            continue
        console.rule(" ".join(f"{key}={value}" for key, value in settings.items()))
        try:
            # replace: a trial's folder that sweep.json does not list is left over from an
            # interrupted trial.
            training = train(recipe, console, replace=True, until=end)
        except OutOfTime:
            skipped += 1
            continue
        trials.append(_make_trial(settings, recipe, training))
        record()
    if not trials:
        raise BadInput(f"no trial ended within {budget_s:.0f} s: raise --budget-s")
    return record()


def _make_trial(settings: Mapping[str, str], recipe: Recipe, record: TrainingRecord) -> Trial:
    best = record.epochs[record.best_epoch - 1]
    return Trial(
        settings=dict(settings),
        run=recipe.run.name,
        adapter=record.adapter.digest,
        validation_loss=best.validation_loss,
        validation_macro_f1=best.validation_macro_f1,
        validation_accuracy=best.validation_accuracy,
        best_epoch=record.best_epoch,
        per_label=recipe.per_label or None,
        seconds=record.seconds,
        epochs=recipe.epochs,
    )


def _expected_s(trials: Sequence[Trial], recipe: Recipe) -> float:
    """Return the seconds a trial is expected to take, from earlier trials; 0 before the first."""
    # Trials on a part of the data are faster and would make the estimate too low.
    paces = [trial.seconds / trial.epochs for trial in trials if not trial.per_label]
    return max(paces, default=0.0) * recipe.epochs


def _fixed_settings(recipe: Recipe, grid: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that all trials must share to be comparable."""
    base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
    identity = weights_identity(recipe, open_dataset(recipe.dataset), base)
    return {key: value for key, value in identity.items() if key not in grid}


def _rank(
    fixed: Mapping[str, Any], trials: Sequence[Trial], budget_s: float, skipped: int
) -> SweepRecord:
    def key(at: int) -> tuple[float, float]:
        return -trials[at].validation_macro_f1, trials[at].validation_loss

    ranking = tuple(sorted(range(len(trials)), key=key))
    return SweepRecord(
        fixed=dict(fixed),
        trials=tuple(trials),
        ranking=ranking,
        best=ranking[0],
        budget_s=budget_s,
        skipped=skipped,
    )


def _earlier_trials(
    out: Path, fixed: Mapping[str, Any], combinations: Sequence[Mapping[str, str]]
) -> list[Trial]:
    path = out / SWEEP.name
    try:
        record = SWEEP.read_if_present(out)
    except BadInput as error:
        raise BadInput(f"{error}, or choose another --out") from error
    if record is None:
        return []
    if any(trial.settings not in combinations for trial in record.trials):
        raise BadInput(f"{path}: has trials of another grid: choose another --out")
    problem = f"{path}: has trials of another training"
    # The grid alone does not identify trials: with another dataset or base they are other trials.
    require_same(record.fixed, fixed, problem, "choose another --out")
    return list(record.trials)
