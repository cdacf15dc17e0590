"""Load a command's settings, set up logging by them, and print them for ``check-config``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from worker.common.errors import EXIT_SETTINGS
from worker.common.logs import configure_logging
from worker.settings import LoadedSettings, effective, load_settings


def load(config: Path | None, sets: Sequence[str] | None) -> LoadedSettings:
    """Load the settings and configure logging. Raises SettingsError."""
    configure_logging()  # so that a settings error is logged as JSON too
    loaded = load_settings(config, sets or ())
    configure_logging(loaded.settings.log.format, loaded.settings.log.level)
    return loaded


def load_offline(
    config: Path | None, sets: Sequence[str] | None, *, use_demo: bool
) -> LoadedSettings:
    """Load the settings of a command that prints results: by default it logs only warnings, and
    errors are lines of text even if redirected.

    ``use_demo`` takes base model and adapter from the demo. Raises SettingsError.
    """
    given = list(sets or ())
    if use_demo:
        from worker.demo.run import demo_model_settings

        given = [*demo_model_settings(), *given]
    # Before the user's flags, which then win.
    loaded = load_settings(config, ["log.level=warning", "log.format=console", *given])
    configure_logging(loaded.settings.log.format, loaded.settings.log.level)
    return loaded


def check(loaded: LoadedSettings) -> int:
    """Print every setting to standard output, and notes and problems to standard error; return the
    exit code."""
    from worker.config_check import adapter_problems, kafka_note, notes, settings_problems

    print_settings(loaded)
    sys.stdout.flush()  # so that problems come last if both go to the same file
    settings = loaded.settings
    for note in notes(settings, loaded.origins):
        print(f"note: {note}", file=sys.stderr)
    problems: list[Exception] = [*settings_problems(settings)]
    if not problems and (found := kafka_note(settings)):
        print(f"note: {found}", file=sys.stderr)
    problems += adapter_problems(settings)
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_SETTINGS if problems else 0


def print_settings(loaded: LoadedSettings) -> None:
    """Print every setting with its value and origin to standard output."""
    for name, value, origin in effective(loaded):
        print(f"{name} = {value}  # {origin}")
