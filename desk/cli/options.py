"""The flags that every command has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        "-c",
        help="TOML file with settings (see config/desk.toml); default: the one that "
        "CLERK_DESK_CONFIG names.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="Override one setting, by its path: kafka.output_topic=labels. Repeatable.",
    ),
]
