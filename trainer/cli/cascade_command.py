"""``clerk-trainer cascade``: two evaluated adapters, bound into one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trainer.cli.shared import AsJson, make_console, outcomes, print_text, show
from trainer.errors import BadInput, NotGoodEnough

if TYPE_CHECKING:
    from trainer.artifacts.cascade import CascadeRecord, CascadeRow


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("cascade")(cascade)


def cascade(
    first: Annotated[Path, typer.Argument(metavar="SMALL_RUN", help="The run of the small model.")],
    last: Annotated[
        Path, typer.Argument(metavar="LARGE_RUN", help="The run of the one behind it.")
    ],
    *,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The cascade's run folder.")],
    margin: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="By how much accuracy the whole may be worse than the large model alone (0.005: "
            "half a point).",
        ),
    ] = 0.005,
    name: Annotated[str, typer.Option(help="The cascade's name.")] = "cascade",
    disagreement: Annotated[
        float,
        typer.Option(
            metavar="CONFIDENCE",
            min=0.0,
            max=1.0,
            help="A person looks where the small model gave another label, this sure or more; 0: "
            "always, 1: hardly ever.",
        ),
    ] = 0.0,
    precision: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of the labels without review that are right [default: the large run's "
            "review_precision].",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Bind two adapters: the small model answers what it is sure of, the large one the rest.

    Both have to be trained and evaluated on one dataset. On its validation messages the command
    finds the lowest confidence from which on the small model may answer: the whole has to be shown
    not to be worse than the large model alone by --margin or more (a score test at 5 % in a
    fixed sequence, so that one cascade in twenty is truly worse at most). A table shows other
    margins beside it: what each stage would answer and a person see, accuracy with its 95 %
    interval, messages a second and the cost of a message by the stages' measured speeds.

    Where a stage would answer under 3 %, cascading is not worth it: nothing is bound, and the exit
    code is 3. Else DIR is a run folder that publish takes, through the same gate: the manifest that
    binds the stages, the stages, and the evaluation of the whole on the hold-out, put together of
    what they answered when it was opened for them.

    Example:

      clerk-trainer cascade runs/encoder runs/adapter --out runs/cascade --margin 0.005
    """
    with outcomes():
        from trainer.cascade.build import CascadeRequest, make_cascade

        for option, value in (("--margin", margin), ("--precision", precision)):
            if value is not None and not 0 < value < 1:
                raise BadInput(f"{option} {value}: a share above 0 and below 1")
        record = make_cascade(
            CascadeRequest(
                first=first,
                last=last,
                out=out,
                name=name,
                margin=margin,
                disagreement=disagreement,
                precision=precision,
            )
        )
        console = make_console(as_json=as_json)
        show(record.to_json(), console, lambda to: _print(to, record), as_json=as_json)
        if not record.worth_it:
            raise NotGoodEnough(record.verdict)


def _print(console: Console, record: CascadeRecord) -> None:
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.title = f"on {record.validation_messages:,} validation messages"
    first, last = record.alone
    for column in (
        "margin",
        escape(first.adapter.name),
        escape(last.adapter.name),
        "a person",
        "right of the rest",
        "accuracy",
        "95 % interval",
        "msg/s",
        "cost",
    ):
        table.add_column(column, justify="right", overflow="fold")
    for alone, shares in ((first, ("100.0%", "")), (last, ("", "100.0%"))):
        low, high = alone.accuracy_interval_95
        table.add_row(
            *("alone", *shares, _share(alone.review_share), _share(alone.accepted_precision)),
            *(f"{alone.accuracy:.2%}", f"{low:.1%} to {high:.1%}"),
            *(_speed(alone.messages_per_s), _cost(alone.messages_per_s, last.messages_per_s)),
        )
    for row in record.rows:
        table.add_row(*_cells(row, chosen=row.margin == record.margin))
    console.print(table)
    if record.messages_needed is not None:
        print_text(
            console,
            f"{record.validation_messages:,} validation messages are too few for this margin: "
            f"about {record.messages_needed:,} would show it of the surest part",
        )
    print_text(
        console,
        "msg/s and cost (of a message, against the last stage alone) are arithmetic: the "
        "stages' own measured speeds on one machine that both share",
    )
    if record.holdout_accuracy is not None and record.holdout_accuracy_interval_95 is not None:
        low, high = record.holdout_accuracy_interval_95
        print_text(
            console,
            f"on the hold-out: {record.holdout_accuracy:.2%} ({low:.2%} to {high:.2%}); "
            f"{last.adapter.name} alone {record.holdout_last_alone:.2%}",
        )
    if record.worth_it:
        print_text(console, record.verdict)


def _cells(row: CascadeRow, *, chosen: bool) -> list[str]:
    low, high = row.accuracy_interval_95
    mark = "[bold]" if chosen else ""
    cells = [
        f"{row.margin:.2%}",
        f"{row.first_share:.1%}",
        f"{row.last_share:.1%}",
        f"{row.review_share:.1%}",
        _share(row.accepted_precision),
        f"{row.accuracy:.2%}",
        f"{low:.1%} to {high:.1%}",
        _speed(row.messages_per_s),
        "" if row.relative_cost is None else f"{row.relative_cost:.2f}",
    ]
    return [f"{mark}{cell}" for cell in cells]


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.1%}"


def _speed(messages_per_s: float | None) -> str:
    return "" if messages_per_s is None else f"{messages_per_s:.0f}"


def _cost(messages_per_s: float | None, last: float | None) -> str:
    return "" if messages_per_s is None or last is None else f"{last / messages_per_s:.2f}"
