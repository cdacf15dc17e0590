"""The offline trainer: from an export of messages to a published adapter.

The usual order: prepare, check, train, evaluate, duel, report, publish. Exit codes: 0 done,
1 an unexpected error, 2 bad usage or bad input (one line on standard error), 3 not good enough (a
check or a gate that did not pass), 4 a proof of the trainer's own work failed, 130 interrupted.
"""

from __future__ import annotations

import sys

import typer

from trainer.cli import (
    check_command,
    cost_command,
    evaluate_commands,
    prepare_command,
    publish_command,
    report_command,
    store_commands,
    train_commands,
)
from trainer.cli.shared import EXIT_BAD_INPUT

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
    prepare_command,
    check_command,
    train_commands,
    evaluate_commands,
    report_command,
    cost_command,
    publish_command,
    store_commands,
):
    group.register(app)

_RENAMED = {"--mask": "--redact", "--no-mask": "--no-redact", "--contender": "--candidate"}
"""Flags of earlier versions."""


def main() -> None:
    """Run the command line. A flag under an old name is refused with the new one."""
    for argument in sys.argv[1:]:
        flag, _, _ = argument.partition("=")
        if flag in _RENAMED:
            print(f"clerk-trainer: {flag} is called {_RENAMED[flag]} now", file=sys.stderr)
            raise SystemExit(EXIT_BAD_INPUT)
    app()
