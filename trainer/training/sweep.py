"""A small search over a declared grid, ranked by validation and within a time budget."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.dataset.folder import open_dataset
from trainer.errors import BadInput
from trainer.training.checkpoint import require_same
from trainer.training.inputs import what_is_learnt
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run import OutOfTime, train
from worker.contract import describe_base
from worker.contract.assignments import split_assignment
from worker.contract.digest import write_atomically

RECORD = "sweep.json"
_GRID_FORM = "key=value,value"


def parse_grid(axes: Sequence[str]) -> dict[str, list[str]]:
    """Turn ``["rank=8,16", ...]`` into a mapping. Raises BadInput."""
    grid: dict[str, list[str]] = {}
    for axis in axes:
        key, values = split_assignment(axis, "--grid", form=_GRID_FORM, error=BadInput)
        chosen = [value.strip() for value in values.split(",") if value.strip()]
        if not chosen:
            raise BadInput(f"--grid {axis}: write it as {_GRID_FORM}")
        grid[key] = chosen
    if not grid:
        raise BadInput("--grid: name at least one setting, as --grid rank=8,16")
    return grid


def sweep(
    recipe_file: Path,
    flags: Mapping[str, Any],
    grid: Mapping[str, Sequence[str]],
    out: Path,
    console: Console,
    *,
    budget_s: float,
) -> dict[str, Any]:
    """Train every combination of the grid's settings into ``out/trial-N`` and rank them.

    The better validation macro-F1 wins, of equals the lower loss; the hold-out is never opened.
    ``sweep.json`` is written after each trial; trials it holds already are not repeated. No
    trial starts that would not end within the budget at the speed of those before, and one that
    passes it all the same is stopped. Raises BadInput, for a wrong setting before the first
    trial.
    """
    names = list(grid)
    combinations = [
        dict(zip(names, values, strict=True)) for values in itertools.product(*grid.values())
    ]
    recipes = [
        load_recipe(recipe_file, {**flags, **one, "run": out / f"trial-{at}"})
        for at, one in enumerate(combinations, start=1)
    ]
    made_of = _made_of(recipes[0], grid)
    out.mkdir(parents=True, exist_ok=True)
    trials = _earlier(out, made_of, combinations)
    end = time.monotonic() + budget_s
    skipped = 0
    for recipe, settings in zip(recipes, combinations, strict=True):
        if any(one["settings"] == settings for one in trials):
            continue
        if time.monotonic() + _expected_s(trials, recipe) > end:
            skipped += 1
            continue
        console.rule(" ".join(f"{key}={one}" for key, one in settings.items()))
        try:
            record = train(recipe, console, replace=True, until=end)
        except OutOfTime:
            skipped += 1
            continue
        trials.append(_trial(settings, recipe, record))
        _write(out, made_of, trials, budget_s, skipped)
    if not trials:
        raise BadInput(f"no trial ended within {budget_s:.0f} s: raise --budget-s")
    return _write(out, made_of, trials, budget_s, skipped)


def print_sweep(console: Console, record: Mapping[str, Any]) -> None:
    """Print the trials, best first."""
    table = Table(title="sweep, ranked by validation")
    for name in ("", "settings", "macro-F1", "accuracy", "loss", "seconds"):
        table.add_column(name, justify="left" if name in {"", "settings"} else "right")
    for place, at in enumerate(record["ranking"], start=1):
        one = record["trials"][at]
        table.add_row(
            str(place),
            " ".join(f"{key}={value}" for key, value in one["settings"].items()),
            f"{one['validation_macro_f1']:.3f}",
            f"{one['validation_accuracy']:.1%}",
            f"{one['validation_loss']:.3f}",
            f"{one['seconds']:.0f}",
        )
    console.print(table)
    if record["skipped"]:
        console.print(f"{record['skipped']} trials did not fit into {record['budget_s']:.0f} s")


def _trial(
    settings: Mapping[str, str], recipe: Recipe, record: Mapping[str, Any]
) -> dict[str, Any]:
    best = record["epochs"][record["best_epoch"] - 1]
    return {
        "settings": dict(settings),
        "run": recipe.run.name,
        "adapter": record["adapter"]["digest"],
        "validation_loss": best["validation_loss"],
        "validation_macro_f1": best["validation_macro_f1"],
        "validation_accuracy": best["validation_accuracy"],
        "best_epoch": record["best_epoch"],
        "per_label": recipe.per_label or None,
        "seconds": record["seconds"],
        "epochs": recipe.epochs,
    }


def _expected_s(trials: Sequence[Mapping[str, Any]], recipe: Recipe) -> float:
    """Seconds a trial is likely to take, from those before, by its epochs; 0 before the first."""
    paces = [one["seconds"] / one["epochs"] for one in trials if not one["per_label"]]
    return max(paces, default=0.0) * recipe.epochs


def _made_of(recipe: Recipe, grid: Mapping[str, Any]) -> dict[str, Any]:
    """What all trials share: comparing those of two recipes, datasets or bases says nothing."""
    base = describe_base(recipe.base, recipe.base_name, recipe.base_revision)
    shared = what_is_learnt(recipe, open_dataset(recipe.dataset), base)
    return {key: one for key, one in shared.items() if key not in grid}


def _write(
    out: Path,
    made_of: Mapping[str, Any],
    trials: list[dict[str, Any]],
    budget_s: float,
    skipped: int,
) -> dict[str, Any]:
    ranking = sorted(
        range(len(trials)),
        key=lambda at: (-trials[at]["validation_macro_f1"], trials[at]["validation_loss"]),
    )
    record = {
        "schema": "sweep/1",
        "made_of": dict(made_of),
        "trials": trials,
        "ranking": ranking,
        "best": ranking[0],
        "budget_s": budget_s,
        "skipped": skipped,
    }
    write_atomically(out / RECORD, (json.dumps(record, indent=1) + "\n").encode("utf-8"))
    return record


def _earlier(
    out: Path, made_of: Mapping[str, Any], combinations: Sequence[Mapping[str, str]]
) -> list[dict[str, Any]]:
    path = out / RECORD
    if not path.exists():
        return []
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        trials: list[dict[str, Any]] = record["trials"]
        before: dict[str, Any] = record["made_of"]
        strange = [one for one in trials if one["settings"] not in combinations]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not a sweep's record: {error}: choose another --out") from error
    if strange:
        raise BadInput(f"{path}: holds trials of another grid: choose another --out")
    told = f"{path}: holds trials of another training"
    require_same(before, made_of, told, "choose another --out")
    return trials
