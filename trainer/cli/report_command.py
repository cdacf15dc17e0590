"""``clerk-trainer report``: a run as one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show


def report(
    run: Annotated[Path, typer.Argument(help="The run folder that clerk-trainer train made.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write [default: report.html in the run folder]."),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="The dataset folder [default: the one that the training names]."),
    ] = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts",
            help="Show the messages that were answered wrongly. That opens the sealed hold-out, "
            "which the dataset counts, and makes the page private.",
        ),
    ] = True,
    *,
    as_json: AsJson = False,
) -> None:
    """Draw a run as one HTML page: how good it is, where it errs, how it was made.

    The page stands alone: no network, no fonts, nothing beside it. It shows what the run folder
    holds (train, evaluate, duel, sweep and cost each add to it) and says which command makes
    what is missing.

    Example: clerk-trainer report runs/june --no-texts --out june.html

    Exit codes: 0 written; 2 a file is missing or of another run; 4 the evaluation's figures are
    not what its predictions give.
    """
    from trainer.report.build import write_report

    console = make_console(as_json=as_json)
    with outcomes():
        done = write_report(run, out or run / "report.html", dataset=dataset, texts=texts)

    def tell(console: Console) -> None:
        from trainer.report import numbers

        private = ", holds texts of customers" if done.with_texts else ""
        print_text(console, f"{done.path}: {numbers.size(done.size_bytes)}{private}")
        missing = [key.replace("_", " ") for key, there in done.sections.items() if not there]
        if missing:
            print_text(console, f"nothing yet to show of: {', '.join(missing)}")

    result = {
        "report": str(done.path),
        "bytes": done.size_bytes,
        "texts": done.with_texts,
        "sections": {
            key: "present" if there else "missing" for key, there in done.sections.items()
        },
    }
    show(result, console, tell, as_json=as_json)


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("report")(report)
