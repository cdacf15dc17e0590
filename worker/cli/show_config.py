"""The effective settings as a table on a terminal, as plain lines elsewhere."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.settings_load import LoadedSettings, effective


def print_settings(loaded: LoadedSettings) -> None:
    """Print every setting with its value and origin to standard output."""
    rows = list(effective(loaded))
    if not sys.stdout.isatty():
        for name, value, origin in rows:
            print(f"{name} = {value}  # {origin}")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for title in ("setting", "value", "origin"):
        table.add_column(title, overflow="fold")
    for name, value, origin in rows:
        style = "dim" if origin == "default" else ""
        table.add_row(name, escape(value), escape(origin), style=style)
    Console().print(table)
