"""Flags that every command has, and context managers that open the desk from them.

Settings, database and service are imported when a command runs, so that ``--help`` is quick.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from desk.service.context import Desk
    from desk.settings import Settings
    from desk.store.database import Database

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        metavar="FILE",
        help="TOML file with settings, such as config/desk.toml [default: $CLERK_DESK_CONFIG].",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override one setting: kafka.output_topic=labels. Repeatable.",
    ),
]


def command_group(words: str) -> typer.Typer:
    """Return a group of commands with this help."""
    return typer.Typer(
        help=words,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def load(config: Path | None, sets: Sequence[str] | None) -> Settings:
    """Load the settings of ``run`` and ``migrate``, and configure logging. Raises SettingsError."""
    from desk.settings import load_settings
    from worker.common.logs import configure_logging

    configure_logging(program="desk")  # for settings that cannot be read
    settings = load_settings(config, sets or ()).settings
    configure_logging(settings.log.format, settings.log.level, "desk")
    return settings


def load_typed(config: Path | None, sets: Sequence[str] | None) -> Settings:
    """Load the settings of a command that a user types: by default it logs only warnings, and
    errors are lines of text even if standard error is not a terminal. Raises SettingsError."""
    from desk.settings import load_settings
    from worker.common.logs import configure_logging

    # Before the user's flags, which then win.
    given = ["log.level=warning", "log.format=console", *(sets or ())]
    settings = load_settings(config, given).settings
    configure_logging(settings.log.format, settings.log.level, "desk")
    return settings


@contextmanager
def opened_database(settings: Settings) -> Iterator[Database]:
    """Open the settings' database, whatever its schema version. Raises SettingsError."""
    from desk.app import open_database

    database = open_database(settings)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def opened(config: Path | None, sets: Sequence[str] | None) -> Iterator[Desk]:
    """Open the desk for a command that a user types. Raises DeskStopped, DatabaseUnavailable."""
    from desk.app import open_settings_desk

    settings = load_typed(config, sets)
    with opened_database(settings) as database:
        yield open_settings_desk(settings, database)
