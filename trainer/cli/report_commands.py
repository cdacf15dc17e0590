"""``clerk-trainer report`` and ``cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainer.cli.shared import (
    AsJson,
    GateFile,
    GateSets,
    make_console,
    outcomes,
    print_text,
    show,
)
from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.report.page import Report


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A run folder of clerk-trainer train, or a dataset folder of prepare.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write [default: report.html in the folder]."),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="A run's dataset folder [default: the one in the training record]."),
    ] = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts",
            help="Show message texts, which makes the page private. For a run: wrong answers, "
            "which opens the sealed hold-out (counted). For a dataset: doubtful messages of "
            "training and validation, never of the hold-out.",
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Let the gate compare with the current adapter in this store.",
        ),
    ] = None,
    gate: GateFile = None,
    sets: GateSets = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a run or a dataset.

    For a run: its accuracy, whether it passes the gate, its mistakes, how it was made, and what to
    do next. For a dataset: its rows, labels, lengths and doubtful labels, what its hold-out can
    show, and what to do next.

    The page is a single file without network access. It shows the results in the folder (train,
    evaluate, duel and cost each add to a run, check to a dataset) and names the command for
    each missing one.

    Without --texts messages appear only by their ids.

    Examples:

      clerk-trainer report data/tickets-1

      clerk-trainer report runs/june --out june.html --store /adapters

    Exit codes: 0 written; 2 a file is missing or of another run; 4 the evaluation's figures do not
    follow from its predictions.
    """
    with outcomes():
        from trainer.report.run import GateChoice
        from trainer.store.rules import load_rules

        given = {"--dataset": dataset, "--store": store, "--gate": gate, "--set": sets}
        kind = _kind_of(folder, [name for name, value in given.items() if value])
        if kind == "dataset":
            from trainer.report.dataset_page import write_dataset_report

            done = write_dataset_report(folder, out or folder / REPORT, texts=texts)
        else:
            from trainer.report.run_page import write_report

            choice = GateChoice(store, load_rules(gate, sets or []))
            done = write_report(
                folder, out or folder / REPORT, dataset=dataset, texts=texts, gate=choice
            )
    show(_result(done, kind), lambda to: _print_report(done, to), as_json=as_json)


REPORT = "report.html"


def _kind_of(folder: Path, of_runs: list[str]) -> str:
    """Return whether a folder is a dataset or a run. Raises BadInput for a dataset with one of the
    options ``of_runs``."""
    is_dataset = (folder / "dataset.json").is_file() and not (folder / "training.json").is_file()
    if is_dataset and of_runs:
        raise BadInput(f"{folder}: is a dataset, but {of_runs[0]} is for runs: leave it out")
    return "dataset" if is_dataset else "run"


def _result(done: Report, kind: str) -> dict[str, object]:
    return {
        "report": str(done.path),
        "of": kind,
        "bytes": done.size_bytes,
        "texts": done.with_texts,
        "sections": {
            key: "present" if there else "missing" for key, there in done.sections.items()
        },
    }


def _print_report(done: Report, console: Console) -> None:
    from trainer import numbers

    private = ", contains customers' messages" if done.with_texts else ""
    print_text(console, f"{done.path}: {numbers.size(done.size_bytes)}{private}")
    missing = [key.replace("_", " ") for key, there in done.sections.items() if not there]
    if missing:
        print_text(console, f"not available yet: {', '.join(missing)}")


def cost(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder whose measurements are used; cost.json is written into it.",
        ),
    ] = None,
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(help="TOML file with prices and volumes; config/cost.toml is a template."),
    ] = None,
    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML file of machines' prices, each with source and day, for inputs that name a "
            "machine; config/prices.toml is one.",
        ),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An input, over the file's. Repeatable."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="The engine that serves, if the evaluation measured several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for cost.json [default: the run folder].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute what the adapter costs, and when it pays for itself compared with a hosted model.

    One-time costs are training (machine hours times their price) and labelling. Monthly costs are
    replicas, around the clock. They are compared with the hosted model's price for the same
    messages. At break-even the savings have paid for training and labelling.

    No price and no volume is built in. Each input comes from a flag, the --inputs file, the
    --prices file or the run's measurements, and is printed with its source. A missing input is an
    error that names it. An input may be a range, [low, high]: the break-even is then a range too.
    Tables [[serving]] in the --inputs file compare ways to serve. Prices over 180 days old are
    named.

    The hosted model's tokens are those that its server counted in the duel, else an estimate from
    the bytes of the prompt with all labels.

    Examples:

      clerk-trainer cost runs/one --inputs config/cost.toml --prices config/prices.toml

      clerk-trainer cost runs/one --inputs own.toml --set replicas=2 --set messages_per_month=2e6
    """
    with outcomes():
        from trainer.artifacts.duel import COST
        from trainer.cost_inputs import collect_inputs, make_record
        from trainer.terminal import show_cost

        record = make_record(collect_inputs(run, inputs, engine, sets or [], prices))
        folder = out or run
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            COST.write(folder, record)
        show(
            record.to_json(),
            lambda console: show_cost(console, record),
            as_json=as_json,
        )
        if folder is not None and not as_json:
            print_text(make_console(as_json=as_json), f"\n{folder / COST.name}: all of it")
