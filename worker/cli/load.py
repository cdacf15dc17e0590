"""Loading the settings for a command, and setting up logging with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from worker.common.logs import configure_logging
from worker.settings import LoadedSettings, load_settings


def load(config: Path | None, sets: Sequence[str] | None) -> LoadedSettings:
    """Load the settings and configure logging. Raises SettingsError."""
    configure_logging()  # for settings that cannot be read
    loaded = load_settings(config, sets or ())
    configure_logging(loaded.settings.log.format, loaded.settings.log.level)
    return loaded


def load_offline(
    config: Path | None, sets: Sequence[str] | None, *, use_demo: bool
) -> LoadedSettings:
    """Load the settings of a command whose output is for people or pipes: only warnings are logged,
    and an error is a line of text also where it ends in a file, unless a flag says otherwise.

    ``use_demo`` takes base model and adapter from the demo. Raises SettingsError.
    """
    given = list(sets or ())
    if use_demo:
        from worker.demo.run import demo_model_settings

        given = [*demo_model_settings(), *given]
    loaded = load_settings(config, ["log.level=warning", "log.format=console", *given])
    configure_logging(loaded.settings.log.format, loaded.settings.log.level)
    return loaded
