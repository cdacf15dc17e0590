"""``clerk-trainer report``: the page about a run or a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show
from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.report.page import Report


ReportFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="A run folder that clerk-trainer train made, or a dataset folder of prepare.",
    ),
]
ReportOut = Annotated[
    Path | None,
    typer.Option(help="Page to write [default: report.html in the folder]."),
]
Dataset = Annotated[
    Path | None,
    typer.Option(help="A run's dataset folder [default: the one that the training names]."),
]
Texts = Annotated[
    bool,
    typer.Option(
        "--texts/--no-texts",
        help="Show messages, which makes the page private. Of a run: those answered wrongly, which "
        "opens the sealed hold-out and is counted. Of a dataset: doubted ones of training and "
        "validation, and none of the hold-out.",
    ),
]
GateStore = Annotated[
    Path | None,
    typer.Option(
        "--store",
        metavar="DIR",
        help="Have the gate compare with the adapter that is current in this store.",
    ),
]
GateFile = Annotated[
    Path | None,
    typer.Option("--gate", metavar="FILE", help="The gate's rules, such as config/gate.toml."),
]
GateSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="A rule of the gate, over the file's. Repeatable."
    ),
]


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("report")(report)


def report(
    folder: ReportFolder,
    *,
    out: ReportOut = None,
    dataset: Dataset = None,
    texts: Texts = False,
    store: GateStore = None,
    gate: GateFile = None,
    sets: GateSets = None,
    as_json: AsJson = False,
) -> None:
    """Draw a run or a dataset as one HTML page.

    Of a run: how good it is, whether the gate would let it pass, where it errs, how it was made,
    and what to do next. Of a dataset, before anything is trained: where the rows came from and
    where they went, labels, lengths, doubtful labels, what the hold-out can tell, and what to do
    next.

    The page stands alone: no network, no fonts, nothing beside it. It shows what the folder holds
    (train, evaluate, duel, sweep and cost each add to a run, check to a dataset) and says which
    command makes what is missing.

    Without --texts no message is shown: they are named by their ids.

    Examples:

      clerk-trainer report data/tickets-1

      clerk-trainer report runs/june --out june.html --store /adapters

    Exit codes: 0 written; 2 a file is missing or of another run; 4 the evaluation's figures are
    not what its predictions give.
    """
    console = make_console(as_json=as_json)
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
    show(_result(done, kind), console, lambda to: _tell(done, to), as_json=as_json)


REPORT = "report.html"


def _kind_of(folder: Path, of_runs: list[str]) -> str:
    """Return whether a folder is a dataset's or a run's. Raises BadInput for a dataset's folder
    with one of the options ``of_runs``."""
    is_dataset = (folder / "dataset.json").is_file() and not (folder / "training.json").is_file()
    if is_dataset and of_runs:
        raise BadInput(f"{folder}: is a dataset, and {of_runs[0]} is about a run: leave it out")
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


def _tell(done: Report, console: Console) -> None:
    from trainer import numbers

    private = ", holds texts of customers" if done.with_texts else ""
    print_text(console, f"{done.path}: {numbers.size(done.size_bytes)}{private}")
    missing = [key.replace("_", " ") for key, there in done.sections.items() if not there]
    if missing:
        print_text(console, f"nothing yet to show of: {', '.join(missing)}")
