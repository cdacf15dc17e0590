"""The offline trainer: from an export of messages to a published adapter.

``start`` does it all; by hand the usual order is: prepare, check, train, evaluate, duel, report,
publish. Exit codes: 0 done, 1 an unexpected error, 2 bad usage or bad input (one line on standard
error), 3 not good enough (a check or a gate that did not pass), 4 a proof of the trainer's own work
failed, 130 interrupted.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from trainer import __version__
from trainer.cli.base_command import base_app
from trainer.cli.circle_commands import advise, answers, propose, tasks
from trainer.cli.duel_command import duel
from trainer.cli.evaluate_commands import audit, cascade, evaluate
from trainer.cli.import_command import import_
from trainer.cli.label_command import label
from trainer.cli.prepare_command import prepare
from trainer.cli.report_commands import cost, report
from trainer.cli.start_command import start
from trainer.cli.store_commands import list_adapters, promote, publish, rollback
from trainer.cli.suggest_commands import suggest, taxonomy_app
from trainer.cli.train_commands import check, train
from worker.common.errors import print_private, show_private

_EPILOG = (
    "start does it all. By hand the usual order is: prepare, check, train, evaluate, duel, report, "
    "publish.\n\n"
    "Exit codes: 0 done · 1 unexpected error · 2 bad usage or input · 3 a check or gate did not "
    "pass · 4 a proof of the trainer's own work failed · 130 interrupted."
)

app = typer.Typer(
    name="clerk-trainer",
    no_args_is_help=True,
    add_completion=False,
    # Its tracebacks show local variables, and those hold messages: main prints what is safe.
    pretty_exceptions_enable=False,
    help="Make an adapter from labelled messages: clean, train, judge, and publish it.",
    epilog=_EPILOG,
    # Not "rich": it would read [default: ...] in a help text as markup and drop it.
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"clerk-trainer {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Make an adapter from labelled messages."""
    del version


# In one table: while each module registered its own commands, the headings were repeated and a
# reader found the commands nowhere together.
_COMMANDS = {
    "All at once": (start,),
    "Every day": (prepare, check, train, evaluate, duel, report),
    "Before there are labels": (label, suggest),
    "Sometimes": (import_, cascade, cost),
    "Reviewers and the next version": (tasks, audit, answers, advise, propose),
    "The store": (publish, promote, rollback, list_adapters),
}
"""Every command, under the heading that ``--help`` shows it with."""

_NAMES = {list_adapters: "list", import_: "import"}
"""Names that Python's own words keep from being a function's."""

for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(_NAMES.get(_command), rich_help_panel=_panel)(_command)
app.add_typer(base_app, name="base", rich_help_panel="Sometimes")
app.add_typer(taxonomy_app, name="taxonomy", rich_help_panel="Before there are labels")


def main() -> None:
    """Run the command line. The traceback of an unexpected error shows no values, because they may
    be message texts."""
    show_private()
    try:
        app()
    except Exception as error:  # noqa: BLE001 - shown here, because Python would print its message
        print_private(error)
        sys.exit(1)
