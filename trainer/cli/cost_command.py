"""``clerk-trainer cost``: what an adapter costs, and when it has paid for itself."""

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
    from trainer.cost import Cost
    from trainer.cost_inputs import CollectedInputs


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("cost")(cost)


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
        from trainer.cost import by_volume, compute_cost
        from trainer.cost_inputs import collect_inputs

        gathered = collect_inputs(run, inputs, {"engine": engine}, sets or [])
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
            lambda console: _print(gathered, found, volumes, folder, console),
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


def _print(
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
