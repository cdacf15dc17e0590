"""``clerk-trainer``: the offline trainer, from an export of messages to a published adapter.

The usual order: prepare, check, train, evaluate, duel, report, publish. Exit codes: 0 done,
1 something unexpected, 2 bad usage or bad input (one line on standard error), 3 the judgement is
no (a check or a gate that did not pass), 4 a proof of the trainer's own work failed, 130 stopped.
"""

from __future__ import annotations

import sys

import typer

from trainer.cli import (
    check_command,
    data_commands,
    judge_commands,
    money_commands,
    report_commands,
    store_commands,
    training_commands,
)
from worker.contract.tracebacks import print_private, show_private

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
    rich_markup_mode=None,
)


@app.callback()
def root() -> None:
    """Make adapters that carry their own contract."""


for group in (
    data_commands,
    check_command,
    training_commands,
    judge_commands,
    report_commands,
    money_commands,
    store_commands,
):
    group.register(app)


def main() -> None:
    """Run the command line. The traceback of what is not expected shows no values: they may be a
    message's text."""
    show_private()
    try:
        app()
    except Exception as error:  # noqa: BLE001 - shown here, for Python would show its words too
        print_private(error)
        sys.exit(1)
