"""``clerk-trainer``'s commands train and sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.shared import AsJson, make_console, outcomes, show

RecipeFile = Annotated[Path, typer.Option("--recipe", help="A recipe, as config/trainer.toml.")]
Base = Annotated[Path | None, typer.Option("--base", help="Folder of the base model.")]
DatasetFolder = Annotated[
    Path | None, typer.Option("--dataset", help="A dataset that prepare made.")
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting of the recipe; may be repeated."),
]


def train(
    *,
    recipe: RecipeFile,
    dataset: DatasetFolder = None,
    base: Base = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder: adapter, figures, checkpoint.")
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's checkpoint, if it has one.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Throw away what the run folder holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA adapter on a dataset.

    First every row is proven to learn its label's code and nothing else, and memory is estimated
    before the base is loaded. The epoch that does best on validation is kept, its confidence
    calibrated there. Kill it when you like: --resume goes on as if nothing had happened. Several
    GPUs: accelerate launch -m trainer train ...

    Example: clerk-trainer train --recipe config/trainer.toml --dataset data/v1 --base models/base
    --out runs/v1 --set lora_rank=8
    """
    console = make_console(as_json=as_json)
    with outcomes():
        settings = _load(recipe, sets, {"dataset": dataset, "base": base, "run": out})
        from trainer.training.train import train as run_training  # seconds of imports

        record = run_training(settings, console, resume=resume, replace=replace)
        show(record.to_json(), console, lambda _: None, as_json=as_json)


def sweep(
    *,
    recipe: RecipeFile,
    dataset: DatasetFolder = None,
    base: Base = None,
    out: Annotated[Path, typer.Option(help="Folder for the trials and sweep.json.")],
    grid: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE,VALUE", help="A setting and its values; repeat it."),
    ],
    budget_s: Annotated[float, typer.Option(min=1, help="Seconds for all trials.")] = 3600.0,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Try a small grid of settings, ranked by validation and never by the hold-out.

    Trials that would not end within the budget are left out and counted; repeated with the same
    --out it goes on where it stopped. per_label=50,100,200 makes the learning curve over data.

    Example: clerk-trainer sweep --recipe config/trainer-cpu.toml --dataset data/v1 --base
    models/base --out runs/sweep --grid lora_rank=8,16 --grid learning_rate=1e-3,2e-3
    --budget-s 7200
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.terminal import show_sweep
        from trainer.training.recipe import parse_assignments
        from trainer.training.sweep import parse_grid
        from trainer.training.sweep import sweep as run_sweep

        options = {"dataset": dataset, "base": base}
        given = {key: one for key, one in options.items() if one is not None}
        flags = parse_assignments(sets or []) | given
        record = run_sweep(recipe, flags, parse_grid(grid), out, console, budget_s=budget_s)
        show(record.to_json(), console, lambda where: show_sweep(where, record), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("train")(train)
    app.command("sweep")(sweep)


def _load(path: Path, sets: list[str] | None, options: dict[str, Path | None]) -> Any:
    from trainer.training.recipe import load_recipe, parse_assignments

    given = {key: one for key, one in options.items() if one is not None}
    return load_recipe(path, parse_assignments(sets or []) | given)
