"""``clerk-trainer``: the command line of the offline trainer.

Exit codes: 0 done, 1 something unexpected, 2 bad usage or bad input (one line on standard error).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainer.errors import BadInput
from trainer.recipe import load_recipe, parse_assignments
from worker.contract import ContractError

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)


@app.callback()
def root() -> None:
    """Make adapters that carry their own contract."""


@app.command()
def train(
    *,
    recipe: Annotated[Path, typer.Option(help="The recipe file, as config/trainer.toml.")],
    base: Annotated[Path | None, typer.Option(help="Directory of the base model.")] = None,
    data: Annotated[Path | None, typer.Option(help="Training messages, JSON Lines.")] = None,
    holdout: Annotated[Path | None, typer.Option(help="Hold-out messages, JSON Lines.")] = None,
    taxonomy: Annotated[Path | None, typer.Option(help="The labels: config/taxonomy.toml.")] = None,
    out: Annotated[Path | None, typer.Option(help="The adapter directory to make.")] = None,
    run_dir: Annotated[Path | None, typer.Option(help="For figures and predictions.")] = None,
    base_name: Annotated[str | None, typer.Option(help="The base's name.")] = None,
    base_revision: Annotated[str | None, typer.Option(help="The base's revision.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="Any setting of the recipe, as key=value.")
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Replace the adapter that is at --out.")
    ] = False,
) -> None:
    """Train an adapter, measure it on the hold-out, and publish it with its manifest."""
    options = {
        "base": base,
        "data": data,
        "holdout": holdout,
        "taxonomy": taxonomy,
        "out": out,
        "run_dir": run_dir,
        "base_name": base_name,
        "base_revision": base_revision,
    }
    given = {key: value for key, value in options.items() if value is not None}
    try:
        settings = load_recipe(recipe, parse_assignments(assignments or []) | given)
        from trainer.run import train as run  # seconds of imports that --help can do without

        run(settings, Console(), replace_existing=replace)
    except (BadInput, ContractError) as error:
        print(f"clerk-trainer: {error}", file=sys.stderr)
        raise typer.Exit(2) from None


def main() -> None:
    """Run the command line."""
    app()
