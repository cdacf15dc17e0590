"""``clerk-trainer``'s commands train and sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from trainer.cli.shared import AsJson, make_console, outcomes

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
    run: Annotated[
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
    --run runs/v1 --set rank=8
    """
    console = make_console(as_json=as_json)
    with outcomes():
        settings = _load(recipe, sets, {"dataset": dataset, "base": base, "run": run})
        from trainer.training.run import train as run_training  # seconds of imports

        record = run_training(settings, console, resume=resume, replace=replace)
        if as_json:
            print(json.dumps(record, ensure_ascii=False))


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("train")(train)


def _load(path: Path, sets: list[str] | None, options: dict[str, Path | None]) -> Any:
    from trainer.training.recipe import load_recipe, parse_assignments

    given = {key: one for key, one in options.items() if one is not None}
    return load_recipe(path, parse_assignments(sets or []) | given)
