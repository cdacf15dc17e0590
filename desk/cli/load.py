"""Loading the settings for a command, and opening what they describe."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from desk.app import open_database, open_settings_desk
from desk.service.context import Desk
from desk.settings import LoadedSettings, Settings, load_settings
from worker.common.logs import configure_logging


def load(config: Path | None, sets: Sequence[str] | None) -> LoadedSettings:
    """Load the settings and configure logging. Raises SettingsError."""
    configure_logging(program="desk")  # for settings that cannot be read
    loaded = load_settings(config, sets or ())
    configure_logging(loaded.settings.log.format, loaded.settings.log.level, "desk")
    return loaded


@contextmanager
def opened(config: Path | None, sets: Sequence[str] | None) -> Iterator[tuple[Settings, Desk]]:
    """The desk that the settings describe, open, for a command that a person types: its errors are
    lines of text wherever they end. Raises DeskStopped, DatabaseAway."""
    settings = load_settings(config, sets or ()).settings
    configure_logging("console", settings.log.level, "desk")
    database = open_database(settings)
    try:
        yield settings, open_settings_desk(settings, database)
    finally:
        database.close()
