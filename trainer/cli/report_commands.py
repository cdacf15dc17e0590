"""``clerk-trainer report`` and ``cost``: a page about a run or a dataset, and an adapter's cost."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show
from trainer.errors import BadInput

if TYPE_CHECKING:
    from trainer.artifacts.duel import CostRecord, Volume
    from trainer.cost import CollectedInputs, Cost
    from trainer.report.page import Report


def report(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A run folder that clerk-trainer train made, or a dataset folder of prepare.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(help="Page to write [default: report.html in the folder]."),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(help="A run's dataset folder [default: the one that the training names]."),
    ] = None,
    texts: Annotated[
        bool,
        typer.Option(
            "--texts/--no-texts",
            help="Show messages, which makes the page private. Of a run: those answered wrongly, "
            "which opens the sealed hold-out and is counted. Of a dataset: doubted ones of "
            "training and validation, and none of the hold-out.",
        ),
    ] = False,
    store: Annotated[
        Path | None,
        typer.Option(
            "--store",
            metavar="DIR",
            help="Have the gate compare with the adapter that is current in this store.",
        ),
    ] = None,
    gate: Annotated[
        Path | None,
        typer.Option("--gate", metavar="FILE", help="The gate's rules, such as config/gate.toml."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A rule of the gate, over the file's. Repeatable."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Draw a run or a dataset as one HTML page.

    Of a run: how good it is, whether the gate would let it pass, where it errs, how it was made,
    and what to do next. Of a dataset, before anything is trained: where the rows came from and
    where they went, labels, lengths, doubtful labels, what the hold-out can tell, and what to do
    next.

    The page stands alone: no network, no fonts, nothing next to it. It shows what the folder holds
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


def cost(
    run: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder: its measurements are used, and cost.json is written into it.",
        ),
    ] = None,
    *,
    inputs: Annotated[
        Path | None,
        typer.Option(help="TOML file with prices and volumes; config/cost.toml is a template."),
    ] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="An input, over the file's. Repeatable."),
    ] = None,
    engine: Annotated[
        str | None,
        typer.Option(help="The engine that serves, where the evaluation measured several."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for cost.json [default: the run folder].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what the adapter costs, and when it has paid for itself against a hosted model.

    Paid once: training (machine hours times their price) and labelling. Paid every month:
    replicas, around the clock. Set against them: the hosted model's price for the same messages.
    Break-even is when the savings have paid for training and labelling.

    No price and no volume is built in: each input comes from a flag, the --inputs file or the
    run's own measurements, and is printed with its source. A missing input is an error that names
    it.

    Examples:

      clerk-trainer cost runs/one --inputs config/cost.toml --engine vllm

      clerk-trainer cost runs/one --inputs prices.toml --set replicas=2 --set messages_per_month=2e6
    """
    with outcomes():
        from trainer.artifacts.duel import COST
        from trainer.cost import by_volume, collect_inputs, compute_cost

        gathered = collect_inputs(run, inputs, engine, sets or [])
        try:
            found = compute_cost(gathered.numbers)
        except ValueError as error:
            name = str(error).partition(" ")[0]
            sources = {given.name: given.source for given in gathered.inputs}
            source = sources.get(name, "cost")
            raise BadInput(f"{source}: {error}") from error
        volumes = by_volume(gathered.numbers, gathered.volumes)
        record = _record(gathered, found, volumes)
        folder = out or run
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            COST.write(folder, record)
        show(
            record.to_json(),
            make_console(as_json=as_json),
            lambda console: _print_cost(gathered, found, volumes, folder, console),
            as_json=as_json,
        )


def _record(gathered: CollectedInputs, found: Cost, volumes: list[Volume]) -> CostRecord:
    from trainer.artifacts.duel import CostRecord
    from worker.contract.timestamps import rfc3339_now

    return CostRecord(
        created_at=rfc3339_now(),
        currency=gathered.currency,
        inputs=gathered.inputs,
        training=found.training,
        labelling=found.labelling,
        one_off=found.one_off,
        per_thousand_messages=found.per_thousand_messages,
        hosted_per_thousand=found.hosted_per_thousand,
        planned=found.planned,
        break_even_messages=found.break_even_messages,
        break_even_days=found.planned.break_even_days,
        break_even_reason=found.break_even_reason,
        pays_from_messages_per_month=found.pays_from_messages_per_month,
        pays_from_reason=found.pays_from_reason,
        by_volume=tuple(volumes),
    )


def _print_cost(
    gathered: CollectedInputs,
    found: Cost,
    volumes: list[Volume],
    folder: Path | None,
    console: Console,
) -> None:
    table = Table(title="inputs")
    for column in ("input", "value", "unit", "from"):
        table.add_column(column, overflow="fold", justify="right" if column == "value" else "left")
    for given in gathered.inputs:
        table.add_row(
            given.name, escape(_value(given.value)), escape(given.unit), escape(given.source)
        )
    console.print(table)

    money = f"in {escape(gathered.currency)}"
    table = Table(title=f"by volume, {money} a month")
    for column in (
        *("messages a month", "replicas", "serving", "per thousand", "hosted", "saved"),
        "break-even",
    ):
        table.add_column(column, justify="right")
    for row in volumes:
        days = row.break_even_days
        table.add_row(
            f"{row.messages_per_month:,.0f}",
            str(row.replicas),
            f"{row.serving:,.2f}",
            f"{row.serving_per_thousand:,.4f}",
            f"{row.hosted:,.2f}",
            f"{row.saving:,.2f}",
            "never" if days is None else f"{days:,.0f} days",
        )
    console.print(table)
    for line in _sentences(gathered, found, folder):
        print_text(console, line)


def _sentences(gathered: CollectedInputs, found: Cost, folder: Path | None) -> list[str]:
    unit, planned = gathered.currency, found.planned
    parts = f"training {found.training:,.2f} and labelling {found.labelling:,.2f}"
    own, hosted = found.per_thousand_messages, found.hosted_per_thousand
    lines = [
        f"once: {parts}, together {found.one_off:,.2f} {unit}",
        f"a thousand messages: {own:,.4f} {unit} at the planned utilisation, hosted {hosted:,.4f}",
    ]
    if planned.break_even_days is None:
        lines.append(f"break-even: never; {found.break_even_reason}")
    else:
        lines.append(
            f"break-even at {planned.messages_per_month:,.0f} messages a month: after "
            f"{found.break_even_messages:,.0f} messages, {planned.break_even_days:,.0f} days"
        )
    if found.pays_from_messages_per_month is None:
        lines.append(f"serving never costs less than the hosted model: {found.pays_from_reason}")
    else:
        lines.append(
            "a month's serving costs no more than the hosted model from "
            f"{found.pays_from_messages_per_month:,.0f} messages on, with "
            f"{gathered.numbers.replicas} replicas"
        )
    if folder is not None:
        lines.append(f"written to {folder / 'cost.json'}")
    return lines


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.6g}" if abs(value) < 1e6 else f"{value:,.0f}"
    if isinstance(value, list):
        return ", ".join(map(_value, value))
    return str(value)
