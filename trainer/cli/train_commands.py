"""``clerk-trainer train`` and ``sweep``: an adapter from a dataset, by one recipe or by several."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainer.cli.shared import BASE_OPTION, DATASET_OPTION, AsJson, make_console, outcomes, show

RecipeFile = Annotated[
    Path, typer.Option("--recipe", metavar="FILE", help="A recipe, such as config/trainer.toml.")
]
OptionalBase = Annotated[Path | None, BASE_OPTION]
OptionalDataset = Annotated[Path | None, DATASET_OPTION]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting, over the recipe's. Repeatable."),
]


def train(
    *,
    recipe: RecipeFile,
    dataset: OptionalDataset = None,
    base: OptionalBase = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder: adapter, figures, checkpoint.")
    ] = None,
    sets: Sets = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the run's checkpoint, if it has one.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete what the run folder holds.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a LoRA adapter on a dataset.

    First every row is verified to train on its label's code and nothing else, and memory is
    estimated before the base is loaded. The epoch that does best on validation is kept, and its
    confidence calibrated there. It may be killed at any time: --resume continues as if nothing
    had happened. Several GPUs: accelerate launch -m trainer train ...

    Example: clerk-trainer train --recipe config/trainer.toml --dataset data/v1 --base models/base
    --out runs/v1 --set lora_rank=8
    """
    console = make_console(as_json=as_json)
    with outcomes():
        from trainer.training.recipe import load_recipe, parse_assignments

        flags = parse_assignments(sets or []) | _given(dataset=dataset, base=base, run=out)
        settings = load_recipe(recipe, flags)
        from trainer.training.train import train as run_training  # seconds of imports

        record = run_training(settings, console, resume=resume, replace=replace)
        show(record.to_json(), console, lambda _: None, as_json=as_json)


def sweep(
    *,
    recipe: RecipeFile,
    dataset: OptionalDataset = None,
    base: OptionalBase = None,
    out: Annotated[Path, typer.Option(help="Folder for the trials and sweep.json.")],
    grid: Annotated[
        list[str],
        typer.Option(metavar="KEY=VALUE,VALUE", help="A setting and its values. Repeatable."),
    ],
    budget_s: Annotated[float, typer.Option(min=1, help="Seconds for all trials.")] = 3600.0,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Try a small grid of settings, ranked by validation and never by the hold-out.

    Trials that would not end within the budget are left out and counted; repeated with the same
    --out, the sweep continues where it stopped. --grid per_label=50,100,200 draws the learning
    curve over the amount of data.

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

        flags = parse_assignments(sets or []) | _given(dataset=dataset, base=base)
        record = run_sweep(recipe, flags, parse_grid(grid), out, console, budget_s=budget_s)
        show(record.to_json(), console, lambda where: show_sweep(where, record), as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("train")(train)
    app.command("sweep")(sweep)


def _given(**options: Path | None) -> dict[str, Path]:
    return {name: value for name, value in options.items() if value is not None}
