"""Options that several commands have, with their help."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from worker.errors import SettingsError

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file with settings (see config/worker.toml); default: the one that "
        "CLERK_CONFIG names.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override one setting, by its path: kafka.group_id=clerks, model.adapter=/adapters, "
        "kafka.consumer.fetch.min.bytes=1. Repeatable.",
    ),
]
InputFormat = Annotated[
    Literal["csv", "jsonl", "text"] | None,
    typer.Option("--format", "-f", help="Format of the input; default: by the file name's ending."),
]
MessageField = Annotated[
    str | None,
    typer.Option(
        "--field", help="CSV column or JSON path of the message text.", show_default=False
    ),
]
UseDemo = Annotated[
    bool, typer.Option("--demo", help="Use the demo's small base model, and its adapter.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_DIGITS = re.compile(r"[0-9a-f]{4,64}")


def check_digest(option: str, digits: str) -> None:
    """Raise SettingsError unless these can be the first digits of an adapter's digest."""
    if not _DIGITS.fullmatch(digits):
        raise SettingsError(f"{option} {digits}: give at least 4 hexadecimal digits")
